//! LSTM and GRU over sequences, from the input's products on.

use std::sync::Arc;

use rayon::prelude::*;

use super::gemm::{Matrix, Product, Start};
use super::linear::{column_sums, few_rows};
use super::math::{sigmoid, tanh};
use super::simd::simd;
use super::tape::{Slice, Step, step};
use super::uninit;

/// Which cell. The GRU's reset gate acts after the hidden product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Lstm,
    Gru,
}

/// Sizes of a run over a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub cell: Cell,
    pub batch: usize,
    pub steps: usize,
    pub hidden: usize,
    /// From the last step to the first.
    pub reverse: bool,
    /// Whether the hidden product has a bias.
    pub bias: bool,
}

impl Sequence {
    fn gates(&self) -> usize {
        if self.cell == Cell::Lstm { 4 } else { 3 }
    }

    /// Rows of the result a sample: the steps, and the LSTM's last cell state.
    pub(crate) fn rows(&self) -> usize {
        self.steps + usize::from(self.cell == Cell::Lstm)
    }

    /// The step that is run as the `s`-th.
    fn time(&self, s: usize) -> usize {
        if self.reverse { self.steps - 1 - s } else { s }
    }
}

simd! {
    /// One sample's step: gates from products `z` (with the input's `x` to be added), in place; the states beside them.
    fn lstm_step<S>(x: &[f32], z: &mut [f32], c: &[f32], next: &mut [f32], h: &mut [f32]) {
        let n = c.len();
        for i in 0..n {
            let (input, forget) = (sigmoid::<S>(x[i] + z[i]), sigmoid::<S>(x[n + i] + z[n + i]));
            let (cell, output) = (tanh::<S>(x[2 * n + i] + z[2 * n + i]), sigmoid::<S>(x[3 * n + i] + z[3 * n + i]));
            next[i] = forget * c[i] + input * cell;
            h[i] = output * tanh::<S>(next[i]);
            (z[i], z[n + i], z[2 * n + i], z[3 * n + i]) = (input, forget, cell, output);
        }
    }
}

simd! {
    /// As above; `kept` takes the candidate's hidden product, which the reset gate scales.
    fn gru_step<S>(x: &[f32], z: &mut [f32], before: &[f32], kept: &mut [f32], h: &mut [f32]) {
        let n = before.len();
        for i in 0..n {
            let (reset, update) = (sigmoid::<S>(x[i] + z[i]), sigmoid::<S>(x[n + i] + z[n + i]));
            kept[i] = z[2 * n + i];
            let candidate = tanh::<S>(x[2 * n + i] + reset * kept[i]);
            h[i] = candidate + update * (before[i] - candidate);
            (z[i], z[n + i], z[2 * n + i]) = (reset, update, candidate);
        }
    }
}

simd! {
    /// Gradients of the gates' sums from that of the step's output `dh` and, in place, of the cell state.
    fn lstm_back<S>(gates: &[f32], c: &[f32], next: &[f32], dh: &[f32], dc: &mut [f32], dz: &mut [f32]) {
        let n = c.len();
        for i in 0..n {
            let (input, forget, cell, output) = (gates[i], gates[n + i], gates[2 * n + i], gates[3 * n + i]);
            let t = tanh::<S>(next[i]);
            let d = dc[i] + dh[i] * output * (1.0 - t * t);
            dz[i] = d * cell * input * (1.0 - input);
            dz[n + i] = d * c[i] * forget * (1.0 - forget);
            dz[2 * n + i] = d * input * (1.0 - cell * cell);
            dz[3 * n + i] = dh[i] * t * output * (1.0 - output);
            dc[i] = d * forget;
        }
    }
}

simd! {
    /// Gradients of the input's products `dx` and the hidden ones `dz`; `dh` becomes what goes straight to the last state.
    fn gru_back<S>(gates: &[f32], kept: &[f32], before: &[f32], dh: &mut [f32], dx: &mut [f32], dz: &mut [f32]) {
        let n = before.len();
        for i in 0..n {
            let (reset, update, candidate) = (gates[i], gates[n + i], gates[2 * n + i]);
            let d = dh[i] * (1.0 - update) * (1.0 - candidate * candidate);
            let r = d * kept[i] * reset * (1.0 - reset);
            let u = dh[i] * (before[i] - candidate) * update * (1.0 - update);
            (dx[i], dx[n + i], dx[2 * n + i]) = (r, u, d);
            (dz[i], dz[n + i], dz[2 * n + i]) = (r, u, d * reset);
            dh[i] *= update;
        }
    }
}

/// `[batch, rows, hidden]` from the input's products `[batch, steps, gates * hidden]`, the first states `[batch, hidden]`,
/// the hidden weight `[gates * hidden, hidden]` and bias. Inputs: products, h, c where the cell has one, weight, bias.
pub(crate) fn recurrent(inputs: &[Slice], s: Sequence) -> (Vec<f32>, Step) {
    let lstm = s.cell == Cell::Lstm;
    let (n, wide) = (s.hidden, s.gates() * s.hidden);
    let products = inputs[0].clone();
    let first = inputs[1].clone();
    let cell = if lstm { inputs[2].clone() } else { inputs[1].clone() };
    let weight = inputs[2 + usize::from(lstm)].clone();
    let bias = s.bias.then(|| inputs[3 + usize::from(lstm)].clone());
    // By step, then by sample: h before the step, gates, and c before the step or the GRU's kept product.
    let (mut states, mut gates) = (uninit((s.steps + 1) * s.batch * n), uninit(s.steps * s.batch * wide));
    let mut cells = uninit((s.steps + 1) * s.batch * n);
    states[..s.batch * n].copy_from_slice(&first);
    cells[..s.batch * n].copy_from_slice(&cell);
    for t in 0..s.steps {
        let (done, now) = states.split_at_mut((t + 1) * s.batch * n);
        let h = &done[t * s.batch * n..];
        let z = &mut gates[t * s.batch * wide..][..s.batch * wide];
        few_rows(h, &weight, bias.as_deref(), s.batch, n, z);
        let (before, after) = cells.split_at_mut((t + 1) * s.batch * n);
        let before = &mut before[t * s.batch * n..];
        let each = z
            .par_chunks_mut(wide)
            .zip(now.par_chunks_mut(n))
            .zip(before.par_chunks_mut(n))
            .zip(after.par_chunks_mut(n));
        each.enumerate().for_each(|(b, (((z, to), c), next))| {
            let x = &products[(b * s.steps + s.time(t)) * wide..][..wide];
            if lstm {
                lstm_step(x, z, c, next, to);
            } else {
                gru_step(x, z, &h[b * n..(b + 1) * n], c, to);
            }
        });
    }
    let mut out = uninit(s.batch * s.rows() * n);
    for (b, out) in out.chunks_exact_mut((s.rows() * n).max(1)).enumerate() {
        for t in 0..s.steps {
            out[s.time(t) * n..][..n].copy_from_slice(&states[((t + 1) * s.batch + b) * n..][..n]);
        }
        if lstm {
            out[s.steps * n..].copy_from_slice(&cells[(s.steps * s.batch + b) * n..][..n]);
        }
    }
    let kept = Arc::new(Kept { states, gates, cells, weight });
    (out, step(move |above, need| backward(&kept, above, need, s)))
}

struct Kept {
    states: Vec<f32>,
    gates: Vec<f32>,
    cells: Vec<f32>,
    weight: Slice,
}

fn backward(k: &Kept, above: &[f32], need: &[bool], s: Sequence) -> Vec<Option<Vec<f32>>> {
    let lstm = s.cell == Cell::Lstm;
    let (n, wide, rows) = (s.hidden, s.gates() * s.hidden, s.rows());
    let mut turned = uninit(k.weight.len());
    for (i, row) in k.weight.chunks_exact(n.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, w)| turned[j * wide + i] = *w);
    }
    // Of the hidden products, by step; of the input's, by sample.
    let (mut dz, mut dx) = (uninit(s.steps * s.batch * wide), uninit(s.batch * s.steps * wide));
    let (mut dh, mut dc) = (vec![0.0; s.batch * n], vec![0.0; s.batch * n]);
    if lstm {
        for (b, dc) in dc.chunks_exact_mut(n.max(1)).enumerate() {
            dc.copy_from_slice(&above[(b * rows + s.steps) * n..][..n]);
        }
    }
    let mut through = uninit(s.batch * n);
    for t in (0..s.steps).rev() {
        let dz = &mut dz[t * s.batch * wide..][..s.batch * wide];
        let time = s.time(t);
        let each = dz.par_chunks_mut(wide).zip(dh.par_chunks_mut(n)).zip(dc.par_chunks_mut(n));
        each.zip(dx.par_chunks_mut(s.steps * wide)).enumerate().for_each(|(b, (((dz, dh), dc), dx))| {
            let up = &above[(b * rows + time) * n..][..n];
            dh.iter_mut().zip(up).for_each(|(d, u)| *d += u);
            let at = |t: usize| (t * s.batch + b) * n..(t * s.batch + b + 1) * n;
            let gates = &k.gates[(t * s.batch + b) * wide..][..wide];
            let dx = &mut dx[time * wide..][..wide];
            if lstm {
                lstm_back(gates, &k.cells[at(t)], &k.cells[at(t + 1)], dh, dc, dz);
                dx.copy_from_slice(dz);
                dh.fill(0.0);
            } else {
                gru_back(gates, &k.cells[at(t)], &k.states[at(t)], dh, dx, dz);
            }
        });
        few_rows(dz, &turned, None, s.batch, wide, &mut through);
        dh.iter_mut().zip(&through).for_each(|(d, t)| *d += t);
    }
    let place = 2 + usize::from(lstm);
    let dw = need[place].then(|| {
        let mut dw = uninit(wide * n);
        let depth = s.steps * s.batch;
        let (a, b) = (Matrix::columns(&dz, wide), Matrix::columns(&k.states[..depth * n], n));
        Product {
            rows: wide,
            columns: n,
            depth,
            a: &a,
            b: &b,
            row_stride: n,
            column: |j| j,
            start: Start::Zero,
        }
        .run(&mut dw);
        dw
    });
    let mut out = vec![Some(dx), Some(dh)];
    if lstm {
        out.push(Some(dc));
    }
    out.push(dw);
    if s.bias {
        out.push(Some(column_sums(&dz, wide)));
    }
    out
}
