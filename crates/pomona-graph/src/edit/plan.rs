//! Plans: versioned JSON that a person can read, change, keep in git and apply elsewhere.

use serde::{Deserialize, Serialize};

use super::Edit;

/// Version of the plan format that this crate writes and reads.
pub const PLAN_VERSION: u32 = 1;

/// A list of edits with what they were made for and what they are predicted to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The program that made it, with its version.
    pub tool: String,
    /// Fingerprint of the model that it was made for.
    pub fingerprint: String,
    /// The component that it edits, where a pipeline has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Method (`depth`, ...).
    pub method: String,
    /// Criterion that ranked the parts, where the method has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criterion: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Paths of the removed parts, least important first: for people; `edits` is what counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Predicted cost of the model as it is.
    pub before: Cost,
    /// Predicted cost with the edits.
    pub after: Cost,
    /// The edits, applied in order.
    pub edits: Vec<Edit>,
}

/// What a plan was asked to reach, as an upper bound, and what it reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// As given: `params=80%`, `blocks=6`.
    pub asked: String,
    /// The same measure after the edits, in the target's own unit.
    pub reached: String,
}

/// Cost of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Parameters, tied ones once.
    pub parameters: u64,
    /// Multiply-accumulates of one default input, convention `full`.
    pub macs: u64,
    /// Bytes of the weights as stored.
    pub weight_bytes: u64,
}

impl Plan {
    /// Reads a plan; the version is checked before anything else.
    pub fn from_json(text: &str) -> crate::Result<Plan> {
        let refuse = |e: serde_json::Error| crate::GraphError::Plan(format!("not a plan: {e}"));
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(refuse)?;
        if head.version != PLAN_VERSION {
            return Err(crate::GraphError::Plan(format!(
                "version {} of the format; this program reads version {PLAN_VERSION}: make the plan again",
                head.version
            )));
        }
        serde_json::from_str(text).map_err(refuse)
    }

    /// The plan as indented JSON with a final newline.
    pub fn to_json(&self) -> crate::Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| crate::GraphError::Plan(e.to_string()))?;
        Ok(text + "\n")
    }
}
