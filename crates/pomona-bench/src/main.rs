//! Races between Pomona and its peers.
fn main() {}
