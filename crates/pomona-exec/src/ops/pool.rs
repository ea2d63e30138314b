//! Pooling over windows and to a given size.

use pomona_graph::PoolKind;

use super::Call;
use super::elementwise::larger;
use super::layout::{bordered, strided};
use crate::burn_types::{B, D, FloatTensorOps, ModuleOps};
use crate::error::Result;
use crate::tensor::Tensor;

/// Pooling windows.
pub(super) struct Window<'a> {
    pub kernel: &'a [usize],
    pub stride: &'a [usize],
    pub padding: &'a [[usize; 2]],
    pub ceil: bool,
    pub count: bool,
}

impl Window<'_> {
    /// Windows along spatial axis `i` of `n` elements; none where not one fits.
    fn windows(&self, i: usize, n: usize) -> Option<usize> {
        let [before, after] = self.padding[i];
        let room = (n + before + after).checked_sub(self.kernel[i])?;
        let stride = self.stride[i];
        let count = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
        // A ceiling window must begin inside the input or its leading border.
        let late = self.ceil && (count - 1) * stride >= n + before;
        Some(if late { count - 1 } else { count })
    }

    /// Elements that an average along spatial axis `i` divides by, for each window.
    fn divisors(&self, i: usize, n: usize, windows: usize) -> Vec<usize> {
        let [before, after] = self.padding[i];
        let inside = if self.count { 0..n + before + after } else { before..before + n };
        let shared = |w: usize| {
            let (start, end) = (w * self.stride[i], w * self.stride[i] + self.kernel[i]);
            end.min(inside.end).saturating_sub(start.max(inside.start))
        };
        (0..windows).map(shared).collect()
    }
}

/// Maximum or average over windows.
pub(super) fn pool(c: &Call<'_>, kind: PoolKind, w: &Window<'_>) -> Result<Tensor> {
    let x = c.input(0)?;
    let even = w.padding.iter().all(|[a, b]| a == b);
    if let (true, &[kh, kw], &[sh, sw], &[[ph, _], [pw, _]]) =
        (even && !w.ceil, w.kernel, w.stride, w.padding)
    {
        let d = x.as_float()?;
        let y = match kind {
            PoolKind::Max => B::max_pool2d(d, [kh, kw], [sh, sw], [ph, pw], [1, 1], false),
            PoolKind::Average => B::avg_pool2d(d, [kh, kw], [sh, sw], [ph, pw], w.count, false),
        };
        return Ok(Tensor::float(y, x.device()));
    }
    by_views(c, kind, w)
}

/// A reduction over the shifted, strided views of the input: every window element is one view.
fn by_views(c: &Call<'_>, kind: PoolKind, w: &Window<'_>) -> Result<Tensor> {
    let x = c.input(0)?;
    let rank = x.shape().len();
    let mut sizes = Vec::with_capacity(w.kernel.len());
    let mut amounts = vec![[0, 0]; 2];
    for (i, n) in x.shape()[2..].iter().enumerate() {
        let windows = w.windows(i, *n);
        let windows = windows.ok_or_else(|| c.fault(format!("has no window of {:?} in {x:?}", w.kernel)))?;
        let reach = (windows - 1) * w.stride[i] + w.kernel[i];
        amounts.push([w.padding[i][0], reach.saturating_sub(n + w.padding[i][0])]);
        sizes.push(windows);
    }
    let fill = if kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 };
    let padded = bordered(x, &amounts, fill)?.as_float()?;
    let cut = |offset: &Vec<usize>| {
        offset.iter().enumerate().fold(padded.clone(), |d, (i, o)| {
            strided(d, rank, i + 2, *o, o + (sizes[i] - 1) * w.stride[i] + 1, w.stride[i])
        })
    };
    let join: fn(D, D) -> D = if kind == PoolKind::Max { larger } else { B::float_add };
    let joined = window_offsets(w.kernel).iter().map(cut).reduce(join);
    let joined = joined.ok_or_else(|| c.fault("has an empty window"))?;
    if kind == PoolKind::Max {
        return Ok(Tensor::float(joined, x.device()));
    }
    let mut divisor = vec![1.0_f32];
    for (i, n) in x.shape()[2..].iter().enumerate() {
        let own = w.divisors(i, *n, sizes[i]);
        divisor = divisor.iter().flat_map(|d| own.iter().map(move |o| d * *o as f32)).collect();
    }
    let divisor = Tensor::from_f32(divisor, &[&[1, 1], sizes.as_slice()].concat(), x.device())?;
    Ok(Tensor::float(B::float_div(joined, divisor.as_float()?), x.device()))
}

fn window_offsets(kernel: &[usize]) -> Vec<Vec<usize>> {
    kernel.iter().fold(vec![Vec::new()], |all, k| {
        all.iter().flat_map(|o| (0..*k).map(move |i| [o.as_slice(), &[i]].concat())).collect()
    })
}

/// Output element i of n over an axis of m covers `floor(i m / n) .. ceil((i + 1) m / n)`.
pub(super) fn adaptive_pool(c: &Call<'_>, kind: PoolKind, size: &[usize]) -> Result<Tensor> {
    let mut x = c.input(0)?.clone();
    for (k, n) in size.iter().enumerate() {
        let axis = k + 2;
        let m = x.shape()[axis];
        if m == 0 || *n == 0 {
            return Err(c.fault(format!("pools {m} elements to {n}")));
        }
        let mut parts = Vec::with_capacity(*n);
        for i in 0..*n {
            let cut = x.slice(axis, i * m / n..((i + 1) * m).div_ceil(*n))?.as_float()?;
            let d = if kind == PoolKind::Max {
                B::float_max_dim(cut, axis)
            } else {
                B::float_mean_dim(cut, axis)
            };
            parts.push(Tensor::float(d, x.device()));
        }
        x = Tensor::concat(&parts, axis)?;
    }
    Ok(x)
}
