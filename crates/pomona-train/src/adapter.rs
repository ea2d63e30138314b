//! Low-rank adapters (Hu et al., "LoRA", arXiv:2106.09685) as annotations of Linear nodes.

use std::collections::BTreeMap;
use std::path::Path;

use pomona_exec::{Device, Tensor};
use pomona_graph::{Annotation, Graph, Op, Role, Slot, TensorDef, TensorId, blocks};
use pomona_models::Change;
use pomona_store::{Encoding, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::checkpoint::WEIGHT;
use crate::error::{Result, TrainError};
use crate::optimiser::Rule;
use crate::parameters::Parameters;
use crate::pattern::Pattern;

/// Sizes of the adapters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LowRank {
    /// Inner width.
    pub rank: usize,
    /// The addition is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
}

/// A Linear with an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The node.
    pub path: String,
    /// Name of its weight.
    pub weight: String,
    /// The weight's shape.
    pub shape: [usize; 2],
    down: TensorId,
    up: TensorId,
}

impl Site {
    fn factor(&self, which: &str) -> String {
        format!("{}.{which}.weight", self.path)
    }
}

/// The graph with adapters on the Linear nodes that a pattern matches; without patterns on every one inside a block.
///
/// # Errors
/// Where a pattern matches no Linear node, or the rank is 0 or more than a side of a weight.
pub fn adapt(graph: &Graph, targets: &[Pattern], low: LowRank) -> Result<(Graph, Vec<Site>)> {
    let inside: Vec<String> = blocks(graph).into_iter().map(|b| b.path + ".").collect();
    let linear = |n: &&pomona_graph::Node| matches!(n.op, Op::Linear {});
    if let Some(lost) =
        targets.iter().find(|t| !graph.nodes.iter().filter(linear).any(|n| t.matches(&n.path)))
    {
        let mut names: Vec<&str> =
            graph.nodes.iter().filter(linear).filter_map(|n| n.path.rsplit('.').next()).collect();
        names.sort_unstable();
        names.dedup();
        return Err(TrainError::Unfit(format!(
            "no Linear node is called `{lost}`; there are {}",
            names.join(", ")
        )));
    }
    let meant = |path: &str| match targets {
        [] => inside.iter().any(|b| path.starts_with(b)),
        some => some.iter().any(|t| t.matches(path)),
    };
    let mut adapted = graph.clone();
    let mut sites = Vec::new();
    for node in graph.nodes.iter().filter(linear).filter(|n| meant(&n.path)) {
        let Some(weight) = node.weights.get(&Slot::Weight).map(|t| graph.tensor(*t)) else { continue };
        let [out, width] = weight.shape[..] else { continue };
        // A gate of one output has nothing to make low-rank: left alone unless it is named.
        if targets.is_empty() && low.rank > 0 && low.rank > out.min(width) {
            continue;
        }
        if low.rank == 0 || low.rank > out.min(width) {
            return Err(TrainError::Unfit(format!(
                "rank {} does not suit `{}` {:?}: 1 to {} does",
                low.rank,
                node.path,
                weight.shape,
                out.min(width)
            )));
        }
        let mut tensor = |which: &str, shape: [usize; 2]| {
            adapted.tensors.push(TensorDef {
                name: format!("{}.{which}.weight", node.path),
                shape: shape.to_vec(),
                dtype: "f32".to_owned(),
                role: Role::Parameter,
                aliases: Vec::new(),
            });
            TensorId(adapted.tensors.len() as u32 - 1)
        };
        let (down, up) = (tensor("lora_A", [low.rank, width]), tensor("lora_B", [out, low.rank]));
        let note = Annotation::Adapter { rank: low.rank, alpha: low.alpha, dropout: low.dropout };
        adapted.annotations.entry(node.path.clone()).or_default().push(note);
        let (path, weight) = (node.path.clone(), weight.name.clone());
        sites.push(Site { path, weight, shape: [out, width], down, up });
    }
    if sites.is_empty() {
        return Err(TrainError::Unfit(
            "the model has no blocks with Linear nodes of such a rank: name the nodes (--lora-targets), or a smaller rank"
                .to_owned(),
        ));
    }
    Ok((adapted, sites))
}

/// Factors as peft starts them: A uniform within one over the root of its width, B zero, so that the model begins as it was.
///
/// # Errors
/// As tensors'.
pub fn start(
    sites: &[Site],
    low: LowRank,
    seed: u64,
    rule: &Rule,
    averaged: bool,
    parameters: &mut Parameters,
) -> Result<()> {
    let cpu = Device::cpu();
    for site in sites {
        let [out, width] = site.shape;
        let name = site.factor("lora_A");
        let mut rng = ChaCha8Rng::from_seed(*blake3::hash(format!("{seed} {name}").as_bytes()).as_bytes());
        let bound = 1.0 / (width as f32).sqrt();
        let values = (0..low.rank * width).map(|_| rng.random_range(-bound..bound)).collect();
        let down =
            parameters.add(name, Tensor::from_f32(values, &[low.rank, width], &cpu)?, rule, averaged)?;
        let zeros = Tensor::full(0.0, &[out, low.rank], &cpu)?;
        let up = parameters.add(site.factor("lora_B"), zeros, rule, averaged)?;
        parameters.of_graph.extend([(site.down, down), (site.up, up)]);
    }
    Ok(())
}

/// How merged weights are made from a checkpoint's factors; `group` is the part of the checkpoint that is read.
pub fn merged(sites: &[Site], low: LowRank, group: &str) -> BTreeMap<String, Change> {
    let change = |s: &Site| Change::LowRank {
        down: format!("{group}{}", s.factor("lora_A")),
        up: format!("{group}{}", s.factor("lora_B")),
        scale: low.alpha / low.rank as f64,
    };
    sites.iter().map(|s| (s.weight.clone(), change(s))).collect()
}

/// Writes the factors as peft's `PeftModel.from_pretrained` reads them. `rename` gives a node's path in the stock model.
///
/// # Errors
/// Where the directory exists without `force` or cannot be written.
pub fn save_peft(
    sites: &[Site],
    low: LowRank,
    parameters: &Parameters,
    (base, causal): (&str, bool),
    rename: &dyn Fn(&str) -> String,
    (out, force): (&Path, bool),
) -> Result<()> {
    let mut items = Vec::with_capacity(2 * sites.len());
    for site in sites {
        for (which, id) in [("lora_A", site.down), ("lora_B", site.up)] {
            let found = parameters.of_graph.get(&id).and_then(|i| parameters.list.get(*i));
            let p = found
                .ok_or_else(|| TrainError::Unfit(format!("`{}` has no trained factor {which}", site.path)))?;
            let values = p.average.clone().map_or_else(|| p.value.to_f32(), Ok)?;
            let name = format!("base_model.model.{}.{which}.weight", rename(&site.path));
            items.push((name, p.value.shape().to_vec(), values));
        }
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let mut targets: Vec<String> = sites.iter().map(|s| rename(&s.path)).collect();
    // Names that mean the same nodes in every block are said once, as peft's own files do.
    let last = |p: &String| p.rsplit('.').next().unwrap_or(p).to_owned();
    let mut short: Vec<String> = targets.iter().map(last).collect();
    short.sort();
    short.dedup();
    if short.len() * 4 <= targets.len() {
        targets = short;
    }
    let config = serde_json::json!({
        "peft_type": "LORA", "task_type": if causal { "CAUSAL_LM".into() } else { serde_json::Value::Null },
        "base_model_name_or_path": base, "inference_mode": true, "r": low.rank, "lora_alpha": low.alpha,
        "lora_dropout": low.dropout, "target_modules": targets, "bias": "none", "fan_in_fan_out": false,
        "init_lora_weights": true, "use_rslora": false, "use_dora": false, "modules_to_save": null,
        "layers_to_transform": null, "layers_pattern": null, "rank_pattern": {}, "alpha_pattern": {},
    });
    let specs = items.iter().map(|(name, shape, _)| TensorSpec {
        name: name.clone(),
        encoding: Encoding::F32,
        shape: shape.clone(),
    });
    let needed = items.iter().map(|i| i.2.len() as u64 * 4).sum::<u64>() + (1 << 20);
    let options = OutputOptions { force, needed, ..OutputOptions::default() };
    let mut dir = OutputDir::create(out, &options)?;
    let format = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut sink = SafetensorsWriter::new(&mut dir, "adapter_model", specs.collect(), u64::MAX, &format)?;
    for (i, (_, _, values)) in items.iter().enumerate() {
        if sink.begin(i)? {
            sink.write(bytemuck::cast_slice(values))?;
            sink.end()?;
        }
    }
    sink.finish()?;
    drop(sink);
    dir.write("adapter_config.json", format!("{config:#}\n").as_bytes())?;
    dir.commit()?;
    Ok(())
}

/// The names of a checkpoint's factors.
pub fn group() -> &'static str {
    WEIGHT
}
