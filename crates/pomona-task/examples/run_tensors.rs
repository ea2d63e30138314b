//! Runs a model on tensors: `run_tensors MODEL DATA.safetensors OUT.safetensors [BATCH]`.
//!
//! DATA holds a tensor for each input of the model, samples along the first axis; OUT gets the first output for all of them.

use std::error::Error;
use std::path::Path;

use pomona_exec::{Device, Options, evaluate};
use pomona_models::open;
use pomona_task::{ModelWeights, Objective, Residence, TensorData};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, out, rest @ ..] = args.as_slice() else {
        return Err("run_tensors MODEL DATA.safetensors OUT.safetensors [BATCH]".into());
    };
    let batch: usize = rest.first().map_or(Ok(1), |b| b.parse())?;
    let model = open(Path::new(model))?;
    let component = model.only()?;
    let graph = &component.graph;
    let device = Device::cpu();
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let data = TensorData::read(Path::new(data), graph, usize::MAX)?;
    let output = graph.outputs.first().ok_or("the model has no output")?;
    let (mut values, mut shape): (Vec<f32>, Vec<usize>) = Default::default();
    for start in (0..data.samples()).step_by(batch.max(1)) {
        let rows = start..(start + batch.max(1)).min(data.samples());
        let feeds = data.feeds(graph, rows, &device)?;
        for t in evaluate(graph, &weights, &feeds, &[output.value], &Options::default())? {
            shape = t.shape().to_vec();
            values.extend(t.to_f32()?);
        }
    }
    if let Some(first) = shape.first_mut() {
        *first = data.samples();
    }
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let mut header = format!(
        "{{\"{}\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[0,{}]}}}}",
        output.name,
        dims.join(","),
        values.len() * 4
    );
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(out, file)?;
    Ok(())
}
