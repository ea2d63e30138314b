//! What can be wrong with a count or a device.

use std::path::PathBuf;

/// An error of this crate. Messages name the node, tensor, device or file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// A value still has a symbolic size.
    #[error(
        "value {value} of `{node}` has shape {shape}, which is not bound: give its symbols a size (`--input name=value`)"
    )]
    Unbound {
        /// Path of the node that makes or reads it, or the port's name.
        node: String,
        /// Index of the value.
        value: u32,
        /// The shape.
        shape: String,
    },
    /// The graph refuses.
    #[error(transparent)]
    Graph(#[from] pomona_graph::GraphError),
    /// No such device.
    #[error("no device `{name}`: known are {known}; or give the path of a device's JSON file")]
    UnknownDevice {
        /// What was asked for.
        name: String,
        /// Names of the known ones.
        known: String,
    },
    /// A device that cannot compute in the type asked for.
    #[error(
        "device `{device}` has no rate for {dtype} (it has {known}): quantise the model first, or choose another device"
    )]
    NoRate {
        /// Name of the device.
        device: String,
        /// The element type of the arithmetic.
        dtype: String,
        /// The types that it has.
        known: String,
    },
    /// A device row with impossible numbers.
    #[error("device `{device}`: {message}")]
    BadDevice {
        /// Name of the device.
        device: String,
        /// What is wrong and what was expected.
        message: String,
    },
    /// A device file that is not one.
    #[error("{path}: not a device file: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CostError>;
