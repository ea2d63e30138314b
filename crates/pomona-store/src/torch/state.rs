//! The tensors of an unpickled object, by name.

use std::path::Path;

use super::value::{Heap, Object, Value, View};
use crate::error::{Result, format_error};

/// Keys under which training loops put the state dict, beside optimisers and counters; the average of weights first.
const WRAPPERS: [&str; 8] =
    ["params_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "params", "net", "network"];
/// Dictionaries within each other.
const MAX_DEPTH: usize = 32;
/// Entries that are looked at, in all: shared dictionaries must not multiply.
const MAX_ENTRIES: usize = 1 << 20;
/// Names that tensors may have, in all: some for any file, and some for each tensor that stands in the pickle.
const FREE_NAMES: usize = 1024;
const NAMES_PER_TENSOR: usize = 4;
/// Bytes of all names.
const MAX_NAME_BYTES: usize = 32 << 20;
/// Bytes of a name.
const MAX_NAME: usize = 4096;

/// The state dict's tensors in its order. Nested dictionaries and lists join their keys with dots; other values are left
/// out.
pub(super) fn tensors<'a>(path: &Path, heap: &Heap<'a>, root: Value<'a>) -> Result<Vec<(String, View<'a>)>> {
    let tensors = heap.objects().filter(|o| matches!(o, Object::Tensor(_))).count();
    let names = FREE_NAMES + NAMES_PER_TENSOR * tensors;
    let mut walk = Walk { heap, left: MAX_ENTRIES, names, name_bytes: 0, found: Vec::new() };
    let inner = walk.unwrap(root);
    let name = if matches!(heap.get(inner), Some(Object::Tensor(_))) { "tensor" } else { "" };
    walk.visit(name.to_owned(), inner, 0).map_err(|m| format_error(path, m))?;
    if walk.found.is_empty() {
        let message = format!(
            "holds {} without tensors: give a file that torch.save made of a state dict",
            heap.kind(root)
        );
        return Err(format_error(path, message));
    }
    Ok(walk.found)
}

struct Walk<'a, 'h> {
    heap: &'h Heap<'a>,
    left: usize,
    /// Names that tensors may have in all.
    names: usize,
    /// Bytes of the names found so far.
    name_bytes: usize,
    found: Vec<(String, View<'a>)>,
}

impl<'a> Walk<'a, '_> {
    /// The dictionary inside the wrappers around it. One that holds tensors itself is none.
    fn unwrap(&self, root: Value<'a>) -> Value<'a> {
        let mut at = root;
        for _ in 0..MAX_DEPTH {
            let Some(entries) = self.heap.entries(at) else { break };
            if entries.iter().any(|(_, v)| matches!(self.heap.get(*v), Some(Object::Tensor(_)))) {
                break;
            }
            let holder = |v: Value<'a>| {
                let inside = self.heap.entries(v)?;
                (!inside.is_empty()).then_some(v)
            };
            let under = |key: &str| {
                let last = entries.iter().rev().find(|(k, _)| *k == Value::Text(key))?;
                holder(last.1)
            };
            let mut others = entries.iter().filter_map(|(_, v)| holder(*v));
            let only = others.next().filter(|_| others.next().is_none());
            match WRAPPERS.iter().find_map(|key| under(key)).or(only) {
                Some(inner) => at = inner,
                None => break,
            }
        }
        at
    }

    fn find(&mut self, name: String, view: &View<'a>) -> std::result::Result<(), String> {
        if name.is_empty() {
            return Err("a tensor has no name".to_owned());
        }
        self.name_bytes += name.len();
        if self.found.len() >= self.names || self.name_bytes > MAX_NAME_BYTES {
            return Err(format!(
                "gives its tensors more names than are read: {} names or {MAX_NAME_BYTES} bytes of names",
                self.names
            ));
        }
        self.found.push((name, view.clone()));
        Ok(())
    }

    fn visit(&mut self, name: String, value: Value<'a>, depth: usize) -> std::result::Result<(), String> {
        self.left = self.left.checked_sub(1).ok_or_else(|| format!("has more than {MAX_ENTRIES} entries"))?;
        let Some(object) = self.heap.get(value) else { return Ok(()) };
        if depth > MAX_DEPTH {
            return Err(format!("`{name}` lies under more than {MAX_DEPTH} dictionaries"));
        }
        match object {
            Object::Tensor(view) => self.find(name, view)?,
            Object::Dict(entries) => {
                for (key, value) in entries {
                    let key = match key {
                        Value::Text(t) => (*t).to_owned(),
                        Value::Int(i) => i.to_string(),
                        _ => continue,
                    };
                    self.visit(join(&name, &key)?, *value, depth + 1)?;
                }
            }
            Object::List(items) | Object::Tuple(items) => {
                for (i, value) in items.iter().enumerate() {
                    self.visit(join(&name, &i.to_string())?, *value, depth + 1)?;
                }
            }
            Object::Storage(_) => {}
        }
        Ok(())
    }
}

fn join(name: &str, key: &str) -> std::result::Result<String, String> {
    if name.len() + key.len() > MAX_NAME {
        return Err(format!("has a name of more than {MAX_NAME} bytes"));
    }
    Ok(if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") })
}
