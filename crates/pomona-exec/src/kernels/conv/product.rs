//! Dense and grouped convolutions as products.

use rayon::prelude::*;

use super::Geometry;
use super::windows::{Channels, Filters, Turned, Windows};
use crate::kernels::gemm::{Matrix, Product, Start};
use crate::kernels::math::sum;
use crate::kernels::simd::simd;

/// Windows of the input for the output's pixels.
fn windows<'a>(x: &'a [f32], g: &Geometry, group: usize) -> Windows<'a> {
    let taps = (0..g.taps())
        .map(|t| {
            let at = [t / g.kernel[1], t % g.kernel[1]];
            [0, 1].map(|d| (at[d] * g.dilation[d]) as isize - g.before[d] as isize)
        })
        .collect();
    let inputs = g.inputs / g.groups;
    Windows {
        data: x,
        planes: g.inputs,
        first: group * inputs,
        size: g.size,
        grid: g.out,
        stride: g.stride,
        taps,
    }
}

pub(super) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, y: &mut [f32]) {
    let (outputs, depth) = (g.outputs / g.groups, g.inputs / g.groups * g.taps());
    let plane = g.out_plane();
    if plane == 0 || g.batch == 0 {
        return;
    }
    for group in 0..g.groups {
        let own = group * outputs..(group + 1) * outputs;
        let windows = windows(x, g, group);
        Product {
            rows: outputs,
            columns: g.batch * plane,
            depth,
            a: &Matrix::rows(&weight[own.start * depth..own.end * depth], depth),
            b: &windows,
            row_stride: plane,
            column: |j| j / plane * (g.outputs * plane) + j % plane,
            start: bias.map_or(Start::Zero, |b| Start::Row(&b[own.clone()])),
        }
        .run(&mut y[own.start * plane..]);
    }
}

/// Offsets along an axis from which the pixels of a phase (those with `pixel % stride == phase`) are reached: for each
/// tap that reaches them its number, and how far its window's start lies from the pixel's place in the phase.
fn reached(g: &Geometry, axis: usize, phase: usize) -> Vec<(usize, isize)> {
    let stride = g.stride[axis] as isize;
    let from = |t: usize| (phase + g.before[axis]) as isize - (t * g.dilation[axis]) as isize;
    (0..g.kernel[axis])
        .filter(|t| from(*t).rem_euclid(stride) == 0)
        .map(|t| (t, from(t).div_euclid(stride)))
        .collect()
}

pub(super) fn input(above: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, dx: &mut [f32]) {
    let (inputs, outputs) = (g.inputs / g.groups, g.outputs / g.groups);
    let (plane, [height, width]) = (g.in_plane(), g.size);
    for phase in 0..g.stride[0] * g.stride[1] {
        let phase = [phase / g.stride[1], phase % g.stride[1]];
        let grid = [0, 1].map(|d| g.size[d].saturating_sub(phase[d]).div_ceil(g.stride[d]));
        let pixels = grid[0] * grid[1];
        if pixels == 0 || g.batch == 0 {
            continue;
        }
        let (rows, columns) = (reached(g, 0, phase[0]), reached(g, 1, phase[1]));
        let pairs = || rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c)));
        let filter_taps: Vec<usize> = pairs().map(|(r, c)| r.0 * g.kernel[1] + c.0).collect();
        let taps: Vec<[isize; 2]> = pairs().map(|(r, c)| [r.1, c.1]).collect();
        let depth = outputs * taps.len();
        for group in 0..g.groups {
            let own = group * inputs..(group + 1) * inputs;
            let size = inputs * g.taps() * outputs;
            let filters = Filters {
                weight: &weight[group * size..(group + 1) * size],
                inputs,
                size: g.taps(),
                taps: filter_taps.clone(),
            };
            let windows = Windows {
                data: above,
                planes: g.outputs,
                first: group * outputs,
                size: g.out,
                grid,
                stride: [1, 1],
                taps: taps.clone(),
            };
            let place = |j: usize| {
                let (n, at) = (j / pixels, j % pixels);
                let (y, x) = (at / grid[1] * g.stride[0] + phase[0], at % grid[1] * g.stride[1] + phase[1]);
                n * g.inputs * height * width + y * width + x
            };
            Product {
                rows: inputs,
                columns: g.batch * pixels,
                depth,
                a: &filters,
                b: &windows,
                row_stride: plane,
                column: place,
                start: bias.map_or(Start::Zero, |b| Start::Row(&b[own.clone()])),
            }
            .run(&mut dx[own.start * plane..]);
        }
    }
}

pub(super) fn weight(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    let (outputs, depth) = (g.outputs / g.groups, g.inputs / g.groups * g.taps());
    for group in 0..g.groups {
        let above = Channels { data: above, planes: g.outputs, first: group * outputs, size: g.out_plane() };
        Product {
            rows: outputs,
            columns: depth,
            depth: g.batch * g.out_plane(),
            a: &above,
            b: &Turned(windows(x, g, group)),
            row_stride: depth,
            column: |j| j,
            start: Start::Zero,
        }
        .run(&mut dw[group * outputs * depth..(group + 1) * outputs * depth]);
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
