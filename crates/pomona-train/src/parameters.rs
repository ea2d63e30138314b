//! What moves in a training: weights of the graph, factors of adapters, projections between student and teacher.

use std::collections::BTreeMap;

use pomona_exec::{Tensor, WeightProvider};
use pomona_graph::TensorId;
use rayon::prelude::*;

use crate::error::Result;
use crate::optimiser::{Rule, State};
use crate::running::Running;

/// A tensor that moves.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name of the graph's tensor, or of the projection.
    pub name: String,
    /// Its value.
    pub value: Tensor,
    /// Whether weight decay takes from it.
    pub decays: bool,
    /// What the update rule keeps.
    pub state: State,
    /// Its exponential moving average, where one is kept.
    pub average: Option<Vec<f32>>,
}

/// All that moves, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// The tensors.
    pub list: Vec<Parameter>,
    /// Which of them are tensors of the student's graph.
    pub of_graph: BTreeMap<TensorId, usize>,
    /// Statistics that follow the batches; empty where BatchNorms stay as they are.
    pub running: Running,
}

impl Parameters {
    /// Adds a tensor; decay takes from matrices and filters, not from vectors (norms, biases).
    pub fn add(&mut self, name: String, value: Tensor, rule: &Rule, averaged: bool) -> Result<usize> {
        let state = rule.start(value.elements());
        let average = if averaged { Some(value.to_f32()?) } else { None };
        let decays = value.shape().len() > 1;
        self.list.push(Parameter { name, value, decays, state, average });
        Ok(self.list.len() - 1)
    }

    /// Tensors of the student's graph that move.
    pub fn graph_tensors(&self) -> Vec<TensorId> {
        self.of_graph.keys().copied().collect()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.list.iter().map(|p| p.value.elements() as u64).sum()
    }

    /// Moves every average, those of running statistics among them: `average = decay * average + (1 - decay) * value`, the decay smaller in the first steps
    /// (`(1 + n) / (10 + n)`), so that the start is forgotten.
    pub(crate) fn average(&mut self, decay: f64, step: u64) -> Result<()> {
        let decay = decay.min((1 + step) as f64 / (10 + step) as f64) as f32;
        let weights = self.list.iter_mut().map(|p| (&p.value, &mut p.average));
        let statistics = self.running.values.values_mut().map(|s| (&s.value, &mut s.average));
        for (value, average) in weights.chain(statistics) {
            let Some(average) = average else { continue };
            value.with_f32(|v| {
                (average.par_chunks_mut(1 << 14), v.par_chunks(1 << 14)).into_par_iter().for_each(
                    |(a, v)| {
                        a.iter_mut().zip(v).for_each(|(a, v)| *a = decay * *a + (1.0 - decay) * v);
                    },
                );
            })?;
        }
        Ok(())
    }
}

/// The student's weights: those that move, and behind them those that stay.
pub(crate) struct Weights<'a> {
    pub parameters: &'a Parameters,
    pub frozen: &'a dyn WeightProvider,
}

impl WeightProvider for Weights<'_> {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        let learnt = self.parameters.of_graph.get(&id).and_then(|i| self.parameters.list.get(*i));
        match learnt.map(|p| &p.value).or_else(|| self.parameters.running.get(id)) {
            Some(value) => Ok(value.clone()),
            None => self.frozen.get(id),
        }
    }

    fn rows(&self, id: TensorId, rows: &[usize]) -> pomona_exec::Result<Option<Tensor>> {
        if self.parameters.of_graph.contains_key(&id) { Ok(None) } else { self.frozen.rows(id, rows) }
    }
}
