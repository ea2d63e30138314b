//! Options of filter pruning.

use std::path::PathBuf;

use clap::Args;
use pomona_prune::criteria::filters::{Aggregate, Gamma};
use pomona_prune::{LadderOptions, Order};

/// How filters are scored.
#[derive(Clone, Debug, Args)]
pub struct FilterScoreOptions {
    /// How a filter's measures in several tensors become one score: each tensor a vote (normalised), their sum, or only the
    /// layers that make the channel (makers)
    #[arg(long, default_value = "normalised", value_parser = aggregate)]
    pub aggregate: Aggregate,
    /// snp and heads: the leading components of the logits, a number (16) or those whose singular value is above a share of the
    /// largest (1%)
    #[arg(long, default_value_t, value_name = "COMPONENTS")]
    pub gamma: Gamma,
    /// Shares of each layer that the sweep of inner-layers cuts
    #[arg(long, default_value = "25%,50%,75%", value_delimiter = ',', value_parser = share)]
    pub ratios: Vec<f64>,
    /// Draw the sweep of inner-layers into this SVG file
    #[arg(long, value_name = "SVG")]
    pub chart: Option<PathBuf>,
    /// What the chart shows: l1, psnr or ssim against the uncut output
    #[arg(long, default_value = "l1", value_parser = metric)]
    pub metric: Metric,
    /// The component of a pipeline that is scored (unet)
    #[arg(long)]
    pub component: Option<String>,
}

/// A distance of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    L1,
    Psnr,
    Ssim,
}

/// Which filters go.
#[derive(Clone, Debug, Args)]
pub struct FilterOptions {
    /// Cut this share of the groups that layers of a name make (`down1.conv=50%`, `*.conv1=25%`), of a kind (qk, v, ffn, stream,
    /// filters, heads), of an attention's (`blocks.3.attn.qk=60%`), or of all (`50%`); the last match counts
    #[arg(long, value_name = "[NAME=]SHARE", value_parser = named_share, conflicts_with = "target")]
    pub ratio: Vec<(String, f64)>,
    /// Cut the shares that a JSON file holds: for qk, v, ffn, stream, filters and heads one or a list
    #[arg(long, value_name = "JSON", conflicts_with_all = ["target", "ratio"])]
    pub ratio_file: Option<PathBuf>,
    /// Rank channels over the whole network, not layer by layer
    #[arg(long)]
    pub global: bool,
    /// Keep multiples of this many channels
    #[arg(long, default_value_t = 1)]
    pub round: usize,
    /// Most that a group loses
    #[arg(long, default_value = "100%", value_parser = share)]
    pub max_ratio: f64,
    /// Groups that stay whole, by the path of a layer or module, `*` for any characters
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub protect_groups: Vec<String>,
    /// inner-layers: cut filters from this level inwards (0 has the input's resolution)
    #[arg(long, value_name = "LEVEL")]
    pub from_level: Option<usize>,
    /// inner-layers: take this many of the innermost levels out
    #[arg(long, value_name = "LEVELS", default_value_t = 0)]
    pub drop_levels: usize,
}

impl FilterOptions {
    /// Limits of what goes.
    pub fn limits(&self) -> LadderOptions {
        LadderOptions { round: self.round, max_ratio: self.max_ratio, protect: self.protect_groups.clone() }
    }

    /// Which channels go first.
    pub fn order(&self) -> Order {
        if self.global { Order::Global } else { Order::Uniform }
    }
}

/// Parses an aggregate.
pub fn aggregate(s: &str) -> Result<Aggregate, String> {
    s.parse()
}

fn metric(s: &str) -> Result<Metric, String> {
    match s {
        "l1" => Ok(Metric::L1),
        "psnr" => Ok(Metric::Psnr),
        "ssim" => Ok(Metric::Ssim),
        "fid" => Err("FID compares features of a trained Inception network, and none is at hand: l1, psnr and ssim compare \
                      with the uncut output instead"
            .to_owned()),
        _ => Err(format!("`{s}`: l1, psnr or ssim was expected")),
    }
}

fn share(s: &str) -> Result<f64, String> {
    let bad = || format!("`{s}`: a share such as 25% or 0.25 was expected, up to 100%");
    let value = match s.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|v| v / 100.0),
        None => s.trim().parse(),
    };
    value.ok().filter(|v| v.is_finite() && *v > 0.0 && *v <= 1.0).ok_or_else(bad)
}

fn named_share(s: &str) -> Result<(String, f64), String> {
    match s.rsplit_once('=') {
        Some((name, value)) => Ok((name.to_owned(), share(value)?)),
        None => Ok(("*".to_owned(), share(s)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_others_refused() {
        assert_eq!(named_share("50%"), Ok(("*".to_owned(), 0.5)));
        assert_eq!(named_share("a.b=0.25"), Ok(("a.b".to_owned(), 0.25)));
        for bad in ["0", "101%", "x", "a=", "-5%", "nan"] {
            assert!(named_share(bad).is_err(), "{bad}");
        }
        assert!(metric("fid").is_err_and(|e| e.contains("Inception")));
    }
}
