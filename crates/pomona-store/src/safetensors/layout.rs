//! Which tensor goes into which shard, and where in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::header::{MAX_HEADER, METADATA};
use crate::error::{Result, format_error, tensor_error};
use crate::output::{PlannedFile, TensorSpec};

/// Data begins at a multiple of this, so that every number is aligned in a map.
const DATA_ALIGNMENT: usize = 64;

/// Bytes of each tensor, after checking that safetensors can hold it.
pub(super) fn sizes(path: &Path, specs: &[TensorSpec]) -> Result<Vec<u64>> {
    let mut names = HashSet::new();
    let mut sizes = Vec::with_capacity(specs.len());
    for s in specs {
        let bad = |message: String| tensor_error(path, &s.name, message);
        if s.name.is_empty() || s.name == METADATA {
            return Err(bad("is not a name that safetensors allows: rename the tensor".to_owned()));
        }
        if !names.insert(s.name.as_str()) {
            return Err(bad("would stand twice: each name is written once".to_owned()));
        }
        if s.encoding.safetensors_name().is_none() {
            return Err(bad(format!("is {}, which safetensors does not have: decode it", s.encoding)));
        }
        sizes.push(s.encoding.bytes_for(&s.shape).map_err(bad)?);
    }
    Ok(sizes)
}

/// Files in the order of the list; a new one begins before `shard_size` would be passed.
pub(super) fn shards(
    path: &Path,
    base: &str,
    specs: &[TensorSpec],
    sizes: &[u64],
    shard_size: u64,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<PlannedFile>> {
    let mut cuts = vec![0];
    let mut filled = 0_u64;
    for (i, size) in sizes.iter().enumerate() {
        if filled > 0 && filled.saturating_add(*size) > shard_size {
            cuts.push(i);
            filled = 0;
        }
        filled = filled.saturating_add(*size);
    }
    cuts.push(specs.len());
    let count = cuts.len() - 1;
    let shards = cuts.windows(2).enumerate().map(|(k, cut)| {
        let name = match count {
            1 => format!("{base}.safetensors"),
            _ => format!("{base}-{:05}-of-{count:05}.safetensors", k + 1),
        };
        shard(path, name, specs, sizes, cut[0]..cut[1], metadata)
    });
    shards.collect()
}

fn shard(
    path: &Path,
    name: String,
    specs: &[TensorSpec],
    sizes: &[u64],
    tensors: Range<usize>,
    metadata: &BTreeMap<String, String>,
) -> Result<PlannedFile> {
    let too_large =
        || format_error(&path.join(&name), "would be larger than a file can be: choose a smaller shard size");
    let mut order: Vec<usize> = tensors.clone().collect();
    let mut offsets = place(&order, sizes).ok_or_else(too_large)?;
    // Files hold no gaps, so numbers of different widths may end up unaligned; wide ones first keeps them aligned.
    let unaligned = |(i, at): (&usize, &u64)| at % specs[*i].encoding.alignment() != 0;
    if order.iter().zip(&offsets).any(unaligned) {
        order.sort_by_key(|i| Reverse(specs[*i].encoding.alignment()));
        offsets = place(&order, sizes).ok_or_else(too_large)?;
    }
    let mut map = Map::new();
    if !metadata.is_empty() {
        map.insert(METADATA.to_owned(), json!(metadata));
    }
    for (&i, &at) in order.iter().zip(&offsets) {
        let s = &specs[i];
        let dtype = s.encoding.safetensors_name().unwrap_or_default();
        map.insert(
            s.name.clone(),
            json!({"dtype": dtype, "shape": s.shape, "data_offsets": [at, at + sizes[i]]}),
        );
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    let padded = (text.len() + 8).next_multiple_of(DATA_ALIGNMENT) - 8;
    text.resize(padded, b' ');
    if text.len() as u64 > MAX_HEADER {
        let message = format!(
            "its header would take {} bytes, readers take {MAX_HEADER}: choose a smaller shard size",
            text.len()
        );
        return Err(format_error(&path.join(&name), message));
    }
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    let data = header.len() as u64;
    let mut places = vec![data; tensors.len()];
    let mut total = data;
    for (&i, &at) in order.iter().zip(&offsets) {
        places[i - tensors.start] = data + at;
        total = total.max(data + at + sizes[i]);
    }
    Ok(PlannedFile { name, header, tensors, places, leads: Vec::new(), total })
}

/// Offsets of tensors one behind the other; none where the end does not fit a file.
fn place(order: &[usize], sizes: &[u64]) -> Option<Vec<u64>> {
    let mut at = 0_u64;
    let mut offsets = Vec::with_capacity(order.len());
    for &i in order {
        offsets.push(at);
        // Room is left for the header, whose size is bounded.
        at = at.checked_add(sizes[i]).filter(|n| *n <= i64::MAX as u64 - 2 * MAX_HEADER)?;
    }
    Some(offsets)
}
