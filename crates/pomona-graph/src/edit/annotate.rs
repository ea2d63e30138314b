//! `annotate`: a node gets a precision, a quantisation or an adapter.

use super::work::Work;
use crate::annotation::Annotation;

pub(super) fn annotate(work: &mut Work, node: &str, annotation: &Annotation) -> Result<(), String> {
    if work.graph.find_node(node).is_none() {
        return Err(work.missing_node(node, "node"));
    }
    let list = work.graph.annotations.entry(node.to_owned()).or_default();
    // The same thing said anew replaces what was said before.
    let same = |a: &Annotation| match (a, annotation) {
        (Annotation::Precision { .. }, Annotation::Precision { .. })
        | (Annotation::Adapter { .. }, Annotation::Adapter { .. }) => true,
        (Annotation::Quantisation { target: a, .. }, Annotation::Quantisation { target: b, .. }) => a == b,
        _ => false,
    };
    list.retain(|a| !same(a));
    list.push(annotation.clone());
    Ok(())
}
