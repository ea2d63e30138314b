//! Methods: one file a paper.

pub mod depth;
