//! Matrix products with weights and between values.

use burn::tensor::Shape;
use pomona_graph::Slot;

use super::Call;
use crate::annotation;
use crate::burn_types::{B, FloatTensorOps};
use crate::error::{ExecError, Result};
use crate::kernels;
use crate::ops::layout::broadcast_to;
use crate::tensor::Tensor;

/// The layer from its weight as it is stored, where no gradient is asked for.
fn narrow(c: &Call<'_>) -> Result<Option<Tensor>> {
    let (x, Some(&id)) = (c.input(0)?, c.node.weights.get(&Slot::Weight)) else { return Ok(None) };
    let marked = c.graph.annotations.contains_key(&c.node.path);
    if x.is_taped() || marked || c.source.tracked.contains(&id) || !x.device().is_cpu() {
        return Ok(None);
    }
    let Some(weight) = c.source.provider.narrow(id)? else { return Ok(None) };
    let def = c.graph.tensor(id);
    let (out, width) = (def.shape[0], def.shape[1]);
    if weight.kind.row_bytes(width).and_then(|row| row.checked_mul(out)) != Some(weight.bytes.len()) {
        let (bytes, kind) = (weight.bytes.len(), weight.kind);
        let message = format!("was given as {bytes} bytes; those of {kind:?} {:?} were expected", def.shape);
        return Err(ExecError::Weight { tensor: def.name.clone(), message });
    }
    let bias = c.weight(Slot::Bias)?;
    if bias.as_ref().is_some_and(Tensor::is_taped) {
        return Ok(None);
    }
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    let rows = x.elements() / width.max(1);
    let inputs: Vec<&Tensor> = [x].into_iter().chain(&bias).collect();
    kernels::record(&inputs, &shape, |s| {
        let y = kernels::linear_narrow(&s[0], weight, s.get(1).map(|b| &**b), rows, width);
        (y, kernels::step(|_, need| vec![None; need.len()]))
    })
}

pub(super) fn linear(c: &Call<'_>) -> Result<Tensor> {
    if let Some(y) = narrow(c)? {
        return Ok(y);
    }
    let x = c.input(0)?;
    let weight = c.need(Slot::Weight)?;
    let bias = c.weight(Slot::Bias)?;
    let (out, width) = (weight.shape()[0], weight.shape()[1]);
    let rows = x.elements() / width.max(1);
    let flat = x.reshape(&[rows, width])?;
    let fused = product(&flat, &weight, &bias)?;
    let mut y = match fused {
        Some(y) => y,
        None => {
            let mut y = B::float_matmul(flat.as_float()?, B::float_swap_dims(weight.as_float()?, 0, 1));
            if let Some(bias) = bias {
                y = B::float_add(y, B::float_reshape(bias.as_float()?, Shape::from(vec![1, out])));
            }
            Tensor::float(y, x.device())
        }
    };
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    if let Some(low_rank) = annotation::adapter(c, &flat)? {
        y = y.add(&low_rank)?;
    }
    y.reshape(&shape)
}

/// `x @ weight.T + bias` on the CPU, over the last axis.
pub(crate) fn product(x: &Tensor, weight: &Tensor, bias: &Option<Tensor>) -> Result<Option<Tensor>> {
    let (out, width) = (weight.shape()[0], weight.shape()[1]);
    let rows = x.elements() / width.max(1);
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    kernels::record(&inputs, &shape, |s| {
        let y = kernels::linear(&s[0], &s[1], s.get(2).map(|b| &**b), rows, width);
        let (x, w) = (s[0].clone(), s[1].clone());
        (y, kernels::step(move |above, need| kernels::linear_back(&x, &w, above, (rows, width, out), need)))
    })
}

pub(super) fn embedding(c: &Call<'_>) -> Result<Tensor> {
    let ids = c.input(0)?;
    let Some(&id) = c.node.weights.get(&Slot::Weight) else { return Err(c.fault("has no weight")) };
    let def = c.graph.tensor(id);
    let (count, width) = (def.shape[0], def.shape[1]);
    let mut rows = Vec::with_capacity(ids.elements());
    for &i in ids.as_i64()? {
        match usize::try_from(i).ok().filter(|i| *i < count) {
            Some(i) => rows.push(i),
            None => return Err(c.fault(format!("index {i} is outside its {count} rows"))),
        }
    }
    let mut shape = ids.shape().to_vec();
    shape.push(width);
    // A provider that streams gives just these rows; under a tape the fetched tensor must be used.
    if !c.source.tracked.contains(&id)
        && !c.graph.annotations.contains_key(&c.node.path)
        && let Some(found) = c.source.provider.rows(id, &rows)?
    {
        return found.reshape(&shape);
    }
    let table = c.need(Slot::Weight)?;
    let fused = kernels::record(&[&table], &[rows.len(), width], |s| {
        let kept = rows.clone();
        let back = move |above: &[f32], _: &[bool]| vec![Some(kernels::scatter(above, width, &kept, count))];
        (kernels::gather(&s[0], width, &rows), kernels::step(back))
    })?;
    if let Some(found) = fused {
        return found.reshape(&shape);
    }
    let index = Tensor::from_i64(rows.iter().map(|r| *r as i64).collect(), &[rows.len()], ids.device())?;
    let picked = B::float_select(table.as_float()?, 0, super::layout::device_ints(&index)?);
    Tensor::float(picked, ids.device()).reshape(&shape)
}

pub(super) fn matmul(c: &Call<'_>, transpose_b: bool) -> Result<Tensor> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let (ra, rb) = (a.shape().len(), b.shape().len());
    if ra < 2 || rb < 2 {
        return Err(c.fault(format!("{a:?} and {b:?} have no matrix product")));
    }
    let batch = broadcast_to(&a.shape()[..ra - 2], &b.shape()[..rb - 2])
        .ok_or_else(|| c.fault("batch axes differ"))?;
    let expand = |t: &Tensor| -> Result<_> {
        let tail = &t.shape()[t.shape().len() - 2..];
        let lead = batch.len() + 2 - t.shape().len();
        let mut shape = vec![1; lead];
        shape.extend(t.shape());
        let target: Vec<usize> = batch.iter().chain(tail).copied().collect();
        let d = t.reshape(&shape)?.as_float()?;
        Ok(if shape == target { d } else { B::float_expand(d, Shape::from(target)) })
    };
    let (x, mut y) = (expand(a)?, expand(b)?);
    if transpose_b {
        y = B::float_swap_dims(y, batch.len(), batch.len() + 1);
    }
    Ok(Tensor::float(B::float_matmul(x, y), a.device()))
}
