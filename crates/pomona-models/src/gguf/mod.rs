//! GGUF: metadata to config and back, names, and the row order of q and k.

mod export;
mod import;
mod layout;
mod metadata;
mod names;
mod rows;

pub(crate) use export::{metadata, refusals, rope_divisors};
pub(crate) use import::{ROPE_FREQS, cut_graph, import};
pub(crate) use layout::{EXACT_GELUS, GELUS, Layout};
pub(crate) use names::file_name;
pub(crate) use rows::{from_pairs, to_pairs};
