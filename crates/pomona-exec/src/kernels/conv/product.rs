//! Dense and grouped convolutions as products.

use rayon::prelude::*;

use super::Geometry;
use super::framed::Framed;
use super::padded::{Padded, View, in_turns};
use super::windows::{Filters, Planes, Taps, Windows};
use super::winograd::{self, Winograd};
use crate::kernels::gemm::{Matrix, Product, Start};
use crate::kernels::math::sum;
use crate::kernels::simd::simd;
use crate::kernels::turn::{channels_last, turn};
use crate::kernels::uninit;

/// What the output's pixels read of the input.
pub(super) fn view(g: &Geometry) -> View {
    let taps = (0..g.taps())
        .map(|t| {
            let at = [t / g.kernel[1], t % g.kernel[1]];
            [0, 1].map(|d| (at[d] * g.dilation[d]) as isize - g.before[d] as isize)
        })
        .collect();
    View { size: g.size, grid: g.out, stride: g.stride, taps }
}

pub(super) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, y: &mut [f32]) {
    if g.out_plane() == 0 || g.batch == 0 {
        return;
    }
    if winograd::fits(g) {
        let filters = winograd::Filters { weight, inputs: g.inputs, outputs: g.outputs, turned: false };
        return Winograd::new(g.batch, [g.size, g.out], g.before, filters, bias).run(x, y);
    }
    by_windows(x, weight, bias, g, y);
}

/// Every product by the definition; there are outputs.
pub(super) fn by_windows(x: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, y: &mut [f32]) {
    let (inputs, outputs) = (g.inputs / g.groups, g.outputs / g.groups);
    let (plane, depth) = (g.out_plane(), inputs * g.taps());
    let padded = Padded::new(x, g.batch * g.inputs, &view(g));
    for group in 0..g.groups {
        let own = group * outputs..(group + 1) * outputs;
        Product {
            rows: outputs,
            columns: g.batch * plane,
            depth,
            a: &Matrix::rows(&weight[own.start * depth..own.end * depth], depth),
            b: &Windows { padded: &padded, planes: g.inputs, first: group * inputs },
            row_stride: plane,
            column: |j| j / plane * (g.outputs * plane) + j % plane,
            start: bias.map_or(Start::Zero, |b| Start::Row(&b[own.clone()])),
        }
        .run(&mut y[own.start * plane..]);
    }
}

/// Pixels with `pixel % stride == phase` along both axes, and what reaches them.
pub(super) struct Phase {
    phase: [usize; 2],
    /// Where in the gradient from above their values come from.
    pub(super) view: View,
    /// The filter's tap behind each of the view's.
    pub(super) taps: Vec<usize>,
}

/// For each tap that reaches a phase along an axis: its number, and how far its window's start lies from the pixel's place
/// in the phase.
fn reached(g: &Geometry, axis: usize, phase: usize) -> Vec<(usize, isize)> {
    let stride = g.stride[axis] as isize;
    let from = |t: usize| (phase + g.before[axis]) as isize - (t * g.dilation[axis]) as isize;
    (0..g.kernel[axis])
        .filter(|t| from(*t).rem_euclid(stride) == 0)
        .map(|t| (t, from(t).div_euclid(stride)))
        .collect()
}

/// The phases that have pixels.
pub(super) fn phases(g: &Geometry) -> Vec<Phase> {
    let all = (0..g.stride[0] * g.stride[1]).map(|phase| {
        let phase = [phase / g.stride[1], phase % g.stride[1]];
        let grid = [0, 1].map(|d| g.size[d].saturating_sub(phase[d]).div_ceil(g.stride[d]));
        let (rows, columns) = (reached(g, 0, phase[0]), reached(g, 1, phase[1]));
        let pairs = || rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c)));
        Phase {
            phase,
            view: View {
                size: g.out,
                grid,
                stride: [1, 1],
                taps: pairs().map(|(r, c)| [r.1, c.1]).collect(),
            },
            taps: pairs().map(|(r, c)| r.0 * g.kernel[1] + c.0).collect(),
        }
    });
    all.filter(|p| p.view.grid[0] * p.view.grid[1] > 0).collect()
}

/// Puts the phases' pixels of a plane in their places.
pub(super) fn interleave(g: &Geometry, phases: &[Phase], parts: &[&[f32]], plane: &mut [f32]) {
    let width = g.size[1];
    let mut rest = parts;
    // Those of the same rows together.
    for some in phases.chunk_by(|a, b| a.phase[0] == b.phase[0]) {
        let own;
        (own, rest) = rest.split_at(some.len());
        for y in 0..some[0].view.grid[0] {
            let to = &mut plane[(y * g.stride[0] + some[0].phase[0]) * width..][..width];
            let row = |k: usize| &own[k][y * some[k].view.grid[1]..][..some[k].view.grid[1]];
            if g.stride[1] == 2 && some.len() == 2 {
                in_turns(row(0), row(1), to);
                continue;
            }
            for (k, p) in some.iter().enumerate() {
                to[p.phase[1]..].iter_mut().step_by(g.stride[1]).zip(row(k)).for_each(|(t, f)| *t = *f);
            }
        }
    }
}

pub(super) fn input(above: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, dx: &mut [f32]) {
    if g.batch == 0 || g.in_plane() == 0 {
        return;
    }
    if winograd::fits_input(g) {
        let filters = winograd::Filters { weight, inputs: g.outputs, outputs: g.inputs, turned: true };
        return Winograd::new(g.batch, [g.out, g.size], g.before.map(|b| 2 - b), filters, bias)
            .run(above, dx);
    }
    input_by_windows(above, weight, bias, g, dx);
}

/// Every product by the definition; there are pixels.
pub(super) fn input_by_windows(
    above: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    g: &Geometry,
    dx: &mut [f32],
) {
    let phases = phases(g);
    if let [one] = phases.as_slice()
        && g.stride == [1, 1]
    {
        return phase_of(one, above, weight, bias, g, dx);
    }
    let parts: Vec<Vec<f32>> = phases
        .iter()
        .map(|p| {
            let mut part = uninit(g.batch * g.inputs * p.view.grid[0] * p.view.grid[1]);
            phase_of(p, above, weight, bias, g, &mut part);
            part
        })
        .collect();
    dx.par_chunks_mut(g.in_plane()).enumerate().for_each(|(i, dx)| {
        let mut own: Vec<&[f32]> = Vec::with_capacity(phases.len());
        for (p, part) in phases.iter().zip(&parts) {
            let pixels = p.view.grid[0] * p.view.grid[1];
            own.push(&part[i * pixels..(i + 1) * pixels]);
        }
        interleave(g, &phases, &own, dx);
    });
}

/// A phase's pixels of the input's gradient, `[batch, inputs, pixels]`.
fn phase_of(p: &Phase, above: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, dx: &mut [f32]) {
    let (inputs, outputs) = (g.inputs / g.groups, g.outputs / g.groups);
    let pixels = p.view.grid[0] * p.view.grid[1];
    let padded = Padded::new(above, g.batch * g.outputs, &p.view);
    for group in 0..g.groups {
        let own = group * inputs..(group + 1) * inputs;
        let size = inputs * g.taps() * outputs;
        let weight = &weight[group * size..(group + 1) * size];
        Product {
            rows: inputs,
            columns: g.batch * pixels,
            depth: outputs * p.taps.len(),
            a: &Filters { weight, inputs, size: g.taps(), taps: &p.taps },
            b: &Windows { padded: &padded, planes: g.outputs, first: group * outputs },
            row_stride: pixels,
            column: |j| j / pixels * (g.inputs * pixels) + j % pixels,
            start: bias.map_or(Start::Zero, |b| Start::Row(&b[own.clone()])),
        }
        .run(&mut dx[own.start * pixels..]);
    }
}

pub(super) fn weight(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    if g.taps() == 1 && g.stride == [1, 1] && g.before == [0, 0] && g.size == g.out {
        return weight_of_pixels(x, above, g, dw);
    }
    if winograd::fits_weight(g) {
        return winograd::gradient(x, above, g, dw);
    }
    weight_by_windows(x, above, g, dw);
}

/// Every product by the definition.
pub(super) fn weight_by_windows(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    let (inputs, outputs, taps) = (g.inputs / g.groups, g.outputs / g.groups, g.taps());
    let depth = inputs * taps;
    // With the channels last, both factors' panels are copies.
    let framed = Framed::new(x, g.batch, g.inputs, &view(g));
    let above = channels_last(above, g.outputs, g.out_plane());
    let mut sums = if taps > 1 { uninit(outputs * depth) } else { Vec::new() };
    for group in 0..g.groups {
        let dw = &mut dw[group * outputs * depth..(group + 1) * outputs * depth];
        let above = above.get(group * outputs..).unwrap_or_default();
        let product = Product {
            rows: outputs,
            columns: depth,
            depth: g.batch * g.out_plane(),
            a: &Matrix::columns(above, g.outputs),
            b: &Taps { framed: &framed, first: group * inputs, inputs },
            row_stride: depth,
            column: |j| j,
            start: Start::Zero,
        };
        if taps == 1 {
            product.run(dw);
            continue;
        }
        // Taps before channels; turned filter by filter.
        product.run(&mut sums);
        let filters = dw.par_chunks_mut(depth.max(1)).zip(sums.par_chunks(depth.max(1)));
        filters.for_each(|(dw, sums)| turn(sums, inputs, taps, inputs, dw, taps));
    }
}

/// Where every output pixel reads the input's pixel in its place and no other.
fn weight_of_pixels(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    let (inputs, outputs, plane) = (g.inputs / g.groups, g.outputs / g.groups, g.out_plane());
    for (group, dw) in dw.chunks_mut((outputs * inputs).max(1)).enumerate() {
        Product {
            rows: outputs,
            columns: inputs,
            depth: g.batch * plane,
            a: &Planes { data: above, channels: g.outputs, first: group * outputs, plane },
            b: &Planes { data: x, channels: g.inputs, first: group * inputs, plane },
            row_stride: inputs,
            column: |j| j,
            start: Start::Zero,
        }
        .run(dw);
    }
}

simd! {
    fn plane_sum<S>(x: &[f32]) -> f32 {
        sum(x)
    }
}

/// Sums over batch and space of each channel.
pub(crate) fn channel_sums(above: &[f32], batch: usize, channels: usize, plane: usize) -> Vec<f32> {
    (0..channels)
        .into_par_iter()
        .map(|c| (0..batch).map(|n| plane_sum(&above[(n * channels + c) * plane..][..plane])).sum())
        .collect()
}
