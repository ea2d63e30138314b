//! The toys that the edits are tried on.

use crate::*;

pub fn llama(layers: usize) -> Graph {
    toys::llama(layers).unwrap()
}

pub fn unet() -> Graph {
    toys::unet(&toys::UnetSizes::default()).unwrap()
}
