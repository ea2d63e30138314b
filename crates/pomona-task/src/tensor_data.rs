//! Inputs, and what should come out, as tensors in a safetensors file: the way from any other program's data to a model.
//!
//! A tensor an input port, by its name, samples along the first axis; optionally `target`: a class a sample, or the output
//! itself.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pomona_exec::{Device, Feeds, Tensor};
use pomona_graph::{Graph, ValueType};
use pomona_store::Checkpoint;

use crate::error::{Result, TaskError};
use crate::objective::{Objective, SampleLoss};

/// Name of the tensor that says what should come out.
const TARGET: &str = "target";

/// The usual name of an image network's input.
const PICTURES: &str = "pixel_values";

/// Above this not every whole number is an f32, as which integers are read.
const MOST_WHOLE: f32 = 16_777_216.0;

struct Rows {
    /// Shape of one sample.
    shape: Vec<usize>,
    values: Vec<f32>,
    kind: ValueType,
}

impl Rows {
    fn width(&self) -> usize {
        self.shape.iter().product()
    }

    fn of(&self, rows: Range<usize>) -> &[f32] {
        let w = self.width();
        self.values.get(rows.start * w..rows.end * w).unwrap_or_default()
    }

    /// Samples as a tensor of the kind that the port takes.
    fn tensor(&self, rows: Range<usize>, device: &Device) -> Result<Tensor> {
        let shape: Vec<usize> = std::iter::once(rows.len()).chain(self.shape.iter().copied()).collect();
        let values = self.of(rows);
        Ok(match self.kind {
            ValueType::Float => Tensor::from_f32(values.to_vec(), &shape, device)?,
            ValueType::Int => Tensor::from_i64(values.iter().map(|v| *v as i64).collect(), &shape, device)?,
            ValueType::Bool => Tensor::from_bool(values.iter().map(|v| *v != 0.0).collect(), &shape, device)?,
        })
    }

    /// The first value that the port's kind cannot be.
    fn stranger(&self) -> Option<f32> {
        let fits = |v: &f32| match self.kind {
            ValueType::Float => true,
            ValueType::Int => v.fract() == 0.0 && v.abs() <= MOST_WHOLE,
            ValueType::Bool => *v == 0.0 || *v == 1.0,
        };
        self.values.iter().copied().find(|v| !fits(v))
    }
}

/// The file's samples.
pub struct TensorData {
    path: PathBuf,
    inputs: BTreeMap<String, Rows>,
    target: Option<Rows>,
    samples: usize,
    output: String,
}

impl TensorData {
    /// Reads the first `limit` samples for a graph.
    ///
    /// # Errors
    /// [`TaskError::Data`] where the file lacks an input of the graph, or its samples do not have the input's shape.
    pub fn read(path: &Path, graph: &Graph, limit: usize) -> Result<TensorData> {
        let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
        let file = Checkpoint::open(path).map_err(|e| fail(e.to_string()))?;
        let mut samples = None;
        let mut rows = |name: &str, kind: ValueType| -> Result<Option<Rows>> {
            let Some(info) = file.get(name) else { return Ok(None) };
            let count = info.shape.first().copied().unwrap_or(0);
            if count == 0 || samples.is_some_and(|s| s != count) {
                return Err(fail(format!(
                    "tensor \"{name}\" has shape {:?}; the same number of samples was expected along the first axis of all",
                    info.shape
                )));
            }
            samples = Some(count);
            let values =
                file.decode_rows(info, 0..limit.max(1).min(count)).map_err(|e| fail(e.to_string()))?;
            Ok(Some(Rows { shape: info.shape[1..].to_vec(), values, kind }))
        };
        let mut inputs = BTreeMap::new();
        // A file made for the usual name of pictures serves a network that calls its only input otherwise.
        let only = graph.inputs.len() == 1;
        for port in &graph.inputs {
            let usual = only && file.get(&port.name).is_none();
            let known = graph.value(port.value);
            let found = rows(if usual { PICTURES } else { &port.name }, known.ty)?.ok_or_else(|| {
                fail(format!("has no tensor \"{}\": the model has an input of that name", port.name))
            })?;
            let wanted = known.shape.get(1..).unwrap_or_default();
            let fits = wanted.len() == found.shape.len()
                && wanted.iter().zip(&found.shape).all(|(w, f)| w.as_int().is_none_or(|w| w == *f as i64));
            if !fits {
                return Err(fail(format!(
                    "tensor \"{}\" has samples of shape {:?}; the model takes {}",
                    port.name,
                    found.shape,
                    pomona_graph::show_shape(wanted)
                )));
            }
            if let Some(v) = found.stranger() {
                let takes = if known.ty == ValueType::Int { "whole numbers to 2^24" } else { "0 and 1" };
                return Err(fail(format!(
                    "tensor \"{}\" holds {v}; the model takes {takes} there",
                    port.name
                )));
            }
            inputs.insert(port.name.clone(), found);
        }
        let target = rows(TARGET, ValueType::Float)?;
        let output = graph.outputs.first().map(|p| p.name.clone());
        Ok(TensorData {
            path: path.to_owned(),
            inputs,
            target,
            samples: samples.unwrap_or(0).min(limit.max(1)),
            output: output.ok_or_else(|| fail("is for a model without outputs".to_owned()))?,
        })
    }

    /// The inputs of one sample by name, with a batch axis of 1.
    pub fn sample(&self, i: usize, device: &Device) -> Result<BTreeMap<String, Tensor>> {
        let one = |(name, rows): (&String, &Rows)| Ok((name.clone(), rows.tensor(i..i + 1, device)?));
        self.inputs.iter().map(one).collect()
    }

    /// What should come out for a sample, and its shape: empty for a class. None where the file does not say.
    pub fn wanted(&self, i: usize) -> Option<(&[f32], &[usize])> {
        self.target.as_ref().map(|t| (t.of(i..i + 1), t.shape.as_slice()))
    }

    fn target(&self) -> Result<&Rows> {
        self.target.as_ref().ok_or_else(|| TaskError::Data {
            path: self.path.clone(),
            message:
                "has no tensor \"target\": a loss needs a class a sample, or the output that should come out"
                    .to_owned(),
        })
    }
}

impl Objective for TensorData {
    fn samples(&self) -> usize {
        self.samples
    }

    fn feeds(&self, graph: &Graph, samples: Range<usize>, device: &Device) -> Result<Feeds> {
        let mut out = Feeds::new();
        for (name, rows) in &self.inputs {
            let missing = || TaskError::Unfit(format!("`{}` has no input `{name}`", graph.name));
            let value = graph.input(name).ok_or_else(missing)?;
            out.insert(value, rows.tensor(samples.clone(), device)?);
        }
        Ok(out)
    }

    fn output(&self) -> &str {
        &self.output
    }

    /// Cross-entropy in nats for classes, mean |difference| for outputs.
    fn losses(&self, samples: Range<usize>, output: &Tensor) -> Result<Vec<SampleLoss>> {
        let target = self.target()?;
        let values = output.to_f32()?;
        let width = values.len() / samples.len().max(1);
        let one = |(k, row): (usize, &[f32])| {
            let at = target.of(samples.start + k..samples.start + k + 1);
            let sum = match at {
                [class] if width > 1 => {
                    let class = *class as usize;
                    let top = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                    let log = row.iter().map(|v| f64::from(v - top).exp()).sum::<f64>().ln();
                    log - f64::from(row.get(class).copied().unwrap_or(f32::NAN) - top)
                }
                _ => {
                    row.iter().zip(at).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>()
                        / width.max(1) as f64
                }
            };
            SampleLoss { sum, count: 1 }
        };
        Ok(values.chunks(width.max(1)).enumerate().map(one).collect())
    }

    fn gradient(&self, samples: Range<usize>, output: Tensor) -> Result<Tensor> {
        let target = self.target()?;
        let (shape, device) = (output.shape().to_vec(), output.device().clone());
        let mut values = output.to_f32()?;
        let width = (values.len() / samples.len().max(1)).max(1);
        let all = self.samples.max(1) as f32;
        for (k, row) in values.chunks_mut(width).enumerate() {
            let at = target.of(samples.start + k..samples.start + k + 1);
            if let ([class], true) = (at, width > 1) {
                let top = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
                row.iter_mut().for_each(|v| *v = (*v - top).exp());
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|v| *v /= sum * all);
                if let Some(v) = row.get_mut(*class as usize) {
                    *v -= 1.0 / all;
                }
            } else {
                let scale = 1.0 / (all * width as f32);
                row.iter_mut().zip(at).for_each(|(a, b)| {
                    let d = *a - b;
                    *a = if d == 0.0 { 0.0 } else { d.signum() * scale };
                });
            }
        }
        Ok(Tensor::from_f32(values, &shape, &device)?)
    }

    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for (name, rows) in &self.inputs {
            hash.update(name.as_bytes());
            put(&mut hash, &rows.values);
        }
        if let Some(t) = &self.target {
            hash.update(TARGET.as_bytes());
            put(&mut hash, &t.values);
        }
        hash.finalize().to_hex().to_string()
    }

    fn source(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{} samples of {name}", self.samples)
    }
}

fn put(hash: &mut blake3::Hasher, values: &[f32]) {
    for part in values.chunks(1 << 12) {
        let bytes: Vec<u8> = part.iter().flat_map(|v| v.to_le_bytes()).collect();
        hash.update(&bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn data(target: Vec<f32>, shape: &[usize]) -> TensorData {
        let target = Some(Rows { shape: shape.to_vec(), values: target, kind: ValueType::Float });
        TensorData { path: PathBuf::new(), inputs: BTreeMap::new(), target, samples: 2, output: "y".into() }
    }

    /// Central differences of the mean loss.
    fn check(data: &TensorData, output: &[f32]) {
        let tensor = |v: &[f32]| Tensor::from_f32(v.to_vec(), &[2, 3], &Device::cpu()).unwrap();
        let found = data.gradient(0..2, tensor(output)).unwrap().to_f32().unwrap();
        let loss = |v: &[f32]| SampleLoss::mean(&data.losses(0..2, &tensor(v)).unwrap());
        for i in 0..output.len() {
            let at = |d: f32| {
                let mut v = output.to_vec();
                v[i] += d;
                loss(&v)
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(found[i])).abs() < 1e-4, "{i}: {slope} {}", found[i]);
        }
    }

    #[test]
    fn gradients_are_those_of_the_losses() {
        let output = [0.3, -1.0, 0.8, 2.0, 0.1, -0.4];
        check(&data(vec![2.0, 0.0], &[]), &output);
        check(&data(vec![0.0, 0.5, 0.2, 1.0, 1.0, 1.0], &[3]), &output);
    }

    #[test]
    fn samples_are_read_and_what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.safetensors");
        let header = br#"{"x":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"target":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        [1.0_f32, 2.0, 3.0, 4.0, 1.0, 0.0].iter().for_each(|v| file.extend(v.to_le_bytes()));
        std::fs::write(&path, &file).unwrap();
        let net = |name: &str, width: usize| {
            let mut b = pomona_graph::GraphBuilder::new("model", "f32");
            let x = b.input(name, vec!["batch".into(), width.into()], ValueType::Float);
            let y = b.linear("fc", x, 2, false).unwrap();
            b.output("y", y);
            b.finish().unwrap()
        };
        let found = TensorData::read(&path, &net("x", 2), 10).unwrap();
        assert_eq!(found.samples(), 2);
        let second = found.sample(1, &Device::cpu()).unwrap();
        assert_eq!((second["x"].shape(), second["x"].to_f32().unwrap()), ([1, 2].as_slice(), vec![3.0, 4.0]));
        let says = |g: &Graph| TensorData::read(&path, g, 10).map(|_| ()).unwrap_err().to_string();
        assert!(says(&net("z", 2)).contains("has no tensor \"z\""));
        assert!(says(&net("x", 3)).contains("samples of shape [2]"));
    }

    #[test]
    fn an_input_of_integers_is_fed_integers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.safetensors");
        let write = |kind: &str, bytes: Vec<u8>| {
            let n = bytes.len();
            let header = format!(r#"{{"ids":{{"dtype":"{kind}","shape":[2,2],"data_offsets":[0,{n}]}}}}"#);
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(header.as_bytes());
            file.extend(bytes);
            std::fs::write(&path, &file).unwrap();
        };
        let mut b = pomona_graph::GraphBuilder::new("model", "f32");
        let ids = b.input("ids", vec!["batch".into(), 2.into()], ValueType::Int);
        let y = b.embedding("embed", ids, 10, 4).unwrap();
        b.output("y", y);
        let net = b.finish().unwrap();
        write("I64", [3_i64, 0, 9, 1].iter().flat_map(|v| v.to_le_bytes()).collect());
        let found = TensorData::read(&path, &net, 10).unwrap();
        assert_eq!(found.sample(1, &Device::cpu()).unwrap()["ids"].as_i64().unwrap(), [9, 1]);
        let fed = found.feeds(&net, 0..2, &Device::cpu()).unwrap();
        assert_eq!(fed[&net.input("ids").unwrap()].as_i64().unwrap(), [3, 0, 9, 1]);
        write("F32", [3.0_f32, 0.5, 9.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect());
        let says = TensorData::read(&path, &net, 10).map(|_| ()).unwrap_err().to_string();
        assert!(says.contains("\"ids\" holds 0.5"), "{says}");
    }
}
