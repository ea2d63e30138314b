//! Sizes of symbols, read off the tensors that a run is fed.

use pomona_graph::{Bindings, Dim, Graph, ValueId};

use crate::error::{ExecError, Result};
use crate::tensor::{Kind, Tensor};

/// Checks a fed tensor against its declared value and learns the symbols in its shape.
pub(crate) fn learn(graph: &Graph, id: ValueId, tensor: &Tensor, sizes: &mut Bindings) -> Result<()> {
    let value = graph.value(id);
    let fault = |message: String| ExecError::Feed { value: graph.value_ref(id).0, message };
    let kind = match value.ty {
        pomona_graph::ValueType::Float => Kind::Float,
        pomona_graph::ValueType::Int => Kind::Int,
        pomona_graph::ValueType::Bool => Kind::Bool,
    };
    if tensor.kind() != kind || tensor.shape().len() != value.shape.len() {
        return Err(fault(format!(
            "was fed {tensor:?}; {kind:?} {} was expected",
            pomona_graph::show_shape(&value.shape)
        )));
    }
    for (axis, (dim, &size)) in value.shape.iter().zip(tensor.shape()).enumerate() {
        let dim = dim.bind(sizes).map_err(|e| fault(e.to_string()))?;
        match dim.as_int() {
            Some(v) if v != size as i64 => {
                return Err(fault(format!("was fed {tensor:?}; axis {axis} has size {v} in this run")));
            }
            Some(_) => {}
            None => {
                if let [name] = dim.symbols().as_slice()
                    && dim == Dim::symbol(name)
                {
                    sizes.insert(name.clone(), size as i64);
                }
            }
        }
    }
    Ok(())
}
