//! A checkpoint of a config's full size with seeded random weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_graph::{Distribution, Expr, Op, Recipe, Slot};
use pomona_store::{Encoding, OutputDir, OutputOptions, TensorSpec};

use crate::config::{Fields, read_object};
use crate::error::Result;
use crate::families;
use crate::opaque;
use crate::recipe_exec::{Progress, WriteItem};
use crate::save::{OutputFormat, Planned, SaveOptions, pretty, set_dtype, write_weights};

/// How a checkpoint is made.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Seed of every tensor's stream.
    pub seed: u64,
    /// Type of the weights: f32, f16 or bf16.
    pub dtype: Encoding,
    /// Most bytes of a file.
    pub shard_size: u64,
    /// An existing output is replaced.
    pub force: bool,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { seed: 0, dtype: Encoding::Bf16, shard_size: 5_000_000_000, force: false }
    }
}

/// Writes a stock directory for a config: matrices normal with the config's `initializer_range` (0.02 without),
/// norms 1, biases 0. The same config, seed and type give the same bytes.
///
/// # Errors
/// Where the config's model_type is not known or a value of it is wrong, and as for any output.
pub fn init(
    config: impl AsRef<Path>,
    options: &InitOptions,
    out: impl AsRef<Path>,
    progress: &mut Progress<'_>,
) -> Result<PathBuf> {
    let path = config.as_ref();
    let path = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
    let mut config = read_object(&path)?;
    let fields = Fields::new(&path, &config)?;
    let (known, _) = families::of_config(&config).ok_or_else(|| opaque::unknown(&path, &config))?;
    let deviation = fields.positive_or("initializer_range", 0.02)?;
    let graph = known.graph(&fields)?;
    let mut planned =
        Planned { items: Vec::new(), import: Recipe::default(), dtypes: BTreeMap::new(), onnx: None };
    let mut bytes = 0;
    for (id, t) in graph.iter_tensors() {
        let user = graph.nodes.iter().find_map(|n| {
            let slot = n.weights.iter().find(|(_, w)| **w == id)?.0;
            Some((&n.op, *slot))
        });
        let distribution = match user {
            Some((Op::RmsNorm { offset, .. }, Slot::Weight)) => Distribution::Fill(1.0 - offset),
            Some((op, Slot::Weight)) if is_norm(op) => Distribution::Fill(1.0),
            Some((_, Slot::RunningVar)) => Distribution::Fill(1.0),
            Some((_, Slot::Weight)) => Distribution::Normal(deviation),
            _ => Distribution::Fill(0.0),
        };
        let mut shape = t.shape.clone();
        if known.transposed(&t.name) {
            shape.reverse();
        }
        let spec = TensorSpec { name: t.name.clone(), encoding: options.dtype, shape: shape.clone() };
        bytes += spec.encoding.bytes_for(&spec.shape).unwrap_or(0);
        let expr = Expr::Initialise {
            distribution,
            seed: options.seed,
            name: t.name.clone(),
            shape,
            dtype: options.dtype.name().to_owned(),
        };
        planned.items.push(WriteItem { spec, expr });
    }
    if known.config_has_dtype() {
        set_dtype(&mut config, &planned);
    }
    let text = pretty(&config);
    let mut key = blake3::Hasher::new();
    key.update(&text);
    key.update(format!("{options:?}").as_bytes());
    let mut dir = OutputDir::create(
        out.as_ref(),
        &OutputOptions {
            force: options.force,
            needed: bytes + (1 << 20),
            sources: vec![path],
            resume_key: Some(key.finalize().to_hex().to_string()),
        },
    )?;
    let save = SaveOptions { shard_size: options.shard_size, ..SaveOptions::default() };
    let stem = known.file_stem();
    write_weights(&mut dir, stem, &planned, OutputFormat::Hf, &save, &[], None, progress)?;
    dir.write("config.json", &text)?;
    crate::open(dir.path())?;
    Ok(dir.commit()?)
}

fn is_norm(op: &Op) -> bool {
    matches!(op, Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::BatchNorm { .. } | Op::InstanceNorm { .. })
}
