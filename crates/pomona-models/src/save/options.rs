//! How a model is saved, and what was saved.

use std::path::PathBuf;

use pomona_graph::Plan;
use pomona_store::Encoding;

/// Format of an output directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// A transformers directory where it can hold the model, else ONNX where it came as ONNX, else as `Pomona`.
    #[default]
    Auto,
    /// A directory that transformers loads.
    Hf,
    /// `model.gguf`, which llama.cpp loads.
    Gguf,
    /// `model.onnx`, which ONNX Runtime loads; above 2 GB with its weights in a file beside it.
    Onnx,
    /// safetensors under the original names and `pomona.json`: holds every graph.
    Pomona,
}

impl OutputFormat {
    /// The name on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            OutputFormat::Auto => "auto",
            OutputFormat::Hf => "hf",
            OutputFormat::Gguf => "gguf",
            OutputFormat::Onnx => "onnx",
            OutputFormat::Pomona => "pomona",
        }
    }
}

/// How a model is saved.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// The format.
    pub format: OutputFormat,
    /// Floating-point tensors are written in this type (f32, f16 or bf16). None: as the source stores them; quantised ones
    /// stay in GGUF and become f32 in safetensors.
    pub dtype: Option<Encoding>,
    /// Most bytes of a safetensors file, and of the weights that stand in an ONNX file itself.
    pub shard_size: u64,
    /// Operator set of an ONNX file, 17 to 22. None: the oldest of them that holds the graph.
    pub opset: Option<u32>,
    /// An existing output is replaced, atomically.
    pub force: bool,
    /// Tensors that the graph does not read ([`Model::left_over`](crate::Model::left_over)) are left out instead of refused.
    pub drop_unused: bool,
    /// The plan that made the edited graph, recorded in the output's lineage and card.
    pub plan: Option<Plan>,
    /// The training that made the weights, recorded in the output's manifest and card.
    pub training: Option<serde_json::Value>,
    /// Measurements for the card.
    pub figures: Vec<Figure>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            format: OutputFormat::Auto,
            dtype: None,
            shard_size: 5_000_000_000,
            opset: None,
            force: false,
            drop_unused: false,
            plan: None,
            training: None,
            figures: Vec::new(),
        }
    }
}

/// A row of the card's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What was measured, with its unit.
    pub name: String,
    /// Of the source.
    pub before: String,
    /// Of the output.
    pub after: String,
}

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedReport {
    /// The output directory.
    pub path: PathBuf,
    /// Its format, never `Auto`.
    pub format: OutputFormat,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// What the output lacks, a sentence each.
    pub notes: Vec<String>,
}
