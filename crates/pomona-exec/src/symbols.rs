//! Sizes of symbols, read off the tensors that a run is fed and the values that it makes.

use pomona_graph::{Bindings, Dim, Graph, ValueId, ValueType, show_shape};

use crate::error::{ExecError, Result};
use crate::evaluate::Feeds;
use crate::tensor::{Kind, Tensor};

/// Sizes of all symbols that the feeds determine; an error where a feed does not fit its declared value or the others.
pub(crate) fn learn_all(graph: &Graph, feeds: &Feeds) -> Result<Bindings> {
    let mut sizes = Bindings::new();
    // A shape such as `[2*h]` is solved once the plain symbols are known, whatever the order of the feeds.
    loop {
        let before = sizes.len();
        for (id, fed) in feeds {
            learn(graph, *id, fed, &mut sizes)?;
        }
        if sizes.len() == before {
            return Ok(sizes);
        }
    }
}

/// Checks a tensor against its declared value and learns the symbols in its shape.
pub(crate) fn learn(graph: &Graph, id: ValueId, tensor: &Tensor, sizes: &mut Bindings) -> Result<()> {
    let value = graph.value(id);
    let fault = |message: String| ExecError::Feed { value: graph.value_ref(id).0, message };
    let kind = match value.ty {
        ValueType::Float => Kind::Float,
        ValueType::Int => Kind::Int,
        ValueType::Bool => Kind::Bool,
    };
    if tensor.kind() != kind || tensor.shape().len() != value.shape.len() {
        let declared = show_shape(&value.shape);
        return Err(fault(format!("was given as {tensor:?}; {kind:?} {declared} was expected")));
    }
    for (axis, (dim, &size)) in value.shape.iter().zip(tensor.shape()).enumerate() {
        let dim = dim.bind(sizes).map_err(|e| fault(e.to_string()))?;
        match dim.as_int() {
            Some(v) if v != size as i64 => {
                let declared = show_shape(&value.shape);
                return Err(fault(format!(
                    "was given as {tensor:?}, declared as {declared}: axis {axis} has size {v} in this run"
                )));
            }
            Some(_) => {}
            None => {
                if let [name] = dim.symbols().as_slice()
                    && let Some(found) = solve(&dim, name, size as i64)
                {
                    sizes.insert(name.clone(), found);
                }
            }
        }
    }
    Ok(())
}

/// The size of the only symbol of a dimension that is linear in it; none where it is not, or nothing fits.
fn solve(dim: &Dim, name: &str, size: i64) -> Option<i64> {
    let at = |v: i64| dim.bind(&Bindings::from([(name.to_owned(), v)])).ok()?.as_int();
    let (zero, one) = (at(0)?, at(1)?);
    let slope = one.checked_sub(zero).filter(|s| *s != 0)?;
    let found = size.checked_sub(zero)? / slope;
    // A floor division is linear at a few points only: then other sizes fit as well, and none is the right one.
    let linear = [1, 2, 3].iter().all(|k| at(found + k).is_some_and(|v| v == size + k * slope));
    (found >= 0 && at(found) == Some(size) && linear).then_some(found)
}

/// Elements of a value in a run with these feeds; none where its size follows from more than the feeds' own.
///
/// # Errors
/// Where a feed does not fit its declared value or the others.
pub fn elements(graph: &Graph, feeds: &Feeds, value: ValueId) -> Result<Option<usize>> {
    let sizes = learn_all(graph, feeds)?;
    let size = |d: &Dim| usize::try_from(d.bind(&sizes).ok()?.as_int()?).ok();
    Ok(graph.value(value).shape.iter().try_fold(1_usize, |n, d| n.checked_mul(size(d)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn linear_dimensions_are_solved() {
        let h = || Dim::symbol("h");
        assert_eq!(solve(&h(), "h", 7), Some(7));
        assert_eq!(solve(&(h() * 2 + 1), "h", 7), Some(3));
        assert_eq!(solve(&(h() * 2 + 1), "h", 6), None);
        assert_eq!(solve(&(h() - 3), "h", 7), Some(10));
        assert_eq!(solve(&h().floor_div(&2.into()).unwrap(), "h", 7), None);
    }
}
