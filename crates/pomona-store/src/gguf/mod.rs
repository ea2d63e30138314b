//! GGUF, the format of llama.cpp.

mod cursor;
pub(crate) mod read;
pub(crate) mod split;
mod value;
mod write;

pub use value::GgufValue;
pub use write::GgufWriter;

/// Metadata key of the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";
/// Alignment where that key is missing.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment that is believed.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// Arrays within arrays beyond this are refused: no writer makes them, and recursion must stay bounded.
const MAX_NESTING: usize = 4;
/// Most axes of a ggml tensor.
const MAX_AXES: usize = 4;
/// Longest metadata key, as the specification has it.
const MAX_KEY: usize = 65_535;
