//! LSTM and GRU over a sequence, with PyTorch's gate order.

use burn::tensor::Shape;
use pomona_graph::{Direction, RecurrentCell, Slot};

use super::Call;
use crate::burn_types::{ActivationOps, B, D, FloatTensorOps};
use crate::error::Result;
use crate::kernels::{self, Cell, Sequence};
use crate::tensor::Tensor;

struct Unfused {
    kind: RecurrentCell,
    hidden: usize,
    reset_after: bool,
    /// Hidden weights, transposed: `[hidden, gates * hidden]`.
    hh: D,
    bias_hh: Option<D>,
}

fn gate(t: &D, k: usize, hidden: usize) -> D {
    super::layout::strided(t.clone(), 2, 1, k * hidden, (k + 1) * hidden, 1)
}

impl Unfused {
    fn hidden_product(&self, h: D) -> D {
        let product = B::float_matmul(h, self.hh.clone());
        match &self.bias_hh {
            Some(b) => B::float_add(product, b.clone()),
            None => product,
        }
    }

    /// One step from the input's product `x` `[batch, gates * hidden]`.
    fn step(&self, x: &D, h: D, c: Option<D>) -> (D, Option<D>) {
        let n = self.hidden;
        match (self.kind, c) {
            (RecurrentCell::Lstm, Some(c)) => {
                let z = B::float_add(x.clone(), self.hidden_product(h));
                let (i, f) = (B::sigmoid(gate(&z, 0, n)), B::sigmoid(gate(&z, 1, n)));
                let (g, o) = (B::float_tanh(gate(&z, 2, n)), B::sigmoid(gate(&z, 3, n)));
                let c = B::float_add(B::float_mul(f, c), B::float_mul(i, g));
                (B::float_mul(o, B::float_tanh(c.clone())), Some(c))
            }
            _ => {
                let y = self.hidden_product(h.clone());
                let r = B::sigmoid(B::float_add(gate(x, 0, n), gate(&y, 0, n)));
                let z = B::sigmoid(B::float_add(gate(x, 1, n), gate(&y, 1, n)));
                let candidate = if self.reset_after {
                    B::float_mul(r, gate(&y, 2, n))
                } else {
                    let turned = self.hidden_product(B::float_mul(r, h.clone()));
                    gate(&turned, 2, n)
                };
                let candidate = B::float_tanh(B::float_add(gate(x, 2, n), candidate));
                // z h + (1 - z) n = n + z (h - n)
                let difference = B::float_sub(h, candidate.clone());
                (B::float_add(candidate, B::float_mul(z, difference)), None)
            }
        }
    }
}

/// One direction on the CPU: the values, the last hidden and the last cell state. None where there is no kernel for it.
#[allow(clippy::type_complexity, reason = "named by the line above")]
fn fused(
    call: &Call<'_>,
    (ih, hh, bias_ih, bias_hh): (Slot, Slot, Slot, Slot),
    (kind, hidden, reset_after): (RecurrentCell, usize, bool),
    d: usize,
    reverse: bool,
) -> Result<Option<(Tensor, Tensor, Option<Tensor>)>> {
    let cell = match kind {
        RecurrentCell::Lstm => Cell::Lstm,
        RecurrentCell::Gru if reset_after => Cell::Gru,
        RecurrentCell::Gru => return Ok(None),
    };
    let x = call.input(0)?;
    let (batch, steps) = (x.shape()[0], x.shape()[1]);
    let Some(products) = super::linear::product(x, &call.need(ih)?, &call.weight(bias_ih)?)? else {
        return Ok(None);
    };
    let states = if cell == Cell::Lstm { 2 } else { 1 };
    let states = (1..=states).map(|i| call.input(i)?.slice(1, d * hidden..(d + 1) * hidden));
    let states = states.collect::<Result<Vec<Tensor>>>()?;
    let (weight, bias) = (call.need(hh)?, call.weight(bias_hh)?);
    let s = Sequence { cell, batch, steps, hidden, reverse, bias: bias.is_some() };
    let inputs: Vec<&Tensor> = [&products].into_iter().chain(&states).chain([&weight]).chain(&bias).collect();
    let Some(all) = kernels::record(&inputs, &[batch, s.rows(), hidden], |t| kernels::recurrent(t, s))?
    else {
        return Ok(None);
    };
    let row = |i: usize| all.slice(1, i..i + 1)?.reshape(&[batch, hidden]);
    let h = row(if reverse { 0 } else { steps - 1 })?;
    let c = if cell == Cell::Lstm { Some(row(steps)?) } else { None };
    Ok(Some((if cell == Cell::Lstm { all.slice(1, 0..steps)? } else { all.clone() }, h, c)))
}

pub(super) fn recurrent(
    call: &Call<'_>,
    kind: RecurrentCell,
    hidden: usize,
    direction: Direction,
    reset_after: bool,
) -> Result<Vec<Tensor>> {
    let x = call.input(0)?;
    let [batch, steps, width] = *x.shape() else {
        return Err(call.fault(format!("{x:?}; [batch, steps, width] was expected")));
    };
    let forward = (Slot::WeightIh, Slot::WeightHh, Slot::BiasIh, Slot::BiasHh);
    let backward = (Slot::WeightIhReverse, Slot::WeightHhReverse, Slot::BiasIhReverse, Slot::BiasHhReverse);
    let runs = match direction {
        Direction::Forward => vec![(forward, false)],
        Direction::Reverse => vec![(forward, true)],
        Direction::Both => vec![(forward, false), (backward, true)],
    };
    let gates = if kind == RecurrentCell::Lstm { 4 } else { 3 };
    let (mut outputs, mut last_h, mut last_c) = (Vec::new(), Vec::new(), Vec::new());
    for (d, ((ih, hh, bias_ih, bias_hh), reverse)) in runs.into_iter().enumerate() {
        if steps > 0
            && batch * hidden > 0
            && let Some((y, h, c)) =
                fused(call, (ih, hh, bias_ih, bias_hh), (kind, hidden, reset_after), d, reverse)?
        {
            outputs.push(y);
            last_h.push(h);
            last_c.extend(c);
            continue;
        }
        let row = |b: Option<Tensor>| -> Result<Option<D>> {
            b.map(|b| Ok(B::float_reshape(b.as_float()?, Shape::from(vec![1, gates * hidden])))).transpose()
        };
        let ih = call.need(ih)?.as_float()?;
        let hh = B::float_swap_dims(call.need(hh)?.as_float()?, 0, 1);
        let (bias_ih, bias_hh) = (row(call.weight(bias_ih)?)?, row(call.weight(bias_hh)?)?);
        let flat = x.reshape(&[batch * steps, width])?.as_float()?;
        let mut products = B::float_matmul(flat, B::float_swap_dims(ih, 0, 1));
        if let Some(b) = bias_ih {
            products = B::float_add(products, b);
        }
        let products = Tensor::float(products, x.device()).reshape(&[batch, steps, gates * hidden])?;
        let state =
            |i: usize| -> Result<D> { call.input(i)?.slice(1, d * hidden..(d + 1) * hidden)?.as_float() };
        let mut h = state(1)?;
        let mut c = if kind == RecurrentCell::Lstm { Some(state(2)?) } else { None };
        let cell = Unfused { kind, hidden, reset_after, hh, bias_hh };
        let mut made = Vec::with_capacity(steps);
        for s in 0..steps {
            let t = if reverse { steps - 1 - s } else { s };
            let now = products.slice(1, t..t + 1)?.reshape(&[batch, gates * hidden])?.as_float()?;
            (h, c) = cell.step(&now, h, c);
            made.push(Tensor::float(h.clone(), x.device()).reshape(&[batch, 1, hidden])?);
        }
        if reverse {
            made.reverse();
        }
        if made.is_empty() {
            return Err(call.fault("has no time steps to run over"));
        }
        outputs.push(Tensor::concat(&made, 1)?);
        last_h.push(Tensor::float(h, x.device()));
        last_c.extend(c.map(|c| Tensor::float(c, x.device())));
    }
    let mut out = vec![Tensor::concat(&outputs, 2)?, Tensor::concat(&last_h, 1)?];
    if kind == RecurrentCell::Lstm {
        out.push(Tensor::concat(&last_c, 1)?);
    }
    Ok(out)
}
