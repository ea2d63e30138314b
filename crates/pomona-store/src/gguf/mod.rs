//! GGUF, the format of llama.cpp.

pub(crate) mod read;
mod value;
mod write;

pub use value::GgufValue;
pub use write::GgufWriter;
