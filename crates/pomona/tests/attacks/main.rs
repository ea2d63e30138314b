//! Files that want to hurt, through the program: each ends with exit 1 or 2 and a sentence that names the file, within a bound on
//! memory and time, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod bound;
#[path = "../common/mod.rs"]
mod common;
mod configs;
mod ggufs;
#[path = "../../../pomona-store/tests/hostile/mod.rs"]
mod hostile;
mod jsons;
mod onnx;
mod pickles;
mod safetensors;
mod weights;
