//! Linear layers whose weights are 16-bit floats as a file holds them: widened where they are packed, never as a whole.

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::gemm::{Operand, Product, Start, turn_rows};
use super::linear::{FEW_ROWS, row_dot};
use super::simd::Simd;
use super::{Shared, uninit};

/// A 16-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarrowKind {
    /// The upper half of a 32-bit float.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// A tensor of 16-bit floats, little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Narrow<'a> {
    /// What the elements are.
    pub kind: NarrowKind,
    /// Two bytes an element.
    pub bytes: &'a [u8],
}

/// Elements that are widened at a time.
const PIECE: usize = 64;

impl Narrow<'_> {
    /// The first element that is infinite or no number, if one is.
    pub fn not_finite(&self) -> Option<f32> {
        let (exponent, wide): (u16, fn(u16) -> f32) = match self.kind {
            NarrowKind::Bf16 => (0x7F80, |b| half::bf16::from_bits(b).to_f32()),
            NarrowKind::F16 => (0x7C00, |b| half::f16::from_bits(b).to_f32()),
        };
        let mut bits = self.bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        bits.find(|b| b & exponent == exponent).map(wide)
    }

    /// Elements `first ..` as floats, as many as `out` holds.
    #[inline(always)]
    fn widen(&self, first: usize, out: &mut [f32]) {
        let bytes = &self.bytes[2 * first..2 * (first + out.len())];
        match self.kind {
            NarrowKind::Bf16 => {
                for (b, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                }
            }
            NarrowKind::F16 => {
                for (b, out) in bytes.chunks(2 * PIECE).zip(out.chunks_mut(PIECE)) {
                    let mut halves = [half::f16::ZERO; PIECE];
                    for (b, h) in b.as_chunks::<2>().0.iter().zip(&mut halves) {
                        *h = half::f16::from_le_bytes(*b);
                    }
                    halves[..out.len()].convert_to_f32_slice(out);
                }
            }
        }
    }
}

/// Rows of `width` as lanes.
struct Rows<'a> {
    narrow: Narrow<'a>,
    width: usize,
}

impl Operand for Rows<'_> {
    #[inline(always)]
    fn pack<S: Simd, const W: usize>(
        &self,
        first: usize,
        n: usize,
        depth: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let mut wide = [[0.0_f32; PIECE]; W];
        let mut done = 0;
        while done < depth.len() {
            let count = PIECE.min(depth.len() - done);
            for (l, wide) in wide.iter_mut().enumerate().take(n) {
                self.narrow.widen((first + l) * self.width + depth.start + done, &mut wide[..count]);
            }
            turn_rows::<S, W>(wide.as_flattened(), PIECE, n, count, &mut out[done * W..]);
            done += count;
        }
    }
}

/// `x @ weight.T + bias` for `x` `[rows, width]` and the weight `[out, width]`: to the bit what [`super::linear`] gives for the
/// widened weight.
pub(crate) fn linear_narrow(
    x: &[f32],
    weight: Narrow<'_>,
    bias: Option<&[f32]>,
    rows: usize,
    width: usize,
) -> Vec<f32> {
    let out = (weight.bytes.len() / 2).checked_div(width).unwrap_or(0);
    let mut y = uninit(rows * out);
    if (1..=FEW_ROWS).contains(&rows) && width > 0 {
        few_rows(x, weight, bias, (rows, width, out), &mut y);
        return y;
    }
    let start = bias.map_or(Start::Zero, Start::Column);
    let (a, b) = (super::gemm::Matrix::rows(x, width), Rows { narrow: weight, width });
    Product { rows, columns: out, depth: width, a: &a, b: &b, row_stride: out, column: |j| j, start }
        .run(&mut y);
    y
}

/// A few rows of `x`: each of the weight's is widened once for all of them.
fn few_rows(
    x: &[f32],
    weight: Narrow<'_>,
    bias: Option<&[f32]>,
    (rows, width, out): (usize, usize, usize),
    y: &mut [f32],
) {
    /// Outputs of a task.
    const OUTPUTS: usize = 64;
    let shared = Shared::new(y);
    assert!(shared.len() >= rows * out, "a result for every row and output");
    (0..out.div_ceil(OUTPUTS)).into_par_iter().for_each_init(
        || vec![0.0; width],
        |wide, t| {
            for o in t * OUTPUTS..((t + 1) * OUTPUTS).min(out) {
                weight.widen(o * width, wide);
                for (r, x) in x.chunks_exact(width).take(rows).enumerate() {
                    let sum = row_dot(x, wide) + bias.map_or(0.0, |b| b[o]);
                    // SAFETY: within the result, and this output of the row is this task's alone.
                    unsafe { *shared.at(r * out + o) = sum };
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, with};
    use super::super::tests::noise;
    use super::{Narrow, NarrowKind};

    #[test]
    fn narrow_weights_give_what_their_widened_ones_give() {
        for (rows, width, out) in
            [(1, 33, 70), (3, 200, 129), (9, 65, 41), (70, 300, 90), (5, 0, 3), (0, 4, 3)]
        {
            let (x, w, bias) = (noise(1, rows * width), noise(2, out * width), noise(3, out));
            for kind in [NarrowKind::Bf16, NarrowKind::F16] {
                let bits = |v: f32| match kind {
                    NarrowKind::Bf16 => half::bf16::from_f32(v).to_bits(),
                    NarrowKind::F16 => half::f16::from_f32(v).to_bits(),
                };
                let wide = |v: f32| match kind {
                    NarrowKind::Bf16 => half::bf16::from_f32(v).to_f32(),
                    NarrowKind::F16 => half::f16::from_f32(v).to_f32(),
                };
                let bytes: Vec<u8> = w.iter().flat_map(|v| bits(*v).to_le_bytes()).collect();
                let widened: Vec<f32> = w.iter().map(|v| wide(*v)).collect();
                for level in Level::all() {
                    let narrow = Narrow { kind, bytes: &bytes };
                    let run = || super::linear_narrow(&x, narrow, Some(&bias), rows, width);
                    let one = with(level, 1, run);
                    assert_eq!(one, with(level, 3, run), "{level:?}");
                    let want =
                        with(level, 1, || super::super::linear(&x, &widened, Some(&bias), rows, width));
                    assert_eq!(one, want, "{level:?} {kind:?} {rows}x{width}x{out}");
                }
            }
        }
    }
}
