//! Shapes and encodings of recipe expressions, checked before any weight is read.

use super::{Expr, Recipe, Term};
use crate::error::{GraphError, Result};

/// What is known of a tensor that a recipe reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its encoding (`f32`, `bf16`, `q4_1`, ...), where known.
    pub dtype: Option<String>,
}

impl SourceTensor {
    /// A tensor of this shape and encoding.
    pub fn new(shape: Vec<usize>, dtype: impl Into<String>) -> Self {
        Self { shape, dtype: Some(dtype.into()) }
    }

    /// A tensor of this shape whose encoding is not known.
    pub fn of_shape(shape: Vec<usize>) -> Self {
        Self { shape, dtype: None }
    }
}

/// The table of source tensors, as recipes ask for it: none where there is no such tensor.
pub type Sources<'a> = dyn Fn(&str) -> Option<SourceTensor> + 'a;

/// Whether each element of the encoding is stored on its own, so that any axis can be cut.
///
/// Everything else is blocks along the last axis (GGUF's quantised types), which only whole rows keep intact.
pub fn is_plain_dtype(dtype: &str) -> bool {
    matches!(dtype, "bool" | "f16" | "bf16" | "f32" | "f64")
        || dtype.starts_with("f8")
        || dtype.strip_prefix(['i', 'u']).is_some_and(|n| matches!(n, "8" | "16" | "32" | "64"))
        || matches!(dtype, "c64")
}

/// Whether every value of `from` is a value of `to`.
pub(super) fn widens_exactly(from: &str, to: &str) -> bool {
    from == to || matches!((from, to), ("f16" | "bf16" | "f32", "f64") | ("f16" | "bf16", "f32"))
}

impl Expr {
    /// Shape and encoding of the result; an error says what does not fit, without naming an output.
    pub fn infer(&self, sources: &Sources<'_>) -> std::result::Result<SourceTensor, String> {
        match self {
            Expr::Copy { name } => sources(name).ok_or_else(|| format!("there is no source tensor `{name}`")),
            Expr::Gather { axis, indices, of } => {
                let mut t = of.infer(sources)?;
                let len = length(&t, *axis, "gather")?;
                rows_only(&t, *axis, "gather")?;
                if let Some(bad) = indices.iter().find(|i| **i as usize >= len) {
                    return Err(format!("gather index {bad} on axis {axis} of {:?}: it has {len}", t.shape));
                }
                t.shape[*axis] = indices.len();
                Ok(t)
            }
            Expr::Split { axis, start, len, of } => {
                let mut t = of.infer(sources)?;
                let have = length(&t, *axis, "split")?;
                rows_only(&t, *axis, "split")?;
                if start.checked_add(*len).is_none_or(|end| end > have) {
                    return Err(format!(
                        "split {start}+{len} on axis {axis} of {:?}: it has {have}",
                        t.shape
                    ));
                }
                t.shape[*axis] = *len;
                Ok(t)
            }
            Expr::Concat { axis, of } => infer_concat(*axis, of, sources),
            Expr::Transpose { axes, of } => {
                let t = of.infer(sources)?;
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                if sorted != (0..t.shape.len()).collect::<Vec<_>>() {
                    return Err(format!("transpose {axes:?} is not an order of the axes of {:?}", t.shape));
                }
                if blocks(&t).is_some() && axes.last().is_some_and(|l| l + 1 != axes.len()) {
                    return Err(keep_blocks(&t, "transpose moves the last axis"));
                }
                Ok(SourceTensor { shape: axes.iter().map(|a| t.shape[*a]).collect(), dtype: t.dtype })
            }
            Expr::Reshape { shape, of } => {
                let t = of.infer(sources)?;
                if elements(shape)? != elements(&t.shape)? {
                    return Err(format!(
                        "reshape of {:?} to {shape:?}: the numbers of elements differ",
                        t.shape
                    ));
                }
                if blocks(&t).is_some() && shape.last() != t.shape.last() {
                    return Err(keep_blocks(&t, "reshape changes the last axis"));
                }
                Ok(SourceTensor { shape: shape.clone(), dtype: t.dtype })
            }
            Expr::Cast { dtype, of } => {
                if !matches!(dtype.as_str(), "f64" | "f32" | "f16" | "bf16") {
                    return Err(format!("cast to `{dtype}`: only f32, f16, bf16 and f64 can be cast to"));
                }
                Ok(SourceTensor::new(of.infer(sources)?.shape, dtype))
            }
            Expr::Decode { of } => Ok(SourceTensor::new(of.infer(sources)?.shape, "f32")),
            Expr::Tile { repeats, of } => {
                let mut t = of.infer(sources)?;
                if repeats.len() != t.shape.len() {
                    return Err(format!("tile {repeats:?} of {:?}: one number an axis is needed", t.shape));
                }
                if blocks(&t).is_some() && repeats.last().is_some_and(|r| *r != 1) {
                    return Err(keep_blocks(&t, "tile repeats the last axis"));
                }
                for (d, r) in t.shape.iter_mut().zip(repeats) {
                    *d = d.checked_mul(*r).ok_or("tile: the size does not fit 64 bits")?;
                }
                Ok(t)
            }
            Expr::WeightedSum { terms } => infer_sum(terms, sources),
            Expr::Initialise { shape, dtype, .. } => {
                elements(shape)?;
                Ok(SourceTensor::new(shape.clone(), dtype))
            }
            Expr::Literal { values, shape } => {
                if elements(shape)? != values.len() {
                    return Err(format!("literal of shape {shape:?} has {} values", values.len()));
                }
                Ok(SourceTensor::new(shape.clone(), "f32"))
            }
        }
    }
}

impl Recipe {
    /// Checks every output against its expression; gives the encoding of each output, where known.
    ///
    /// # Errors
    /// [`GraphError::Recipe`] where a source is missing, an operation does not fit its operands, an encoding cannot be cut
    /// that way, or the shape differs from the one stated.
    pub fn check(&self, sources: &Sources<'_>) -> Result<Vec<Option<String>>> {
        self.outputs
            .iter()
            .map(|o| {
                let refuse = |message| GraphError::Recipe { output: o.name.clone(), message };
                let found = o.expr.infer(sources).map_err(refuse)?;
                if found.shape != o.shape {
                    return Err(refuse(format!(
                        "the expression gives shape {:?}, the recipe states {:?}",
                        found.shape, o.shape
                    )));
                }
                Ok(found.dtype)
            })
            .collect()
    }
}

fn infer_concat(
    axis: usize,
    of: &[Expr],
    sources: &Sources<'_>,
) -> std::result::Result<SourceTensor, String> {
    let mut parts = of.iter().map(|e| e.infer(sources));
    let mut sum = parts.next().ok_or("concat of nothing")??;
    length(&sum, axis, "concat")?;
    rows_only(&sum, axis, "concat")?;
    for part in parts {
        let part = part?;
        let fits = part.shape.len() == sum.shape.len()
            && part.shape.iter().zip(&sum.shape).enumerate().all(|(a, (x, y))| a == axis || x == y);
        if !fits {
            return Err(format!("concat along axis {axis} of {:?} and {:?}", sum.shape, part.shape));
        }
        if let (Some(a), Some(b)) = (&sum.dtype, &part.dtype)
            && a != b
        {
            return Err(format!("concat of `{a}` and `{b}`: cast them to one type first"));
        }
        sum.dtype = sum.dtype.filter(|_| part.dtype.is_some());
        sum.shape[axis] =
            sum.shape[axis].checked_add(part.shape[axis]).ok_or("concat: the size does not fit 64 bits")?;
    }
    Ok(sum)
}

fn infer_sum(terms: &[Term], sources: &Sources<'_>) -> std::result::Result<SourceTensor, String> {
    let mut shape: Option<Vec<usize>> = None;
    for term in terms {
        let mut factors = term.product.iter().map(|e| e.infer(sources).map(|t| t.shape));
        let mut product = factors.next().ok_or("weighted sum: a term without factors")??;
        for factor in factors {
            let factor = factor?;
            match (product.as_slice(), factor.as_slice()) {
                ([rows, inner], [inner2, columns]) if inner == inner2 => product = vec![*rows, *columns],
                _ => return Err(format!("weighted sum: matrix product of {product:?} and {factor:?}")),
            }
        }
        match &shape {
            Some(s) if *s != product => {
                return Err(format!("weighted sum of {s:?} and {product:?}: the shapes differ"));
            }
            _ => shape = Some(product),
        }
    }
    Ok(SourceTensor::new(shape.ok_or("weighted sum of nothing")?, "f32"))
}

fn length(t: &SourceTensor, axis: usize, what: &str) -> std::result::Result<usize, String> {
    t.shape.get(axis).copied().ok_or_else(|| format!("{what} on axis {axis} of {:?}: no such axis", t.shape))
}

fn elements(shape: &[usize]) -> std::result::Result<usize, String> {
    let n = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    n.ok_or_else(|| format!("the elements of {shape:?} do not fit 64 bits"))
}

/// The block encoding of a tensor, where it has one.
fn blocks(t: &SourceTensor) -> Option<&str> {
    t.dtype.as_deref().filter(|d| !is_plain_dtype(d))
}

fn rows_only(t: &SourceTensor, axis: usize, what: &str) -> std::result::Result<(), String> {
    match blocks(t) {
        Some(_) if axis + 1 == t.shape.len() => Err(keep_blocks(t, &format!("{what} on the last axis"))),
        _ => Ok(()),
    }
}

fn keep_blocks(t: &SourceTensor, what: &str) -> String {
    let dtype = t.dtype.as_deref().unwrap_or("?");
    format!("{what}, but `{dtype}` stores {:?} in blocks along it: decode it first", t.shape)
}
