//! ONNX files: the computation as data, tensors as ranges of the map or of files beside it, and the streaming writer.

mod proto;
mod read;
mod tensors;
mod wire;
mod write;

pub use proto::{
    OnnxAttribute, OnnxData, OnnxDim, OnnxFunction, OnnxGraph, OnnxModel, OnnxNode, OnnxPort, OnnxTensor,
    OnnxValue, element,
};
pub use write::{OnnxWriter, small_tensor};

use std::path::Path;

use crate::error::{Result, format_error};

/// Parses an ONNX file.
///
/// # Errors
/// Where the bytes are no ONNX model; the message names the file and the place.
pub(crate) fn parse(path: &Path, data: &[u8]) -> Result<OnnxModel> {
    read::model(data).map_err(|e| format_error(path, e))
}

pub(crate) use tensors::{Found, find};
