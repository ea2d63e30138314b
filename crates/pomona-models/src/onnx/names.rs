//! Paths of nodes: module paths as PyTorch has them, wherever a file's names tell them.

use std::collections::HashSet;

use pomona_store::onnx::OnnxNode;

/// Paths that are taken.
#[derive(Debug, Default)]
pub(super) struct Names {
    used: HashSet<String>,
}

impl Names {
    /// The path of a node, and marks it as taken. A weighted node has its module's path: from its weight's name
    /// (`layer.0.conv.weight`), or from its own (`/layer.0/conv/Conv`).
    pub(super) fn path(&mut self, node: &OnnxNode, weight: Option<&str>) -> String {
        let (name, op) = (node.name.as_str(), node.op.as_str());
        let output = node.outputs.first().map_or("", String::as_str);
        let own = if name.is_empty() { output } else { name };
        let stem = weight.and_then(|w| w.strip_suffix(".weight").or_else(|| w.strip_suffix("/weight")));
        // The module that PyTorch's exporter names: the scope before the node's own.
        if let [.., module, _] = node.scopes.as_slice()
            && !module.is_empty()
            && stem.is_none_or(|s| s.contains("::"))
        {
            let module = tidy(module);
            let wanted = if weight.is_some() { module } else { format!("{module}.{}", tidy(own)) };
            return self.unique(&wanted);
        }
        let wanted = match stem {
            Some(stem) if !stem.contains("::") => tidy(stem),
            _ => {
                let path = tidy(own);
                match path.rsplit_once('.') {
                    Some((module, last)) if weight.is_some() && is_op(last, op) => module.to_owned(),
                    _ => path,
                }
            }
        };
        self.unique(&wanted)
    }

    /// A free path.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        let wanted = if wanted.is_empty() { "node" } else { wanted };
        let mut path = wanted.to_owned();
        let mut n = 1;
        while !self.used.insert(path.clone()) {
            n += 1;
            path = format!("{wanted}_{n}");
        }
        path
    }

    /// A name as a module path, without taking it.
    pub(super) fn module(&self, name: &str) -> String {
        tidy(name)
    }
}

/// `/a/b/c` as `a.b.c`; colons, which plans use for output numbers, go, and so do the slices of lists of modules that
/// exporters name (`layers.slice(1, None, None).3` is `layers.3`).
pub(super) fn tidy(name: &str) -> String {
    let mut name = name.to_owned();
    while let Some(start) = name.find(".slice(") {
        let Some(len) = name[start..].find(')') else { break };
        name.replace_range(start..=start + len, "");
    }
    let plain = name.trim_matches('/').replace("::", "_").replace([':', '@', ' '], "_");
    plain.split('/').filter(|p| !p.is_empty()).collect::<Vec<_>>().join(".")
}

/// `Conv`, `Conv_3`, `MatMul`, or the names TensorFlow gives them.
fn is_op(last: &str, op: &str) -> bool {
    let rest = last.strip_prefix(op).or_else(|| last.strip_prefix("Conv2D"));
    rest.is_some_and(|r| r.is_empty() || r.starts_with('_'))
}
