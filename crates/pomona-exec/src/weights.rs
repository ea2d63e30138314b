//! Where weights come from: all in memory, or made when a node needs them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pomona_graph::TensorId;

use crate::error::{ExecError, Result};
use crate::kernels::Narrow;
use crate::tensor::Tensor;

/// Gives the executor the tensors of a graph's table. A provider may widen and forget them as it likes.
pub trait WeightProvider {
    /// The tensor, in the shape that the table says.
    fn get(&self, id: TensorId) -> Result<Tensor>;

    /// Rows of the first axis, `[rows, elements of a row]`, for embeddings and for what passes over a tensor once: a provider that
    /// streams need not widen all of it. None where the whole is in memory, or might as well be.
    fn rows(&self, id: TensorId, rows: &[usize]) -> Result<Option<Tensor>> {
        let _ = (id, rows);
        Ok(None)
    }

    /// A tensor that is stored as 16-bit floats, in the shape that the table says, as it is stored: linear layers outside a
    /// tape read it so, and no 32-bit copy is made. None where it has to be made, or is there as 32-bit floats.
    fn narrow(&self, id: TensorId) -> Result<Option<Narrow<'_>>> {
        let _ = id;
        Ok(None)
    }
}

/// Weights that are all in memory.
#[derive(Clone, Debug, Default)]
pub struct Loaded(pub BTreeMap<TensorId, Tensor>);

impl WeightProvider for Loaded {
    fn get(&self, id: TensorId) -> Result<Tensor> {
        let missing =
            || ExecError::Weight { tensor: format!("#{}", id.0), message: "was not loaded".to_owned() };
        self.0.get(&id).cloned().ok_or_else(missing)
    }
}

/// Weights that a function makes at their first use and that stay until [`Lazy::release`], so that a graph larger than
/// memory can be run a block at a time.
pub struct Lazy<F> {
    load: F,
    held: Mutex<BTreeMap<TensorId, Tensor>>,
}

impl<F: Fn(TensorId) -> Result<Tensor>> Lazy<F> {
    /// Nothing is made yet.
    pub fn new(load: F) -> Self {
        Self { load, held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TensorId, Tensor>> {
        // A panic elsewhere leaves the map as it was between two inserts: still right.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every held tensor go.
    pub fn release(&self) {
        self.lock().clear();
    }

    /// Number of tensors that are held.
    pub fn held(&self) -> usize {
        self.lock().len()
    }
}

impl<F: Fn(TensorId) -> Result<Tensor>> WeightProvider for Lazy<F> {
    fn get(&self, id: TensorId) -> Result<Tensor> {
        if let Some(t) = self.lock().get(&id) {
            return Ok(t.clone());
        }
        let made = (self.load)(id)?;
        self.lock().insert(id, made.clone());
        Ok(made)
    }
}

impl<F> fmt::Debug for Lazy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").finish_non_exhaustive()
    }
}
