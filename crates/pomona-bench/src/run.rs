//! One run of any model on given inputs, for comparison with other run times.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Graph, ValueType};
use pomona_models::open;
use pomona_store::{Checkpoint, Encoding};
use pomona_task::{ModelWeights, Residence, empty_states};
use serde_json::{Map, Value, json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// The component of a pipeline
    #[arg(long)]
    component: Option<String>,
    /// A safetensors file with a tensor for each input, by the input's name
    #[arg(long)]
    inputs: PathBuf,
    /// Outputs that are computed; those whose inputs are all given without it
    #[arg(long)]
    output: Vec<String>,
}

pub fn run(a: &Args) -> Result<Value> {
    let model = open(&a.model)?;
    let component = model.component(a.component.as_deref())?;
    let graph = &component.graph;
    let device = Device::cpu();
    let mut feeds = feeds(graph, &Checkpoint::open(&a.inputs)?, &device)?;
    let batch = feeds.values().next().and_then(|t| t.shape().first().copied()).unwrap_or(1);
    feeds.extend(empty_states(graph, batch, &device)?);
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let mut names = a.output.clone();
    if names.is_empty() {
        names = graph.outputs.iter().map(|p| p.name.clone()).collect();
    }
    let began = std::time::Instant::now();
    let mut outputs = Map::new();
    for name in names {
        let value = graph.output(&name).with_context(|| format!("the model has no output `{name}`"))?;
        let found = evaluate(graph, &weights, &feeds, &[value], &Options::default())?.remove(0);
        let shape = found.shape().to_vec();
        let values: Value = match found.as_i64() {
            Ok(ints) => json!(ints),
            Err(_) => json!(found.to_f32()?),
        };
        outputs.insert(name, json!({"shape": shape, "values": values}));
    }
    Ok(json!({"model": a.model, "seconds": began.elapsed().as_secs_f64(), "outputs": outputs}))
}

fn feeds(graph: &Graph, file: &Checkpoint, device: &Device) -> Result<Feeds> {
    let mut feeds = Feeds::default();
    for info in file.tensors() {
        let names = || graph.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(id) = graph.input(&info.name) else {
            bail!("the model has no input `{}`; it has {}", info.name, names());
        };
        let bytes = file.bytes(info)?;
        let tensor = match (graph.value(id).ty, info.encoding) {
            (ValueType::Float, _) => Tensor::from_f32(file.decode(info)?, &info.shape, device)?,
            (ValueType::Int, Encoding::I64) => {
                let ints = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
                Tensor::from_i64(ints.collect(), &info.shape, device)?
            }
            (ValueType::Bool, Encoding::Bool) => {
                Tensor::from_bool(bytes.iter().map(|b| *b != 0).collect(), &info.shape, device)?
            }
            (wanted, found) => bail!("`{}` is stored as {found}; the input takes {wanted:?}", info.name),
        };
        feeds.insert(id, tensor);
    }
    Ok(feeds)
}
