//! Rows of a step, as bytes of its encoding.

use std::borrow::Cow;
use std::ops::Range;

use pomona_store::{Encoding, decode, encode};

use super::bytes::{self, Axis};
use super::prepare::{Step, Tree};
use super::{initialise, sum};
use crate::error::Result;

type Bytes<'a> = Cow<'a, [u8]>;

/// Rows of a step as f32.
pub(super) fn floats(tree: &Tree<'_>, rows: Range<usize>) -> Result<Vec<f32>> {
    let n = rows.len() * tree.row_len();
    match &tree.step {
        // What the sum computes is f32 already.
        Step::WeightedSum { terms } => return sum::rows(terms, rows, tree.row_len()),
        Step::Literal { values } if tree.shape.is_empty() => return Ok(values.to_vec()),
        Step::Literal { values } => {
            let len = tree.row_len();
            return Ok(values.get(rows.start * len..rows.end * len).unwrap_or_default().to_vec());
        }
        Step::Convert { of } if tree.encoding == Encoding::F32 => return floats(of, rows),
        _ => {}
    }
    if !pomona_store::can_decode(tree.encoding) {
        let message = format!("is stored as {}, which can be copied but not decoded", tree.encoding);
        return Err(tree.fault(message));
    }
    let bytes = raw(tree, rows)?;
    let mut out = vec![0.0; n.max(usize::from(tree.shape.is_empty()))];
    decode(tree.encoding, &bytes, &mut out);
    Ok(out)
}

/// Rows of a step as bytes.
pub(super) fn raw<'a>(tree: &Tree<'a>, rows: Range<usize>) -> Result<Bytes<'a>> {
    let all = rows == (0..tree.rows());
    match &tree.step {
        Step::Copy { file, info } => {
            let bytes = file.bytes(info)?;
            if all {
                return Ok(Cow::Borrowed(bytes));
            }
            let n = row_bytes(tree)?;
            Ok(Cow::Borrowed(bytes.get(rows.start * n..rows.end * n).unwrap_or_default()))
        }
        Step::Gather { axis: 0, indices, of } => gather_rows(of, &indices[rows]),
        Step::Gather { axis, indices, of } => {
            let from = raw(of, rows.clone())?;
            let axis = Axis::of(of, *axis, rows.len())?;
            Ok(Cow::Owned(bytes::gather(&from, &axis, indices)))
        }
        Step::Split { axis: 0, start, of } => raw(of, rows.start + start..rows.end + start),
        Step::Split { axis, start, of } => {
            let from = raw(of, rows.clone())?;
            let len = tree.shape[*axis];
            let axis = Axis::of(of, *axis, rows.len())?;
            Ok(Cow::Owned(bytes::split(&from, &axis, *start, len)))
        }
        Step::Concat { axis: 0, of } => {
            let mut out = Vec::new();
            let mut begin = 0;
            for part in of {
                let end = begin + part.rows();
                let (from, to) = (rows.start.max(begin), rows.end.min(end));
                if from < to {
                    out.extend_from_slice(&raw(part, from - begin..to - begin)?);
                }
                begin = end;
            }
            Ok(Cow::Owned(out))
        }
        Step::Concat { axis, of } => {
            let parts = of.iter().map(|p| raw(p, rows.clone())).collect::<Result<Vec<_>>>()?;
            let axes = of.iter().map(|p| Axis::of(p, *axis, rows.len())).collect::<Result<Vec<_>>>()?;
            Ok(Cow::Owned(bytes::concat(&parts, &axes)))
        }
        Step::Transpose { axes, of } => {
            let (from, shape, whole) = match axes.first() {
                Some(0) => {
                    let mut shape = of.shape.clone();
                    shape[0] = rows.len();
                    (raw(of, rows.clone())?, shape, true)
                }
                // Only what becomes these rows: a large matrix is not turned as a whole for a part of it.
                Some(&first) if !all && of.encoding.block_len() == 1 => {
                    let from = raw(of, 0..of.rows())?;
                    let axis = Axis::of(of, first, of.rows())?;
                    let mut shape = of.shape.clone();
                    shape[first] = rows.len();
                    (Cow::Owned(bytes::split(&from, &axis, rows.start, rows.len())), shape, true)
                }
                _ => (raw(of, 0..of.rows())?, of.shape.clone(), all),
            };
            let out = bytes::transpose(&from, &shape, axes, of.encoding);
            Ok(Cow::Owned(if whole { out } else { slice(tree, out, rows)? }))
        }
        Step::Reshape { of } if of.rows() == tree.rows() && !of.shape.is_empty() => raw(of, rows),
        Step::Reshape { of } => {
            let out = raw(of, 0..of.rows())?;
            if all { Ok(out) } else { Ok(Cow::Owned(slice(tree, out.into_owned(), rows)?)) }
        }
        Step::Convert { of } if of.encoding == tree.encoding => raw(of, rows),
        Step::Convert { of } => encoded(tree, &floats(of, rows)?),
        Step::Tile { repeats, of } => {
            let repeats_rows = repeats.first().is_some_and(|r| *r != 1);
            let from = raw(of, if repeats_rows { 0..of.rows() } else { rows.clone() })?;
            let mut shape = of.shape.clone();
            if let (false, Some(first)) = (repeats_rows, shape.first_mut()) {
                *first = rows.len();
            }
            let out = bytes::tile(&from, &shape, repeats, of.encoding);
            Ok(Cow::Owned(if repeats_rows && !all { slice(tree, out, rows)? } else { out }))
        }
        Step::WeightedSum { .. } | Step::Literal { .. } => encoded(tree, &floats(tree, rows)?),
        Step::Initialise { distribution, key } => {
            let len = tree.row_len();
            let range = if tree.shape.is_empty() { 0..1 } else { rows.start * len..rows.end * len };
            Ok(Cow::Owned(initialise::elements(*distribution, key, tree.encoding, range)))
        }
    }
}

fn encoded<'a>(tree: &Tree<'_>, values: &[f32]) -> Result<Bytes<'a>> {
    let mut out = Vec::with_capacity(values.len() * tree.encoding.block_bytes());
    if encode(values, tree.encoding, &mut out) {
        Ok(Cow::Owned(out))
    } else {
        Err(tree.fault(format!("cannot be written as {}: f32, f16 and bf16 are written", tree.encoding)))
    }
}

fn row_bytes(tree: &Tree<'_>) -> Result<usize> {
    tree.row_bytes()
        .ok_or_else(|| tree.fault(format!("cannot be cut into rows: blocks of {} cross them", tree.encoding)))
}

fn slice(tree: &Tree<'_>, whole: Vec<u8>, rows: Range<usize>) -> Result<Vec<u8>> {
    let n = row_bytes(tree)?;
    Ok(whole.get(rows.start * n..rows.end * n).unwrap_or_default().to_vec())
}

/// Chosen rows of a step: those of a source one by one from the map, others from the span that holds them, evaluated once
/// where it is not much larger.
fn gather_rows<'a>(of: &Tree<'a>, indices: &[u32]) -> Result<Bytes<'a>> {
    let n = row_bytes(of)?;
    let bounds = indices.iter().min().zip(indices.iter().max());
    let Some((&low, &high)) = bounds else { return Ok(Cow::Owned(Vec::new())) };
    let (low, high) = (low as usize, high as usize + 1);
    let mut out = Vec::with_capacity(indices.len() * n);
    let mapped = matches!(of.step, Step::Copy { .. });
    if mapped || high - low <= 4 * indices.len() {
        let span = raw(of, low..high)?;
        for (from, len) in runs(indices) {
            let begin = (from - low) * n;
            out.extend_from_slice(&span[begin..begin + len * n]);
        }
    } else {
        for (from, len) in runs(indices) {
            out.extend_from_slice(&raw(of, from..from + len)?);
        }
    }
    Ok(Cow::Owned(out))
}

/// Consecutive indices as (first, how many).
pub(super) fn runs(indices: &[u32]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for &i in indices {
        match out.last_mut() {
            Some((from, len)) if *from + *len == i as usize => *len += 1,
            _ => out.push((i as usize, 1)),
        }
    }
    out
}
