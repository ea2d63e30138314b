//! Convolutions with one window a channel. A plane is laid out with its border, so that a row of the output is a sum of
//! shifted rows, all taps of a few registers at a time.

use rayon::prelude::*;

use super::Geometry;
use super::padded::{BEHIND, Layout};
use super::product::{interleave, phases, view};
use crate::kernels::simd::simd;

/// Registers of a row that are summed at a time.
const WIDE: usize = 4;
/// Taps whose sums are held at a time.
const HELD: usize = 9;

/// A tap: where its value for the first pixel lies in the laid plane, and its weight.
type Tap = (usize, f32);

simd! {
    /// `out += sum over taps of weight * shifted plane`, for rows of `width`, `step` apart in the plane.
    fn add_taps<S>(plane: &[f32], step: usize, taps: &[Tap], width: usize, out: &mut [f32]) {
        let Some(reach) = taps.iter().map(|t| t.0).max() else { return };
        let rows = out.len() / width.max(1);
        let fits = rows == 0 || (rows - 1) * step + reach + width + (WIDE * S::LANES) <= plane.len();
        assert!(fits, "every tap of every pixel lies within the plane");
        for (y, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let mut x = 0;
            // SAFETY: whoever chose `S` found the set. A register starts within the row, so that its last float lies
            // less than a block behind it: within the plane, as asserted. Only whole registers are read from and written
            // to the row.
            unsafe {
                let plane = plane.as_ptr().add(y * step);
                while x + WIDE * S::LANES <= width {
                    let to = out.as_mut_ptr().add(x);
                    let mut sums = [S::zero(); WIDE];
                    for (v, s) in sums.iter_mut().enumerate() {
                        *s = S::load(to.add(v * S::LANES));
                    }
                    for (at, w) in taps {
                        let (from, w) = (plane.add(x + at), S::splat(*w));
                        for (v, s) in sums.iter_mut().enumerate() {
                            *s = S::fma(S::load(from.add(v * S::LANES)), w, *s);
                        }
                    }
                    for (v, s) in sums.iter().enumerate() {
                        S::store(to.add(v * S::LANES), *s);
                    }
                    x += WIDE * S::LANES;
                }
                while x < width {
                    let n = S::LANES.min(width - x);
                    let mut row = [0.0_f32; 16];
                    row[..n].copy_from_slice(&out[x..x + n]);
                    let mut sum = S::load(row.as_ptr());
                    for (at, w) in taps {
                        sum = S::fma(S::load(plane.add(x + at)), S::splat(*w), sum);
                    }
                    S::store(row.as_mut_ptr(), sum);
                    out[x..x + n].copy_from_slice(&row[..n]);
                    x += S::LANES;
                }
            }
        }
    }
}

simd! {
    /// Sums of the products of a plane's shifted rows with the rows of `above`, a tap each.
    fn tap_sums<S>(plane: &[f32], step: usize, taps: &[usize; HELD], above: &[f32], width: usize) -> [f32; HELD] {
        let reach = taps.iter().max().copied().unwrap_or(0);
        let rows = above.len() / width.max(1);
        let fits = rows == 0 || (rows - 1) * step + reach + width + S::LANES <= plane.len();
        assert!(fits, "every tap of every pixel lies within the plane");
        let mut out = [0.0; HELD];
        // SAFETY: as above; a row's last floats are copied where they fill no register.
        unsafe {
            let mut sums = [S::zero(); HELD];
            for (y, above) in above.chunks_exact(width.max(1)).enumerate() {
                let plane = plane.as_ptr().add(y * step);
                for x in (0..width).step_by(S::LANES) {
                    let up = if x + S::LANES <= width {
                        S::load(above.as_ptr().add(x))
                    } else {
                        let mut row = [0.0_f32; 16];
                        row[..width - x].copy_from_slice(&above[x..]);
                        S::load(row.as_ptr())
                    };
                    for t in 0..HELD {
                        sums[t] = S::fma(S::load(plane.add(x + taps[t])), up, sums[t]);
                    }
                }
            }
            for t in 0..HELD {
                let mut lanes = [0.0_f32; 16];
                S::store(lanes.as_mut_ptr(), sums[t]);
                out[t] = lanes.iter().sum();
            }
        }
        out
    }
}

/// Room for a laid plane.
fn room(layout: &Layout) -> Vec<f32> {
    vec![0.0; layout.plane() + BEHIND]
}

pub(super) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, y: &mut [f32]) {
    let each = g.outputs / g.groups;
    let (inner, plane, taps) = (g.in_plane(), g.out_plane(), g.taps());
    let view = view(g);
    let layout = Layout::new(&view);
    let places: Vec<usize> = view.taps.iter().map(|t| layout.tap(*t)).collect();
    let planes = y.par_chunks_mut(plane.max(1)).enumerate();
    planes.for_each_init(
        || room(&layout),
        |laid, (i, y)| {
            let (n, o) = (i / g.outputs, i % g.outputs);
            y.fill(bias.map_or(0.0, |b| b[o]));
            layout.lay(&x[(n * g.inputs + o / each) * inner..][..inner], laid);
            let own: Vec<Tap> =
                places.iter().copied().zip(weight[o * taps..][..taps].iter().copied()).collect();
            add_taps(laid, g.stride[0] * layout.width(), &own, g.out[1], y);
        },
    );
}

pub(super) fn input(above: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry, dx: &mut [f32]) {
    let each = g.outputs / g.groups;
    let (inner, plane, taps) = (g.in_plane(), g.out_plane(), g.taps());
    let phases = phases(g);
    let layouts: Vec<Layout> = phases.iter().map(|p| Layout::new(&p.view)).collect();
    let whole = g.stride == [1, 1];
    dx.par_chunks_mut(inner.max(1)).enumerate().for_each_init(
        || layouts.iter().map(room).collect::<Vec<_>>(),
        |laid, (i, dx)| {
            let (n, c) = (i / g.inputs, i % g.inputs);
            let start = bias.map_or(0.0, |b| b[c]);
            let mut parts: Vec<Vec<f32>> = Vec::new();
            for ((p, layout), laid) in phases.iter().zip(&layouts).zip(laid) {
                let [height, width] = p.view.grid;
                let mut sums = |part: &mut [f32]| {
                    part.fill(start);
                    for o in c * each..(c + 1) * each {
                        layout.lay(&above[(n * g.outputs + o) * plane..][..plane], laid);
                        let w = &weight[o * taps..][..taps];
                        let tap = |(t, at): (&usize, &[isize; 2])| (layout.tap(*at), w[*t]);
                        let own: Vec<Tap> = p.taps.iter().zip(&p.view.taps).map(tap).collect();
                        add_taps(laid, layout.width(), &own, width, part);
                    }
                };
                if whole {
                    sums(dx);
                } else {
                    let mut part = vec![0.0; height * width];
                    sums(&mut part);
                    parts.push(part);
                }
            }
            if !whole {
                let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
                interleave(g, &phases, &parts, dx);
            }
        },
    );
}

pub(super) fn weight(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    let each = g.outputs / g.groups;
    let (inner, plane, taps) = (g.in_plane(), g.out_plane(), g.taps());
    let view = view(g);
    let layout = Layout::new(&view);
    let places: Vec<usize> = view.taps.iter().map(|t| layout.tap(*t)).collect();
    let filters = dw.par_chunks_mut(taps.max(1)).enumerate();
    filters.for_each_init(
        || room(&layout),
        |laid, (o, dw)| {
            dw.fill(0.0);
            for n in 0..g.batch {
                let above = &above[(n * g.outputs + o) * plane..][..plane];
                layout.lay(&x[(n * g.inputs + o / each) * inner..][..inner], laid);
                for (dw, places) in dw.chunks_mut(HELD).zip(places.chunks(HELD)) {
                    // Places that no tap is left for are summed and forgotten.
                    let mut held = [places[0]; HELD];
                    held[..places.len()].copy_from_slice(places);
                    let sums = tap_sums(laid, g.stride[0] * layout.width(), &held, above, g.out[1]);
                    dw.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
                }
            }
        },
    );
}
