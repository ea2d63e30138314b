//! Linear layers whose weights are as a file holds them, 16-bit floats or blocks of bytes with a scale: widened where they are
//! packed or multiplied: as a whole, as panels that go again, only for products that are taller than wide.

use super::gemm::{Operand, Product, Start, turn_rows};
use super::linear::{FEW_ROWS, few_rows};
use super::math::dot_widened;
use super::simd::{Simd, simd};
use super::uninit;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarrowKind {
    /// The upper half of a 32-bit float.
    Bf16,
    /// IEEE half precision.
    F16,
    /// GGUF's: 32 signed bytes behind a factor in half precision.
    Q8_0,
}

/// Elements of a block of [`NarrowKind::Q8_0`], and its bytes.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 34;

impl NarrowKind {
    /// Bytes of a row of so many elements; none where rows would not be of whole blocks.
    pub fn row_bytes(self, width: usize) -> Option<usize> {
        match self {
            NarrowKind::Bf16 | NarrowKind::F16 => width.checked_mul(2),
            NarrowKind::Q8_0 if width.is_multiple_of(BLOCK) => (width / BLOCK).checked_mul(BLOCK_BYTES),
            NarrowKind::Q8_0 => None,
        }
    }
}

/// A tensor as it is stored, little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Narrow<'a> {
    /// What the elements are.
    pub kind: NarrowKind,
    /// See [`NarrowKind::row_bytes`].
    pub bytes: &'a [u8],
}

fn wide_bf16(b: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
}

fn wide_f16(b: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(b).to_f32()
}

/// Elements that are widened at a time.
const PIECE: usize = 64;

impl Narrow<'_> {
    /// The first element (of blocks, the first factor) that is infinite or no number, if one is.
    pub fn not_finite(&self) -> Option<f32> {
        let (exponent, wide): (u16, fn([u8; 2]) -> f32) = match self.kind {
            NarrowKind::Bf16 => (0x7F80, wide_bf16),
            NarrowKind::F16 | NarrowKind::Q8_0 => (0x7C00, wide_f16),
        };
        let bad = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent == exponent;
        let found = match self.kind {
            NarrowKind::Q8_0 => {
                self.bytes.as_chunks::<BLOCK_BYTES>().0.iter().map(|b| [b[0], b[1]]).find(|b| bad(b))
            }
            _ => self.bytes.as_chunks::<2>().0.iter().copied().find(|b| bad(b)),
        };
        found.map(wide)
    }

    /// Elements `first ..` as floats, as many as `out` holds.
    #[inline(always)]
    fn widen<S: Simd>(&self, first: usize, out: &mut [f32]) {
        match self.kind {
            NarrowKind::Bf16 => {
                let bytes = &self.bytes[2 * first..2 * (first + out.len())];
                bytes.as_chunks::<2>().0.iter().zip(out).for_each(|(b, out)| *out = wide_bf16(*b));
            }
            NarrowKind::F16 => {
                let bytes = self.bytes[2 * first..2 * (first + out.len())].as_chunks::<2>().0;
                for (b, out) in bytes.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                    if b.len() == S::LANES {
                        // SAFETY: whoever chose `S` found the set; both sides have `LANES` elements.
                        unsafe { S::store(out.as_mut_ptr(), S::load_f16(b.as_ptr().cast())) };
                    } else {
                        b.iter().zip(out).for_each(|(b, out)| *out = wide_f16(*b));
                    }
                }
            }
            NarrowKind::Q8_0 => {
                let (mut at, mut rest) = (first, out);
                while !rest.is_empty() {
                    let block = &self.bytes[at / BLOCK * BLOCK_BYTES..][..BLOCK_BYTES];
                    let own = &block[2 + at % BLOCK..];
                    let (now, later) = rest.split_at_mut(own.len().min(rest.len()));
                    // SAFETY: whoever chose `S` found the set.
                    let factor = unsafe { S::half(u16::from_le_bytes([block[0], block[1]])) };
                    if now.len() == BLOCK {
                        for i in (0..BLOCK).step_by(S::LANES) {
                            // SAFETY: as above; both sides have a whole block.
                            unsafe {
                                let v = S::fma(S::splat(factor), S::load_i8(own.as_ptr().add(i)), S::zero());
                                S::store(now.as_mut_ptr().add(i), v);
                            }
                        }
                    } else {
                        now.iter_mut().zip(own).for_each(|(out, q)| *out = factor * f32::from(*q as i8));
                    }
                    at += now.len();
                    rest = later;
                }
            }
        }
    }

    /// Product of a row, whose bytes these are, with one of floats.
    ///
    /// # Safety
    /// Whoever chose `S` found the set; the bytes are those of a row of as many elements as `x` has.
    #[inline(always)]
    unsafe fn dot<S: Simd>(&self, x: &[f32]) -> f32 {
        let bytes = self.bytes;
        let two = |i: usize| [bytes[2 * i], bytes[2 * i + 1]];
        // SAFETY: as the caller vouches; every register lies within the row, whose blocks are whole.
        unsafe {
            match self.kind {
                NarrowKind::Bf16 => {
                    dot_widened::<S>(x, |i| S::load_bf16(bytes.as_ptr().add(2 * i)), |i| wide_bf16(two(i)))
                }
                NarrowKind::F16 => {
                    dot_widened::<S>(x, |i| S::load_f16(bytes.as_ptr().add(2 * i)), |i| wide_f16(two(i)))
                }
                NarrowKind::Q8_0 => {
                    let load = |i: usize| {
                        let block = bytes.as_ptr().add(i / BLOCK * BLOCK_BYTES);
                        let factor = S::splat(S::half(u16::from_le_bytes(block.cast::<[u8; 2]>().read())));
                        S::fma(factor, S::load_i8(block.add(2 + i % BLOCK)), S::zero())
                    };
                    dot_widened::<S>(x, load, |_| 0.0)
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
                self.narrow.widen::<S>((first + l) * self.width + depth.start + done, &mut wide[..count]);
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
    let row = weight.kind.row_bytes(width).unwrap_or(0);
    let out = weight.bytes.len().checked_div(row).unwrap_or(0);
    let mut y = uninit(rows * out);
    if (1..=FEW_ROWS).contains(&rows) && width > 0 {
        few_rows(x, bias, (rows, width, out), &mut y, |x, own, y| {
            let bytes = &weight.bytes[own.start * row..own.end * row];
            dots(x, Narrow { kind: weight.kind, bytes }, y);
        });
        return y;
    }
    let start = bias.map_or(Start::Zero, Start::Column);
    let (a, b) = (super::gemm::Matrix::rows(x, width), Rows { narrow: weight, width });
    Product { rows, columns: out, depth: width, a: &a, b: &b, row_stride: out, column: |j| j, start }
        .run(&mut y);
    y
}

simd! {
    /// Products of one row with rows of the weight.
    fn dots<S>(x: &[f32], weight: Narrow<'_>, y: &mut [f32]) {
        let row = weight.kind.row_bytes(x.len()).unwrap_or(0).max(1);
        for (y, bytes) in y.iter_mut().zip(weight.bytes.chunks_exact(row)) {
            // SAFETY: whoever chose `S` found the set; a row's bytes are those of as many elements as `x` has.
            *y = unsafe { Narrow { kind: weight.kind, bytes }.dot::<S>(x) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, with};
    use super::super::tests::noise;
    use super::{Narrow, NarrowKind};

    /// Bytes of some values, and what they stand for.
    fn stored(kind: NarrowKind, w: &[f32]) -> (Vec<u8>, Vec<f32>) {
        match kind {
            NarrowKind::Bf16 => {
                let made = w.iter().map(|v| half::bf16::from_f32(*v));
                made.map(|h| (h.to_le_bytes(), h.to_f32())).fold(Default::default(), joined)
            }
            NarrowKind::F16 => {
                let made = w.iter().map(|v| half::f16::from_f32(*v));
                made.map(|h| (h.to_le_bytes(), h.to_f32())).fold(Default::default(), joined)
            }
            NarrowKind::Q8_0 => {
                let mut out: (Vec<u8>, Vec<f32>) = Default::default();
                for block in w.chunks_exact(32) {
                    let most = block.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                    let factor = half::f16::from_f32(most / 127.0);
                    out.0.extend(factor.to_le_bytes());
                    for v in block {
                        let q = (v / factor.to_f32()).round() as i8;
                        out.0.push(q as u8);
                        out.1.push(factor.to_f32() * f32::from(q));
                    }
                }
                out
            }
        }
    }

    fn joined(mut all: (Vec<u8>, Vec<f32>), (bytes, value): ([u8; 2], f32)) -> (Vec<u8>, Vec<f32>) {
        all.0.extend(bytes);
        all.1.push(value);
        all
    }

    #[test]
    fn what_is_not_finite_is_found() {
        for kind in [NarrowKind::Bf16, NarrowKind::F16, NarrowKind::Q8_0] {
            let (mut bytes, _) = stored(kind, &noise(1, 96));
            assert_eq!(Narrow { kind, bytes: &bytes }.not_finite(), None);
            // A block's factor, or an element.
            bytes[34..36].copy_from_slice(&[0xFF, 0xFF]);
            assert!(Narrow { kind, bytes: &bytes }.not_finite().is_some_and(f32::is_nan), "{kind:?}");
        }
        // Bytes that are all ones are a number like any other.
        let bytes = [&[0, 0x3C][..], &[0xFF; 32]].concat();
        assert_eq!(Narrow { kind: NarrowKind::Q8_0, bytes: &bytes }.not_finite(), None);
    }

    #[test]
    fn narrow_weights_give_what_their_widened_ones_give() {
        for (rows, width, out) in [
            (1, 33, 70),
            (3, 200, 129),
            (9, 65, 41),
            (70, 300, 90),
            (5, 0, 3),
            (0, 4, 3),
            (2, 352, 67),
            (65, 352, 67),
            (1, 32, 5),
        ] {
            let (x, w, bias) = (noise(1, rows * width), noise(2, out * width), noise(3, out));
            for kind in [NarrowKind::Bf16, NarrowKind::F16, NarrowKind::Q8_0] {
                let Some(row) = kind.row_bytes(width) else { continue };
                let (bytes, widened) = stored(kind, &w);
                assert_eq!(bytes.len(), row * out);
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
