//! A model's weights for the executor: all in memory, or widened when a block needs them and let go afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use pomona_exec::{Device, ExecError, Narrow, NarrowKind, Tensor, WeightProvider};
use pomona_graph::{Node, Op, Role, TensorId};
use pomona_models::Component;
use pomona_store::Encoding;

use crate::objective::Weights;

/// How long widened weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// From their first use to the end: fastest where the f32 weights fit memory.
    Memory,
    /// Until [`Weights::release`]: memory is one block.
    Streamed,
}

/// Weights of one component, read through the map and widened to f32.
pub struct ModelWeights<'a> {
    component: &'a Component,
    device: Device,
    residence: Residence,
    cache: Mutex<HashMap<TensorId, Tensor>>,
    /// Tensors that are read as they are stored, and were found to hold numbers.
    finite: Mutex<HashSet<TensorId>>,
    /// Tensors that are operands as they are, not weights of an operator.
    constants: HashSet<TensorId>,
}

impl<'a> ModelWeights<'a> {
    /// Nothing is read yet.
    pub fn new(component: &'a Component, device: &Device, residence: Residence) -> Self {
        let constant = |n: &&Node| matches!(n.op, Op::Constant {});
        let nodes = component.graph.nodes.iter().filter(constant);
        let constants = nodes.flat_map(|n| n.weights.values().copied()).collect();
        Self {
            component,
            device: device.clone(),
            residence,
            cache: Mutex::default(),
            finite: Mutex::default(),
            constants,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TensorId, Tensor>> {
        // A panic elsewhere leaves the cache as it was between two inserts: still right.
        self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Refuses parameters that are no numbers: every loss would be none either. Constants may be infinite, as masks are.
    fn check(&self, id: TensorId, values: &[f32]) -> pomona_exec::Result<()> {
        let graph = &self.component.graph;
        if graph.tensor(id).role != Role::Parameter || self.constants.contains(&id) {
            return Ok(());
        }
        let Some(value) = values.iter().find(|v| !v.is_finite()) else { return Ok(()) };
        let file = self.component.file_of(&graph.tensor(id).name);
        let message = format!("holds {value}: fetch {} again", file.display());
        Err(self.fault(id, message))
    }

    /// A tensor as its file stores it, where layers can read that.
    fn stored(&self, id: TensorId) -> pomona_exec::Result<Option<Narrow<'_>>> {
        let name = &self.component.graph.tensor(id).name;
        let kind = |encoding| match encoding {
            Encoding::Bf16 => Some(NarrowKind::Bf16),
            Encoding::F16 => Some(NarrowKind::F16),
            Encoding::Q8_0 => Some(NarrowKind::Q8_0),
            _ => None,
        };
        let found = self.component.narrow(name).map_err(|e| self.fault(id, e))?;
        Ok(found.and_then(|(bytes, e)| Some(Narrow { kind: kind(e)?, bytes })))
    }

    fn fault(&self, id: TensorId, e: impl ToString) -> ExecError {
        let tensor = self.component.graph.tensor(id).name.clone();
        ExecError::Weight { tensor, message: e.to_string() }
    }
}

impl WeightProvider for ModelWeights<'_> {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        if let Some(t) = self.lock().get(&id) {
            return Ok(t.clone());
        }
        let def = self.component.graph.tensor(id);
        let values = self.component.materialise(&def.name).map_err(|e| self.fault(id, e))?;
        self.check(id, &values)?;
        let tensor = Tensor::from_f32(values, &def.shape, &self.device)?;
        self.lock().insert(id, tensor.clone());
        Ok(tensor)
    }

    fn narrow(&self, id: TensorId) -> pomona_exec::Result<Option<Narrow<'_>>> {
        if self.lock().contains_key(&id) {
            return Ok(None);
        }
        let Some(narrow) = self.stored(id)? else { return Ok(None) };
        // Read whole and looked through once; it does not change under a run.
        let finite = || self.finite.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !finite().contains(&id) {
            if let Some(value) = narrow.not_finite() {
                self.check(id, &[value])?;
            }
            finite().insert(id);
        }
        Ok(Some(narrow))
    }

    fn rows(&self, id: TensorId, rows: &[usize]) -> pomona_exec::Result<Option<Tensor>> {
        // What a layer reads as it is stored (an embedding that is the vocabulary-wide layer too) is not widened for some rows.
        let stays = self.residence == Residence::Memory && self.stored(id)?.is_none();
        if stays || self.lock().contains_key(&id) {
            return Ok(None);
        }
        let def = self.component.graph.tensor(id);
        let width: usize = def.shape[1..].iter().product();
        let mut values = Vec::with_capacity(rows.len() * width);
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            let range = run[0]..run[0] + run.len();
            let read = self.component.materialise_rows(&def.name, range);
            values.extend(read.map_err(|e| self.fault(id, e))?);
        }
        self.check(id, &values)?;
        Ok(Some(Tensor::from_f32(values, &[rows.len(), width], &self.device)?))
    }
}

impl Weights for ModelWeights<'_> {
    fn release(&self) {
        if self.residence == Residence::Streamed {
            self.lock().clear();
        }
    }

    fn kept(&self) -> bool {
        self.residence == Residence::Memory
    }
}

/// Bytes that a component's weights take widened to f32.
pub fn widened_bytes(component: &Component) -> u64 {
    component.graph.tensors.iter().map(|t| t.elements().saturating_mul(4)).fold(0, u64::saturating_add)
}
