//! The JSON header of a safetensors file. Parsed here and not by the `safetensors` crate, because that crate lets a
//! name stand twice (the last wins), adds sizes with wrap-around in release builds, and reports neither what was
//! expected nor what was found.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// The largest header that stock readers take.
pub(super) const MAX_HEADER: u64 = 100_000_000;
/// Key of the header's own entry.
pub(super) const METADATA: &str = "__metadata__";
/// Most axes of a tensor: far beyond any framework, and it bounds what a message prints.
const MAX_AXES: usize = 32;

/// One tensor as the header states it, unchecked.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub dtype: String,
    #[serde(deserialize_with = "shape")]
    pub shape: Vec<usize>,
    pub data_offsets: (u64, u64),
}

/// A header: its metadata, and its tensors in header order.
#[derive(Default)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<(String, Entry)>,
}

fn shape<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<usize>, D::Error> {
    let shape = Vec::<usize>::deserialize(d)?;
    if shape.len() > MAX_AXES {
        return Err(D::Error::custom(format!(
            "a shape has {} axes; at most {MAX_AXES} are read",
            shape.len()
        )));
    }
    Ok(shape)
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("`{name}` stands twice")));
            }
            if name == METADATA {
                header.metadata = map.next_value::<Option<BTreeMap<String, String>>>()?.unwrap_or_default();
            } else {
                let entry =
                    map.next_value().map_err(|e| A::Error::custom(format!("tensor `{name}`: {e}")))?;
                header.tensors.push((name, entry));
            }
        }
        Ok(header)
    }
}
