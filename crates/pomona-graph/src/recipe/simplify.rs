//! Simplification: what cancels out is removed, so that untouched tensors stay copies.
