//! Files that want to hurt, byte by byte. The attack tests beside this folder read them in the process, `pomona/tests/attacks.rs`
//! through the program, and the fuzz targets begin with them.
#![allow(dead_code, reason = "each test uses its part")]

pub mod gguf;
pub mod onnx;
pub mod safetensors;
pub mod torch;

/// A file by what it tries.
#[derive(Clone)]
pub struct Attack {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Part of the refusal.
    pub part: &'static str,
}

pub fn attacks<const N: usize>(cases: [(&str, Vec<u8>, &'static str); N]) -> Vec<Attack> {
    cases.into_iter().map(|(name, bytes, part)| Attack { name: name.to_owned(), bytes, part }).collect()
}
