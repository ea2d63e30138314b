//! LSTM and GRU over sequences, from the input's products on. The recurrent weight is packed once, and a step is one round
//! of tasks: each makes all gates of some units, and their states.

use std::sync::Arc;

use rayon::prelude::*;

use super::gemm::{Matrix, Operand, Product, Start, tile_of_rows};
use super::linear::column_sums;
use super::math::{sigmoid, tanh};
use super::simd::{Simd, simd};
use super::tape::{Slice, Step, step};
use super::tiles::{in_tile, tile_size};
use super::{Room, Shared, uninit};

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
    /// One sample's step for some units: gates from products `z` (with the input's `x` to be added), in place; the states
    /// beside them.
    fn lstm_step<S>(x: [&[f32]; 4], z: [&mut [f32]; 4], c: &[f32], next: &mut [f32], h: &mut [f32]) {
        let n = c.len();
        let [xi, xf, xc, xo] = x.map(|x| &x[..n]);
        let [zi, zf, zc, zo] = z.map(|z| &mut z[..n]);
        let (next, h) = (&mut next[..n], &mut h[..n]);
        for i in 0..n {
            let (input, forget) = (sigmoid::<S>(xi[i] + zi[i]), sigmoid::<S>(xf[i] + zf[i]));
            let (cell, output) = (tanh::<S>(xc[i] + zc[i]), sigmoid::<S>(xo[i] + zo[i]));
            next[i] = forget * c[i] + input * cell;
            h[i] = output * tanh::<S>(next[i]);
            (zi[i], zf[i], zc[i], zo[i]) = (input, forget, cell, output);
        }
    }
}

simd! {
    /// As above; `kept` takes the candidate's hidden product, which the reset gate scales.
    fn gru_step<S>(x: [&[f32]; 3], z: [&mut [f32]; 3], before: &[f32], kept: &mut [f32], h: &mut [f32]) {
        let n = before.len();
        let [xr, xu, xc] = x.map(|x| &x[..n]);
        let [zr, zu, zc] = z.map(|z| &mut z[..n]);
        let (kept, h) = (&mut kept[..n], &mut h[..n]);
        for i in 0..n {
            let (reset, update) = (sigmoid::<S>(xr[i] + zr[i]), sigmoid::<S>(xu[i] + zu[i]));
            kept[i] = zc[i];
            let candidate = tanh::<S>(xc[i] + reset * kept[i]);
            h[i] = candidate + update * (before[i] - candidate);
            (zr[i], zu[i], zc[i]) = (reset, update, candidate);
        }
    }
}

simd! {
    /// Gradients of the gates' sums from that of the step's output `dh` and, in place, of the cell state.
    fn lstm_back<S>(gates: [&[f32]; 4], c: &[f32], next: &[f32], dh: &[f32], dc: &mut [f32], dz: [&mut [f32]; 4]) {
        let n = c.len();
        let [gi, gf, gc, go] = gates.map(|g| &g[..n]);
        let [di, df, dg, dout] = dz.map(|d| &mut d[..n]);
        let (next, dh, dc) = (&next[..n], &dh[..n], &mut dc[..n]);
        for i in 0..n {
            let (input, forget, cell, output) = (gi[i], gf[i], gc[i], go[i]);
            let t = tanh::<S>(next[i]);
            let d = dc[i] + dh[i] * output * (1.0 - t * t);
            di[i] = d * cell * input * (1.0 - input);
            df[i] = d * c[i] * forget * (1.0 - forget);
            dg[i] = d * input * (1.0 - cell * cell);
            dout[i] = dh[i] * t * output * (1.0 - output);
            dc[i] = d * forget;
        }
    }
}

simd! {
    /// Gradients of the hidden products `dz`; `dx` takes the candidate's of the input's, which no reset gate scales, and
    /// `dh` becomes what goes straight to the last state.
    fn gru_back<S>(gates: [&[f32]; 3], kept: &[f32], before: &[f32], dh: &mut [f32], dx: &mut [f32], dz: [&mut [f32]; 3]) {
        let n = before.len();
        let [gr, gu, gc] = gates.map(|g| &g[..n]);
        let [dr, du, dc] = dz.map(|d| &mut d[..n]);
        let (kept, dh, dx) = (&kept[..n], &mut dh[..n], &mut dx[..n]);
        for i in 0..n {
            let (reset, update, candidate) = (gr[i], gu[i], gc[i]);
            let d = dh[i] * (1.0 - update) * (1.0 - candidate * candidate);
            dr[i] = d * kept[i] * reset * (1.0 - reset);
            du[i] = dh[i] * (before[i] - candidate) * update * (1.0 - update);
            dx[i] = d;
            dc[i] = d * reset;
            dh[i] *= update;
        }
    }
}

/// A weight in panels of units: `[panel][block][depth][lanes]`, where a block (a gate) has `n` outputs.
struct Panels {
    values: Room,
    blocks: usize,
    n: usize,
    depth: usize,
    lanes: usize,
}

impl Panels {
    fn new(weight: Matrix<'_>, blocks: usize, n: usize, depth: usize) -> Self {
        #[inline(always)]
        fn pack<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
            weight: &Matrix<'_>,
            p: &mut Panels,
        ) {
            let (n, blocks) = (p.n, p.blocks);
            for (i, out) in p.values.chunks_exact_mut((p.depth * NR).max(1)).enumerate() {
                let (unit, block) = (i / blocks * NR, i % blocks);
                weight.pack::<S, NR>(block * n + unit, NR.min(n - unit), 0..p.depth, out);
            }
        }
        let lanes = tile_size().1;
        let values = Room::zeros(n.div_ceil(lanes) * blocks * depth * lanes);
        let mut panels = Self { values, blocks, n, depth, lanes };
        in_tile!(pack(&weight, &mut panels));
        panels
    }

    fn count(&self) -> usize {
        self.n.div_ceil(self.lanes)
    }

    /// The units of a panel.
    fn units(&self, p: usize) -> std::ops::Range<usize> {
        p * self.lanes..((p + 1) * self.lanes).min(self.n)
    }

    /// Calls a task for every panel, on all threads where `rows` of them are worth it.
    fn each(&self, rows: usize, task: impl Fn(usize) + Sync + Send) {
        /// Products below which threads cost more than they bring.
        const SMALL: usize = 1 << 19;
        if rows * self.n * self.blocks * self.depth < SMALL {
            (0..self.count()).for_each(task);
        } else {
            (0..self.count()).into_par_iter().for_each(task);
        }
    }

    /// A panel's products with rows `a` `[rows, depth]`, into rows of `blocks * n`.
    ///
    /// # Safety
    /// `out` holds the rows, and the panel's units are the caller's alone.
    unsafe fn product(&self, p: usize, a: &[f32], out: Shared<'_>, start: Start<'_>) {
        // SAFETY: as the caller vouches.
        in_tile!(rows_of_panel(self, p, a, out, start))
    }
}

/// A sample's units from `first` on.
///
/// # Safety
/// They lie within the buffer and are the caller's alone.
unsafe fn units_of<'a>(of: Shared<'a>, first: usize, units: &std::ops::Range<usize>) -> &'a mut [f32] {
    // SAFETY: as the caller vouches.
    unsafe { of.part(first, units.len()) }
}

#[inline(always)]
fn rows_of_panel<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    panels: &Panels,
    p: usize,
    a: &[f32],
    out: Shared<'_>,
    start: Start<'_>,
) {
    let (rows, size) = (a.len() / panels.depth.max(1), panels.depth * NR);
    for block in 0..panels.blocks {
        let b = &panels.values[(p * panels.blocks + block) * size..][..size];
        let mut row = 0;
        while row < rows {
            let place = (row, block * panels.n + p * NR);
            let a = &a[row * panels.depth..];
            row += match rows - row {
                1 => few::<S, 1, NV, NR>(panels, a, b, place, out, start),
                2..4 => few::<S, 2, NV, NR>(panels, a, b, place, out, start),
                _ => few::<S, 4, NV, NR>(panels, a, b, place, out, start),
            };
        }
    }
}

/// `R` rows of a panel's products; gives `R`.
#[inline(always)]
fn few<S: Simd, const R: usize, const NV: usize, const NR: usize>(
    panels: &Panels,
    a: &[f32],
    b: &[f32],
    (row, first): (usize, usize),
    out: Shared<'_>,
    start: Start<'_>,
) -> usize {
    assert!(
        a.len() >= R * panels.depth && b.len() >= NR * panels.depth,
        "rows and a panel of the whole depth"
    );
    let mut sums = [[0.0_f32; NR]; R];
    // SAFETY: `in_tile` found the set; the rows and the panel hold the whole depth, as asserted.
    unsafe {
        let acc = tile_of_rows::<S, R, NV>(panels.depth, a.as_ptr(), panels.depth, b.as_ptr());
        for i in 0..R {
            for v in 0..NV {
                S::store(sums[i].as_mut_ptr().add(v * S::LANES), acc[i][v]);
            }
        }
    }
    let n = NR.min(panels.n - first % panels.n);
    for (i, sums) in sums.iter().enumerate() {
        let at = (row + i) * panels.blocks * panels.n + first;
        assert!(at + n <= out.len(), "the units lie within the result");
        // SAFETY: within the result as asserted; the panel's units are its task's alone, as the caller vouches.
        let to = unsafe { out.part(at, n) };
        match start {
            Start::Add => to.iter_mut().zip(sums).for_each(|(t, s)| *t += s),
            Start::Column(bias) => {
                to.iter_mut().zip(sums).zip(&bias[first..]).for_each(|((t, s), b)| *t = s + b);
            }
            Start::Zero | Start::Row(_) => to.copy_from_slice(&sums[..n]),
        }
    }
    R
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
    let start = bias.as_deref().map_or(Start::Zero, Start::Column);
    let panels = Panels::new(Matrix::rows(&weight, n), s.gates(), n, n);
    // By step, then by sample: h before the step, gates, and c before the step or the GRU's kept product.
    let (mut states, mut gates) = (uninit((s.steps + 1) * s.batch * n), uninit(s.steps * s.batch * wide));
    let mut cells = uninit((s.steps + 1) * s.batch * n);
    states[..s.batch * n].copy_from_slice(&first);
    cells[..s.batch * n].copy_from_slice(&cell);
    for t in 0..s.steps {
        let (done, now) = states.split_at_mut((t + 1) * s.batch * n);
        let before = &done[t * s.batch * n..];
        let now = Shared::new(&mut now[..s.batch * n]);
        let z = Shared::new(&mut gates[t * s.batch * wide..][..s.batch * wide]);
        let (c, next) = cells[t * s.batch * n..].split_at_mut(s.batch * n);
        let (c, next) = (Shared::new(c), Shared::new(&mut next[..s.batch * n]));
        panels.each(s.batch, |p| {
            let units = panels.units(p);
            // SAFETY: `z`, `now`, `c` and `next` hold a row a sample, and each task takes its own units of them.
            unsafe { panels.product(p, before, z, start) };
            for b in 0..s.batch {
                let x = &products[(b * s.steps + s.time(t)) * wide..][..wide];
                let x = |gate: usize| &x[gate * n..(gate + 1) * n][units.clone()];
                let first = b * n + units.start;
                // SAFETY: as above.
                let [c, next, now] = [c, next, now].map(|of| unsafe { units_of(of, first, &units) });
                // SAFETY: as above.
                let z = |gate: usize| unsafe { z.part(b * wide + gate * n + units.start, units.len()) };
                if lstm {
                    let gates = [z(0), z(1), z(2), z(3)];
                    lstm_step([x(0), x(1), x(2), x(3)], gates, c, next, now);
                } else {
                    let before = &before[b * n..(b + 1) * n][units.clone()];
                    gru_step([x(0), x(1), x(2)], [z(0), z(1), z(2)], before, c, now);
                }
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
    let panels = Panels::new(Matrix::columns(&k.weight, n), 1, n, wide);
    // Of the hidden products, by step; of the input's, by sample.
    let (mut dz, mut dx) = (uninit(s.steps * s.batch * wide), uninit(s.batch * s.steps * wide));
    let (mut dh, mut dc) = (vec![0.0; s.batch * n], vec![0.0; s.batch * n]);
    if lstm {
        for (b, dc) in dc.chunks_exact_mut(n.max(1)).enumerate() {
            dc.copy_from_slice(&above[(b * rows + s.steps) * n..][..n]);
        }
    }
    let (dh_all, dc_all, dx_all) = (Shared::new(&mut dh), Shared::new(&mut dc), Shared::new(&mut dx));
    for t in (0..s.steps).rev() {
        let (now, later) = dz.split_at_mut((t + 1) * s.batch * wide);
        let later = &later[..later.len().min(s.batch * wide)];
        let now = Shared::new(&mut now[t * s.batch * wide..]);
        let time = s.time(t);
        panels.each(s.batch, |p| {
            let units = panels.units(p);
            if !later.is_empty() {
                // SAFETY: the state's gradient has a row a sample, and each task takes its own units of it.
                unsafe { panels.product(p, later, dh_all, Start::Add) };
            }
            for b in 0..s.batch {
                let at = |t: usize| (t * s.batch + b) * n + units.start..(t * s.batch + b) * n + units.end;
                let gates = &k.gates[(t * s.batch + b) * wide..][..wide];
                let gate = |g: usize| &gates[g * n..(g + 1) * n][units.clone()];
                // SAFETY: all hold a row a sample (and step), and each task takes its own units of them.
                let [dh, dc] =
                    [dh_all, dc_all].map(|of| unsafe { units_of(of, b * n + units.start, &units) });
                // SAFETY: as above.
                let dz = |g: usize| unsafe { now.part(b * wide + g * n + units.start, units.len()) };
                // SAFETY: as above.
                let dx = |g: usize| unsafe {
                    dx_all.part((b * s.steps + time) * wide + g * n + units.start, units.len())
                };
                let up = &above[(b * rows + time) * n..][..n][units.clone()];
                dh.iter_mut().zip(up).for_each(|(d, u)| *d += u);
                if lstm {
                    let (gates, dz_of) = ([gate(0), gate(1), gate(2), gate(3)], [dz(0), dz(1), dz(2), dz(3)]);
                    lstm_back(gates, &k.cells[at(t)], &k.cells[at(t + 1)], dh, dc, dz_of);
                    (0..4).for_each(|g| dx(g).copy_from_slice(dz(g)));
                    dh.fill(0.0);
                } else {
                    let gates = [gate(0), gate(1), gate(2)];
                    gru_back(gates, &k.cells[at(t)], &k.states[at(t)], dh, dx(2), [dz(0), dz(1), dz(2)]);
                    (0..2).for_each(|g| dx(g).copy_from_slice(dz(g)));
                }
            }
        });
    }
    if s.steps > 0 {
        let last = &dz[..s.batch * wide];
        // SAFETY: as in the loop.
        panels.each(s.batch, |p| unsafe { panels.product(p, last, dh_all, Start::Add) });
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
