//! GGUF: metadata to config and back, names, and the row order of q and k.

mod export;
mod import;
mod layout;
mod metadata;
mod names;
mod refusals;
mod rows;

pub(crate) use export::{metadata, rope_divisors};
pub(crate) use import::{ROPE_FREQS, cut_graph, import};
pub(crate) use layout::{Bias, EXACT_GELUS, GELUS, Layout};
pub(crate) use names::file_name;
pub(crate) use refusals::refusals;
pub(crate) use rows::RowOrder;
