//! What identifies a model: config, names, types, shapes, and a little of each tensor. Never the whole file.

use blake3::Hasher;
use pomona_graph::{GraphError, Plan};
use serde_json::Value;

use crate::error::Result;
use crate::model::{Component, Model};

/// Bytes that are read from either end of a tensor.
const EDGE: usize = 4096;
/// Prefix of fingerprints that know shapes only.
const SHAPES: &str = "shapes:";
const WHOLE: &str = "blake3:";
/// Keys of a config that say how it was saved, not what the model is.
const INCIDENTAL: &[&str] = &["transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache"];

impl Component {
    /// `blake3:` and a hash of config, tensor names, types, shapes, and the first and last 4 KiB of each tensor; of a bare
    /// config, [`Component::shape_fingerprint`].
    ///
    /// # Errors
    /// Where a tensor's bytes lie outside its file.
    pub fn fingerprint(&self) -> Result<String> {
        let Some(file) = &self.checkpoint else { return Ok(self.shape_fingerprint()) };
        let mut hash = Hasher::new();
        put(&mut hash, self.shape_fingerprint().as_bytes());
        let mut tensors: Vec<_> = file.tensors().iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for t in tensors {
            put(&mut hash, t.name.as_bytes());
            put(&mut hash, t.encoding.name().as_bytes());
            put_shape(&mut hash, &t.shape);
            let bytes = file.bytes(t)?;
            let edge = bytes.len().min(EDGE);
            put(&mut hash, &bytes[..edge]);
            put(&mut hash, &bytes[bytes.len() - edge..]);
        }
        Ok(format!("{WHOLE}{}", hash.finalize().to_hex()))
    }

    /// `shapes:` and a hash of config, tensor names and shapes: equal for a bare config, for every checkpoint of it, and
    /// for the same network in a pipeline.
    pub fn shape_fingerprint(&self) -> String {
        let mut hash = Hasher::new();
        put(&mut hash, sorted(&self.config, true).to_string().as_bytes());
        put(&mut hash, b"model");
        let mut tensors: Vec<_> = self.graph.tensors.iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for t in tensors {
            put(&mut hash, t.name.as_bytes());
            put_shape(&mut hash, &t.shape);
        }
        format!("{SHAPES}{}", hash.finalize().to_hex())
    }

    /// Whether a fingerprint (of a plan, a file of scores) is this network's. One made from a bare config fits every
    /// checkpoint with that config, those names and shapes.
    ///
    /// # Errors
    /// As [`Component::fingerprint`].
    pub fn matches(&self, fingerprint: &str) -> Result<bool> {
        match fingerprint.starts_with(SHAPES) {
            true => Ok(self.shape_fingerprint() == fingerprint),
            false => Ok(self.checkpoint.is_some() && self.fingerprint()? == fingerprint),
        }
    }
}

impl Model {
    /// The only component's fingerprint; of a pipeline, a hash of its components'.
    ///
    /// # Errors
    /// As [`Component::fingerprint`].
    pub fn fingerprint(&self) -> Result<String> {
        if let [one] = self.components.as_slice() {
            return one.fingerprint();
        }
        let mut hash = Hasher::new();
        for c in &self.components {
            put(&mut hash, c.name.as_bytes());
            put(&mut hash, c.fingerprint()?.as_bytes());
        }
        Ok(format!("{WHOLE}{}", hash.finalize().to_hex()))
    }

    /// Whether a fingerprint (of a plan, a file of scores) is that of the only component; see [`Component::matches`].
    ///
    /// # Errors
    /// As [`Component::fingerprint`], and where there are several components.
    pub fn matches(&self, fingerprint: &str) -> Result<bool> {
        self.only()?.matches(fingerprint)
    }

    /// The component that a plan is for. A plan for a named component also fits the same network alone.
    ///
    /// # Errors
    /// [`GraphError::Plan`] with both fingerprints where it was made for another model; where a pipeline has no component
    /// of that name.
    pub fn planned(&self, plan: &Plan) -> Result<&Component> {
        let component = match self.components.as_slice() {
            [one] => one,
            _ => self.component(plan.component.as_deref())?,
        };
        if component.matches(&plan.fingerprint)? {
            return Ok(component);
        }
        let ours = component.fingerprint()?;
        let message = format!(
            "was made for a model with fingerprint {}; {} has {ours}: make a plan for this model",
            plan.fingerprint,
            component.path.display()
        );
        Err(GraphError::Plan(message).into())
    }

    /// Refuses a plan that was made for another model.
    ///
    /// # Errors
    /// As [`Model::planned`].
    pub fn check_plan(&self, plan: &Plan) -> Result<()> {
        self.planned(plan).map(|_| ())
    }
}

/// Length first, so that no two sequences of parts hash alike.
fn put(hash: &mut Hasher, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn put_shape(hash: &mut Hasher, shape: &[usize]) {
    hash.update(&(shape.len() as u64).to_le_bytes());
    for d in shape {
        hash.update(&(*d as u64).to_le_bytes());
    }
}

/// Keys in order, incidental ones of the outermost object left out.
fn sorted(value: &Value, outermost: bool) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> =
                map.keys().filter(|k| !(outermost && INCIDENTAL.contains(&k.as_str()))).collect();
            keys.sort_unstable();
            keys.into_iter().map(|k| (k.clone(), sorted(&map[k], false))).collect()
        }
        Value::Array(items) => items.iter().map(|v| sorted(v, false)).collect(),
        other => other.clone(),
    }
}
