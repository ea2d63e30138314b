//! Runs graphs on Burn, forward and backward.
