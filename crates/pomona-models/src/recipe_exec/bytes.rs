//! Rearranging elements as bytes. A step's last axis is measured in blocks of its encoding, so that quantised rows move too.

use std::borrow::Cow;

use pomona_store::Encoding;

use super::prepare::Tree;
use crate::error::Result;

/// An axis of a row-major array: `outer` runs of `len` pieces of `piece` bytes.
pub(super) struct Axis {
    outer: usize,
    len: usize,
    piece: usize,
}

impl Axis {
    /// An axis of a step's first `rows` rows.
    pub(super) fn of(tree: &Tree<'_>, axis: usize, rows: usize) -> Result<Axis> {
        let inner: usize = tree.shape[axis + 1..].iter().product();
        let outer = rows * tree.shape[1..axis].iter().product::<usize>();
        let (block, bytes) = (tree.encoding.block_len(), tree.encoding.block_bytes());
        if !inner.is_multiple_of(block) {
            let message = format!("axis {axis} of {:?} crosses blocks of {}", tree.shape, tree.encoding);
            return Err(tree.fault(message));
        }
        Ok(Axis { outer, len: tree.shape[axis], piece: inner / block * bytes })
    }
}

pub(super) fn gather(from: &[u8], axis: &Axis, indices: &[u32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(axis.outer * indices.len() * axis.piece);
    for o in 0..axis.outer {
        for &i in indices {
            let at = (o * axis.len + i as usize) * axis.piece;
            out.extend_from_slice(&from[at..at + axis.piece]);
        }
    }
    out
}

pub(super) fn split(from: &[u8], axis: &Axis, start: usize, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(axis.outer * len * axis.piece);
    for o in 0..axis.outer {
        let at = (o * axis.len + start) * axis.piece;
        out.extend_from_slice(&from[at..at + len * axis.piece]);
    }
    out
}

pub(super) fn concat(parts: &[Cow<'_, [u8]>], axes: &[Axis]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    for o in 0..axes.first().map_or(0, |a| a.outer) {
        for (part, axis) in parts.iter().zip(axes) {
            let n = axis.len * axis.piece;
            out.extend_from_slice(&part[o * n..(o + 1) * n]);
        }
    }
    out
}

/// The shape in pieces that move as one, and the bytes of a piece: blocks along the last axis.
fn pieces(shape: &[usize], encoding: Encoding) -> (Vec<usize>, usize) {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last /= encoding.block_len();
    }
    (shape, encoding.block_bytes())
}

pub(super) fn transpose(from: &[u8], shape: &[usize], axes: &[usize], encoding: Encoding) -> Vec<u8> {
    let (shape, mut piece) = pieces(shape, encoding);
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    // Trailing axes that stay where they are move as one piece.
    let mut moving = axes.len();
    while moving > 0 && axes[moving - 1] == moving - 1 {
        moving -= 1;
        piece *= shape[moving];
    }
    let unit = strides.get(moving.wrapping_sub(1)).copied().unwrap_or(1).max(1);
    let sizes: Vec<usize> = axes[..moving].iter().map(|a| shape[*a]).collect();
    let steps: Vec<usize> = axes[..moving].iter().map(|a| strides[*a] / unit * piece).collect();
    let mut out = Vec::with_capacity(from.len());
    let total: usize = sizes.iter().product();
    let mut index = vec![0; moving];
    let mut at = 0;
    for _ in 0..total {
        out.extend_from_slice(&from[at..at + piece]);
        for d in (0..moving).rev() {
            index[d] += 1;
            at += steps[d];
            if index[d] < sizes[d] {
                break;
            }
            at -= steps[d] * sizes[d];
            index[d] = 0;
        }
    }
    out
}

pub(super) fn tile(from: &[u8], shape: &[usize], repeats: &[usize], encoding: Encoding) -> Vec<u8> {
    let (mut shape, piece) = pieces(shape, encoding);
    let mut out = from.to_vec();
    for axis in (0..shape.len()).rev() {
        let run = shape[axis..].iter().product::<usize>() * piece;
        if run > 0 && repeats[axis] != 1 {
            let mut next = Vec::with_capacity(out.len() * repeats[axis]);
            for part in out.chunks(run) {
                for _ in 0..repeats[axis] {
                    next.extend_from_slice(part);
                }
            }
            out = next;
        }
        shape[axis] *= repeats[axis];
    }
    out
}
