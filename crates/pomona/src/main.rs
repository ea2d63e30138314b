//! Makes trained neural networks small and fast.
fn main() {}
