//! Where weights come from: all in memory, or made when a node needs them.

use std::collections::BTreeMap;

use pomona_graph::TensorId;

use crate::error::{ExecError, Result};
use crate::tensor::Tensor;

/// Gives the executor the tensors of a graph's table. A provider may widen and forget them as it likes.
pub trait WeightProvider {
    /// The tensor, in the shape that the table says.
    fn get(&self, id: TensorId) -> Result<Tensor>;

    /// Rows of the first axis, for embeddings: a provider that streams need not widen the whole table.
    fn rows(&self, id: TensorId, rows: &[usize]) -> Result<Option<Tensor>> {
        let _ = (id, rows);
        Ok(None)
    }
}

/// Weights that are all in memory.
#[derive(Debug, Default)]
pub struct Loaded(pub BTreeMap<TensorId, Tensor>);

impl WeightProvider for Loaded {
    fn get(&self, id: TensorId) -> Result<Tensor> {
        let missing =
            || ExecError::Weight { tensor: format!("#{}", id.0), message: "was not loaded".to_owned() };
        self.0.get(&id).cloned().ok_or_else(missing)
    }
}
