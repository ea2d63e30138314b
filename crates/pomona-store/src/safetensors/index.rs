//! The index of a sharded checkpoint, `*.safetensors.index.json`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::error::{Result, format_error, io_error, tensor_error};

/// An index of a sharded checkpoint is a few megabytes at most.
const MAX_INDEX: u64 = 256 << 20;

#[derive(serde::Deserialize)]
struct Index {
    weight_map: WeightMap,
}

struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        d.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
        let (mut seen, mut out) = (HashSet::new(), Vec::new());
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if !seen.insert(tensor.clone()) {
                return Err(A::Error::custom(format!("`{tensor}` stands twice")));
            }
            out.push((tensor, file));
        }
        Ok(WeightMap(out))
    }
}

/// The shards that an index names, in order, with the tensors that each must hold.
pub(crate) fn read_index(path: &Path) -> Result<BTreeMap<PathBuf, BTreeSet<String>>> {
    let size = std::fs::metadata(path).map_err(io_error(path, "cannot be read"))?.len();
    if size > MAX_INDEX {
        return Err(format_error(
            path,
            format!("has {size} bytes; an index of at most {MAX_INDEX} was expected"),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(io_error(path, "cannot be read"))?;
    let index: Index =
        serde_json::from_str(&text).map_err(|e| format_error(path, format!("not a shard index: {e}")))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut shards: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map.0 {
        // Links inside the directory may point anywhere (hub caches are made of them); names may not.
        let plain = Path::new(&file).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || file.is_empty() {
            let message = format!("is said to be in `{file}`, which is not inside the directory");
            return Err(tensor_error(path, &tensor, message));
        }
        shards.entry(folder.join(&file)).or_default().insert(tensor);
    }
    for (shard, tensors) in &shards {
        if !shard.is_file() {
            let tensor = tensors.first().map_or("", String::as_str);
            let message =
                format!("is said to be in {}, which is missing: fetch the whole checkpoint", shard.display());
            return Err(tensor_error(path, tensor, message));
        }
    }
    if shards.is_empty() {
        return Err(format_error(path, "names no tensors"));
    }
    Ok(shards)
}
