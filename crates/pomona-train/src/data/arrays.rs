//! Samples of any network as tensors in a safetensors file: inputs by name, and what should come out.

use pomona_exec::{Device, Tensor};
use pomona_graph::Graph;
use pomona_task::{Objective, TaskError, TensorData};

use super::{Batch, Source, Target, listed};
use crate::error::Result;
use crate::loss::Kind;

/// Samples of tensors.
pub struct Arrays {
    data: TensorData,
    /// Whether targets are classes rather than outputs.
    classes: bool,
}

impl Arrays {
    /// Targets of no shape are classes where the output has several numbers.
    pub fn new(data: TensorData, graph: &Graph) -> Self {
        let output = graph.outputs.first().and_then(|p| graph.value(p.value).shape.last());
        let wide = output.is_none_or(|d| d.as_int() != Some(1));
        let classes = wide && data.wanted(0).is_some_and(|(_, shape)| shape.is_empty());
        Self { data, classes }
    }
}

impl Source for Arrays {
    fn samples(&self) -> usize {
        self.data.samples()
    }

    fn batch(&self, picks: &[usize], _: u64) -> Result<Batch> {
        let cpu = Device::cpu();
        let samples = picks
            .iter()
            .map(|p| self.data.sample(*p, &cpu))
            .collect::<std::result::Result<Vec<_>, TaskError>>()?;
        let names: Vec<&String> = samples.first().map(|s| s.keys().collect()).unwrap_or_default();
        let mut inputs = Vec::with_capacity(names.len());
        for name in names {
            let parts: Vec<Tensor> = samples.iter().filter_map(|s| s.get(name).cloned()).collect();
            inputs.push((name.clone(), Tensor::concat(&parts, 0)?));
        }
        let wanted: Option<Vec<_>> = picks.iter().map(|p| self.data.wanted(*p)).collect();
        let target = match wanted {
            None => Target::None,
            Some(w) if self.classes => {
                Target::Tokens(w.iter().map(|(v, _)| v.first().map_or(0, |c| *c as u32)).collect())
            }
            Some(w) => {
                let shape = w.first().map_or(&[][..], |(_, s)| s);
                let shape: Vec<usize> = std::iter::once(w.len()).chain(shape.iter().copied()).collect();
                let values = w.iter().flat_map(|(v, _)| v.iter().copied()).collect();
                Target::Values(Box::new(Tensor::from_f32(values, &shape, &cpu)?))
            }
        };
        Ok(Batch {
            inputs,
            target,
            samples: picks.len(),
            units: picks.len(),
            from: format!("{}, numbers {}", self.data.source(), listed(picks)),
        })
    }

    fn fingerprint(&self) -> String {
        self.data.fingerprint()
    }

    fn describe(&self) -> String {
        self.data.source()
    }

    fn loss(&self) -> Option<Kind> {
        self.data.wanted(0)?;
        Some(if self.classes { Kind::CrossEntropy } else { Kind::Mse })
    }
}
