//! The report: what a bound graph costs, as a tree, by operator and in sum. It serialises to the JSON of `inspect --json`.

use serde::{Deserialize, Serialize};

use crate::count::OpCost;

/// Multiply-accumulates in both conventions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macs {
    /// See [`OpCost::macs_full`].
    pub full: u64,
    /// See [`OpCost::macs_thop`].
    pub thop: u64,
}

/// Bytes that move between an operator and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Weights as stored; an embedding reads the rows that it looks up.
    pub weights: u64,
    /// Activations read. An appended state is not read again by the append.
    pub read: u64,
    /// Activations written.
    pub written: u64,
}

impl Traffic {
    /// All of it.
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.read).saturating_add(self.written)
    }
}

/// Cost of one operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorCost {
    /// Path of its node.
    pub path: String,
    /// Its standard name.
    pub operator: String,
    /// Shape of its first output.
    pub output: Vec<u64>,
    /// Elements of its parameters.
    pub parameters: u64,
    /// Multiply-accumulates.
    pub macs: Macs,
    /// Other operations.
    pub other_ops: u64,
    /// Bytes moved.
    pub traffic: Traffic,
    /// Floating-point operations a byte moved: `(2 * macs.full + other_ops) / bytes`; none where nothing moves.
    pub intensity: Option<f64>,
    /// Whether a device has something to launch for it: reshapes, slices and other views take no time.
    pub launched: bool,
}

impl OperatorCost {
    /// `2 * macs.full`.
    pub fn product_flops(&self) -> f64 {
        2.0 * self.macs.full as f64
    }
}

/// Cost of a module with all that is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleCost {
    /// Last part of its path; the component's name at the root.
    pub name: String,
    /// Path; empty at the root.
    pub path: String,
    /// Class name, or the operator's where the module is one operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Parameters, a tied one once in each module that uses it.
    pub parameters: u64,
    /// Bytes of all its tensors as stored, tied ones once.
    pub weight_bytes: u64,
    /// Multiply-accumulates.
    pub macs: Macs,
    /// Other operations.
    pub other_ops: u64,
    /// Parts, in the order of the graph.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ModuleCost>,
}

/// Cost of a part that methods may remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockCost {
    /// Path.
    pub path: String,
    /// Class name, where the importer knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Parameters that no other part uses.
    pub parameters: u64,
    /// Bytes of the tensors that no other part uses.
    pub weight_bytes: u64,
    /// Multiply-accumulates, convention `full`.
    pub macs: u64,
    /// Whether the graph stays sound without it.
    pub removable: bool,
}

/// An operator or tensor without a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncounted {
    /// Path of the node, or name of the tensor.
    pub path: String,
    /// Name of the operator, or the tensor's type.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// The largest sum of activations alive at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peak {
    /// Bytes.
    pub bytes: u64,
    /// Path of the operator that runs then.
    pub at: String,
}

/// Bytes of the state between two runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// What a further token adds (keys and values of the cache).
    pub per_token: u64,
    /// What does not grow.
    pub fixed: u64,
    /// All of it at the bound sizes, before the run.
    pub held: u64,
}

/// Shape of an input that the counts are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputShape {
    /// Name of the port.
    pub name: String,
    /// Its bound shape.
    pub shape: Vec<u64>,
}

/// Cost of a bound graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostReport {
    /// Architecture, as the importer calls it.
    pub architecture: String,
    /// Component of the pipeline.
    pub component: String,
    /// Trained numbers, tied ones once.
    pub parameters: u64,
    /// Multiply-accumulates of one input.
    pub macs: Macs,
    /// Other operations.
    pub other_ops: u64,
    /// Bytes of all tensors as stored.
    pub weight_bytes: u64,
    /// Element type of the activations that the byte counts assume.
    pub activation_dtype: String,
    /// Bytes that move in one run.
    pub traffic: Traffic,
    /// Largest sum of live activations.
    pub peak_activations: Peak,
    /// State between runs.
    pub state_bytes: StateBytes,
    /// What the counts are for.
    pub inputs: Vec<InputShape>,
    /// Parts that methods may remove.
    pub blocks: Vec<BlockCost>,
    /// Operators and tensors that could not be counted: the sums leave them out.
    pub uncounted: Vec<Uncounted>,
    /// The tree of modules.
    pub modules: ModuleCost,
    /// Every operator, in the order in which they run.
    pub operators: Vec<OperatorCost>,
}

impl CostReport {
    /// The triple that plans carry.
    pub fn summary(&self) -> pomona_graph::Cost {
        pomona_graph::Cost {
            parameters: self.parameters,
            macs: self.macs.full,
            weight_bytes: self.weight_bytes,
        }
    }

    /// Indented JSON with a final newline.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl From<OpCost> for Macs {
    fn from(c: OpCost) -> Self {
        Self { full: c.macs_full, thop: c.macs_thop }
    }
}
