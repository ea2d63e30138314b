//! Annotations of nodes that are cut: a scale an index goes with its index.

use super::links::Axis;
use crate::annotation::{Annotation, QuantTarget};
use crate::graph::Node;
use crate::tensor::Slot;

/// The annotations of a node after a cut. `kept` gives the indices that stay of an axis, none where it is whole.
pub(super) fn cut_notes(
    node: &Node,
    notes: &[Annotation],
    kept: impl Fn(Axis) -> Option<Vec<u32>>,
) -> Result<Vec<Annotation>, String> {
    notes.iter().map(|note| cut_note(node, note, &kept)).collect()
}

fn cut_note(
    node: &Node,
    note: &Annotation,
    kept: &impl Fn(Axis) -> Option<Vec<u32>>,
) -> Result<Annotation, String> {
    let mut note = note.clone();
    let touched = || node.weights.values().any(|t| (0..2).any(|a| kept(Axis::Tensor(*t, a)).is_some()));
    match &mut note {
        Annotation::Precision { .. } => {}
        Annotation::Adapter { .. } if touched() => {
            return Err(format!("`{}` has an adapter of its old width: cut first, then annotate", node.path));
        }
        Annotation::Adapter { .. } => {}
        Annotation::Quantisation { target, axis, block, scales, zero_points, .. } => {
            let along = |a: usize| match target {
                QuantTarget::Weight => node.weights.get(&Slot::Weight).map(|t| Axis::Tensor(*t, a)),
                QuantTarget::Input(i) => node.inputs.get(*i).map(|v| Axis::Value(*v, a)),
                QuantTarget::Output(k) => node.outputs.get(*k).map(|v| Axis::Value(*v, a)),
            };
            if block.is_some() && touched() {
                return Err(format!(
                    "`{}` is quantised in blocks of its old width: cut first, then quantise",
                    node.path
                ));
            }
            if let Some(indices) = axis.and_then(along).and_then(kept)
                && block.is_none()
            {
                let stay = |i: &u32| scales.get(*i as usize).copied();
                let left = indices.iter().filter_map(stay).collect();
                *scales = left;
                let zeros = indices.iter().filter_map(|i| zero_points.get(*i as usize).copied()).collect();
                *zero_points = zeros;
            }
        }
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{GraphBuilder, TensorId, ValueType};

    fn rounded(target: QuantTarget, axis: Option<usize>, block: Option<usize>) -> Annotation {
        Annotation::Quantisation {
            target,
            bits: 8,
            signed: true,
            axis,
            block,
            scales: vec![1.0, 2.0, 3.0],
            zero_points: vec![7, 8, 9],
        }
    }

    #[test]
    fn scales_go_with_their_channels() {
        let mut b = GraphBuilder::new("net", "f32");
        let x = b.input("x", vec![1.into(), 4.into()], ValueType::Float);
        let y = b.linear("fc", x, 3, false).unwrap();
        b.output("y", y);
        let graph = b.finish().unwrap();
        let node = &graph.nodes[0];
        let kept = |a: Axis| (a == Axis::Tensor(TensorId(0), 0)).then(|| vec![0, 2]);
        let scales = |note: &Annotation| match cut_note(node, note, &kept) {
            Ok(Annotation::Quantisation { scales, zero_points, .. }) => Some((scales, zero_points)),
            _ => None,
        };
        let all = (vec![1.0, 2.0, 3.0], vec![7, 8, 9]);
        assert_eq!(scales(&rounded(QuantTarget::Weight, Some(0), None)), Some((vec![1.0, 3.0], vec![7, 9])));
        assert_eq!(scales(&rounded(QuantTarget::Weight, Some(1), None)), Some(all.clone()));
        assert_eq!(scales(&rounded(QuantTarget::Weight, None, None)), Some(all.clone()));
        assert_eq!(scales(&rounded(QuantTarget::Input(0), Some(1), None)), Some(all));
        assert_eq!(scales(&rounded(QuantTarget::Weight, Some(1), Some(2))), None);
        let adapter = Annotation::Adapter { rank: 2, alpha: 4.0, dropout: 0.0 };
        assert!(cut_note(node, &adapter, &kept).is_err());
    }
}
