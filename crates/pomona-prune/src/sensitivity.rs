//! How sensitive the output is to each layer: every group alone is cut by several ratios, without retraining, and the output
//! compared with the uncut network's. The first step of Cut Inner Layers, and of use for any network.

use std::collections::BTreeMap;
use std::path::Path;

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Graph, ValueId, apply};
use pomona_task::{EditedWeights, Weights, image_metrics};
use serde::{Deserialize, Serialize};

use crate::error::{PruneError, Result};
use crate::filter_scores::{FilterScores, FilterSettings};
use crate::ladder::{Fit, Ladder, LadderOptions};
use crate::levels::group_levels;
use crate::methods::depth::Progress;
use crate::methods::filters::open_groups;
use crate::scores::DataId;

/// Version of the format.
pub const SENSITIVITY_VERSION: u32 = 1;

/// A value for every input port, by name.
pub type Sample = BTreeMap<String, Tensor>;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// [`SENSITIVITY_VERSION`].
    pub sensitivity_version: u32,
    /// The program, with its version.
    pub tool: String,
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// How it was measured.
    pub settings: SensitivitySettings,
    /// The inputs.
    pub data: DataId,
    /// A layer at a ratio each, layers in the order in which data flows.
    pub rows: Vec<SensitivityRow>,
    /// Whether the sweep came to its end; otherwise the same command goes on.
    pub complete: bool,
}

/// How sensitivity is measured. A file made with other settings is not continued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensitivitySettings {
    /// Which filters of a layer go.
    pub filters: FilterSettings,
    /// Shares of a layer that go.
    pub ratios: Vec<f64>,
}

/// A layer cut by a ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensitivityRow {
    /// Path of the node that makes the filters; the first of several.
    pub layer: String,
    /// Its level by resolution, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// Share that was asked for.
    pub ratio: f64,
    /// Filters that went.
    pub removed: usize,
    /// Filters that there were.
    pub of: usize,
    /// Mean |difference| of the outputs.
    pub l1: f64,
    /// Peak signal-to-noise ratio in dB, the peak being the uncut outputs' range; none where the outputs are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
    /// Structural similarity, where the output has two spatial axes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
}

/// What a sweep works on.
pub struct Sweep<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: &'a dyn Weights,
    /// Scores of its filters.
    pub scores: &'a FilterScores,
    /// Inputs.
    pub samples: &'a [Sample],
    /// What they are.
    pub data: DataId,
    /// Where it runs.
    pub device: &'a Device,
}

impl Sensitivity {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Sensitivity> {
        let fail = |message: String| PruneError::Scores { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let found: Sensitivity = serde_json::from_str(&text)
            .map_err(|e| fail(format!("is not a file of sensitivities ({e}): measure again")))?;
        if found.sensitivity_version != SENSITIVITY_VERSION {
            return Err(fail(format!(
                "has version {}; this program reads version {SENSITIVITY_VERSION}: measure again",
                found.sensitivity_version
            )));
        }
        Ok(found)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let fail = |message: String| PruneError::Scores { path: path.to_owned(), message };
        let text = serde_json::to_string_pretty(self).map_err(|e| fail(e.to_string()))? + "\n";
        pomona_store::write_atomic(path, text.as_bytes()).map_err(|e| fail(e.to_string()))
    }

    /// Layers in order, each with its level.
    pub fn layers(&self) -> Vec<(&str, Option<usize>)> {
        let mut out: Vec<(&str, Option<usize>)> = Vec::new();
        for row in &self.rows {
            if !out.iter().any(|(l, _)| *l == row.layer) {
                out.push((&row.layer, row.level));
            }
        }
        out
    }
}

/// Measures every layer at every ratio. Where `out` holds an unfinished sweep of the same work, it is continued; rows are
/// kept as they are measured.
///
/// # Errors
/// [`PruneError::Scores`] where the file holds other work.
pub fn sweep(
    on: &Sweep<'_>,
    ratios: &[f64],
    out: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<Sensitivity> {
    let settings = SensitivitySettings { filters: on.scores.settings.clone(), ratios: ratios.to_vec() };
    let mut found = Sensitivity {
        sensitivity_version: SENSITIVITY_VERSION,
        tool: on.scores.tool.clone(),
        fingerprint: on.scores.fingerprint.clone(),
        settings,
        data: on.data.clone(),
        rows: Vec::new(),
        complete: false,
    };
    if let Some(path) = out.filter(|p| p.exists()) {
        let kept = Sensitivity::read(path)?;
        let same = (&kept.tool, &kept.fingerprint, &kept.settings, &kept.data)
            == (&found.tool, &found.fingerprint, &found.settings, &found.data);
        if !same {
            let message =
                "holds another sweep (model, settings, inputs or program differ): choose another file, or \
                           remove it"
                    .to_owned();
            return Err(PruneError::Scores { path: path.to_owned(), message });
        }
        found = kept;
    }
    let save = |s: &Sensitivity| out.map_or(Ok(()), |p| s.write(p));
    save(&found)?;
    if found.complete {
        return Ok(found);
    }
    let (ladder, layers) = layers(on)?;
    let reference = outputs(on.graph, on.weights, on.samples)?;
    on.weights.release();
    let total = layers.len() * ratios.len();
    for (cluster, level) in layers {
        let layer = layer_name(on.graph, &ladder, cluster);
        for ratio in ratios {
            if !found.rows.iter().any(|r| r.layer == layer && r.ratio == *ratio) {
                found.rows.push(measure(on, &ladder, (cluster, level), *ratio, &reference)?);
                save(&found)?;
            }
            progress(found.rows.len(), total)?;
        }
    }
    found.complete = true;
    save(&found)?;
    Ok(found)
}

/// Number of a cluster, and its level.
type Layer = (usize, Option<usize>);

/// The ladder, and its clusters in the order in which data flows, each with its level.
fn layers(on: &Sweep<'_>) -> Result<(Ladder, Vec<Layer>)> {
    let groups = open_groups(on.graph)?;
    // A network of one resolution has no levels; its layers can be measured all the same.
    let levels = group_levels(on.graph, &groups).unwrap_or_else(|_| vec![None; groups.len()]);
    let ladder = Ladder::new(on.graph, groups, on.scores, &LadderOptions::default())?;
    let first = |c: usize| {
        let makers = ladder.clusters[c].groups.iter().flat_map(|g| ladder.groups[*g].makers(on.graph));
        makers.map(|(id, _)| id.0).min().unwrap_or(u32::MAX)
    };
    let mut order: Vec<usize> = (0..ladder.clusters.len()).collect();
    order.sort_by_key(|c| first(*c));
    let level = |c: usize| ladder.clusters[c].groups.iter().filter_map(|g| levels[*g]).min();
    let order = order.into_iter().map(|c| (c, level(c))).collect();
    Ok((ladder, order))
}

fn layer_name(graph: &Graph, ladder: &Ladder, cluster: usize) -> String {
    let groups = &ladder.clusters[cluster].groups;
    let mut makers: Vec<_> = groups.iter().flat_map(|g| ladder.groups[*g].makers(graph)).collect();
    makers.sort_unstable();
    let named = makers.first().map(|(_, path)| (*path).to_owned());
    named.unwrap_or_else(|| ladder.groups[groups[0]].name.clone())
}

fn measure(
    on: &Sweep<'_>,
    ladder: &Ladder,
    (cluster, level): (usize, Option<usize>),
    ratio: f64,
    reference: &[Tensor],
) -> Result<SensitivityRow> {
    let mut heights = vec![0; ladder.clusters.len()];
    heights[cluster] = ladder.heights(Fit::AtMost, |_| ratio)[cluster];
    let removed =
        ladder.clusters[cluster].rungs.iter().take(heights[cluster]).map(|r| r.channels.len()).sum();
    let of = ladder.clusters[cluster].groups.iter().map(|g| ladder.groups[*g].len).sum();
    let (edited, recipe) = apply(on.graph, &ladder.edits(on.graph, &heights))?;
    let weights = EditedWeights::new(on.graph, on.weights, (&edited, &recipe), on.device);
    let cut = outputs(&edited, &weights, on.samples)?;
    weights.release();
    let all = |f: &dyn Fn(&Tensor) -> Result<Vec<f32>>, of: &[Tensor]| -> Result<Vec<f32>> {
        Ok(of.iter().map(f).collect::<Result<Vec<_>>>()?.concat())
    };
    let read = |t: &Tensor| Ok(t.to_f32()?);
    let (a, b) = (all(&read, reference)?, all(&read, &cut)?);
    let range = image_metrics::range(&a);
    let mut ssim = Vec::new();
    for (x, y) in reference.iter().zip(&cut) {
        ssim.extend(image_metrics::ssim(&x.to_f32()?, &y.to_f32()?, x.shape(), range));
    }
    Ok(SensitivityRow {
        layer: layer_name(on.graph, ladder, cluster),
        level,
        ratio,
        removed,
        of,
        l1: image_metrics::l1(&a, &b),
        psnr: Some(image_metrics::psnr(&a, &b, range)).filter(|p| p.is_finite()),
        ssim: (!ssim.is_empty()).then(|| ssim.iter().sum::<f64>() / ssim.len() as f64),
    })
}

/// The first output port for every sample.
fn outputs(graph: &Graph, weights: &dyn Weights, samples: &[Sample]) -> Result<Vec<Tensor>> {
    let unfit = |what: String| PruneError::Unfit(what);
    let output = graph.outputs.first().ok_or_else(|| unfit(format!("`{}` has no output", graph.name)))?.value;
    let run = |sample: &Sample| -> Result<Tensor> {
        let mut feeds = Feeds::new();
        for (name, tensor) in sample {
            let value: ValueId =
                graph.input(name).ok_or_else(|| unfit(format!("`{}` has no input `{name}`", graph.name)))?;
            feeds.insert(value, tensor.clone());
        }
        let out = evaluate(graph, weights, &feeds, &[output], &Options::default())?;
        out.into_iter().next().ok_or_else(|| unfit("no output was made".to_owned()))
    };
    samples.iter().map(run).collect()
}
