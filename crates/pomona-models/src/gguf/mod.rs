//! GGUF: metadata to config and back, names, and the row order of q and k.

mod export;
mod import;
mod metadata;
mod names;
mod rows;


pub(crate) use import::import;

pub(crate) use names::file_name;
