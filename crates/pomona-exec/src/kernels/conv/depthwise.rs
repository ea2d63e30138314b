//! Convolutions with one window a channel: rows of the output are sums of shifted rows of the input.

use std::ops::Range;

use rayon::prelude::*;

use super::Geometry;
use crate::kernels::math::dot;
use crate::kernels::simd::simd;

/// Places of the output along an axis whose window has this tap inside the input, and the input's place for the first.
fn inside(g: &Geometry, axis: usize, tap: usize) -> (Range<usize>, usize) {
    let (stride, before, reach) = (g.stride[axis], g.before[axis], tap * g.dilation[axis]);
    let start = before.saturating_sub(reach).div_ceil(stride);
    let end = (g.size[axis] + before).saturating_sub(reach).div_ceil(stride).min(g.out[axis]);
    if start >= end {
        return (0..0, 0);
    }
    (start..end, start * stride + reach - before)
}

/// For every output row and tap: the rows and their parts that meet.
fn meet(g: &Geometry, mut f: impl FnMut(usize, usize, usize, Range<usize>, usize)) {
    for ky in 0..g.kernel[0] {
        let (rows, first) = inside(g, 0, ky);
        for kx in 0..g.kernel[1] {
            let (out, x) = inside(g, 1, kx);
            for (i, oy) in rows.clone().enumerate() {
                f(ky * g.kernel[1] + kx, oy, first + i * g.stride[0], out.clone(), x);
            }
        }
    }
}

simd! {
    fn add_scaled<S>(x: &[f32], w: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = S::mul_add(*x, w, *y);
        }
    }
}

simd! {
    fn add_strided<S>(x: &[f32], stride: usize, w: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x.iter().step_by(stride)) {
            *y = S::mul_add(*x, w, *y);
        }
    }
}

simd! {
    fn add_spread<S>(x: &[f32], stride: usize, w: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().step_by(stride).zip(x) {
            *y = S::mul_add(*x, w, *y);
        }
    }
}

simd! {
    fn row_dot<S>(x: &[f32], y: &[f32]) -> f32 {
        dot::<S>(x, y)
    }
}

pub(super) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, y: &mut [f32]) {
    let each = g.outputs / g.groups;
    let (inner, plane, taps) = (g.in_plane(), g.out_plane(), g.taps());
    y.par_chunks_mut(plane.max(1)).enumerate().for_each(|(i, y)| {
        let (n, o) = (i / g.outputs, i % g.outputs);
        y.fill(bias.map_or(0.0, |b| b[o]));
        let x = &x[(n * g.inputs + o / each) * inner..][..inner];
        let w = &weight[o * taps..][..taps];
        meet(g, |tap, oy, iy, out, ix| {
            let to = &mut y[oy * g.out[1]..][out];
            let from = &x[iy * g.size[1]..][..g.size[1]][ix..];
            if g.stride[1] == 1 {
                add_scaled(from, w[tap], to);
            } else {
                add_strided(from, g.stride[1], w[tap], to);
            }
        });
    });
}

pub(super) fn input(above: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, dx: &mut [f32]) {
    let each = g.outputs / g.groups;
    let (inner, plane, taps) = (g.in_plane(), g.out_plane(), g.taps());
    dx.par_chunks_mut(inner.max(1)).enumerate().for_each(|(i, dx)| {
        let (n, c) = (i / g.inputs, i % g.inputs);
        dx.fill(bias.map_or(0.0, |b| b[c]));
        for o in c * each..(c + 1) * each {
            let above = &above[(n * g.outputs + o) * plane..][..plane];
            let w = &weight[o * taps..][..taps];
            meet(g, |tap, oy, iy, out, ix| {
                let from = &above[oy * g.out[1]..][out];
                let to = &mut dx[iy * g.size[1]..][..g.size[1]][ix..];
                if g.stride[1] == 1 {
                    add_scaled(from, w[tap], to);
                } else {
                    add_spread(from, g.stride[1], w[tap], to);
                }
            });
        }
    });
}

pub(super) fn weight(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    let each = g.outputs / g.groups;
    let (inner, plane, taps) = (g.in_plane(), g.out_plane(), g.taps());
    dw.par_chunks_mut(taps.max(1)).enumerate().for_each(|(o, dw)| {
        dw.fill(0.0);
        for n in 0..g.batch {
            let above = &above[(n * g.outputs + o) * plane..][..plane];
            let x = &x[(n * g.inputs + o / each) * inner..][..inner];
            meet(g, |tap, oy, iy, out, ix| {
                let up = &above[oy * g.out[1]..][out];
                let row = &x[iy * g.size[1]..][..g.size[1]][ix..];
                dw[tap] += if g.stride[1] == 1 {
                    row_dot(up, row)
                } else {
                    up.iter().zip(row.iter().step_by(g.stride[1])).map(|(u, x)| u * x).sum()
                };
            });
        }
    });
}
