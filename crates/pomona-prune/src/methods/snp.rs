//! SNP: Structured Neuron-level Pruning to Preserve Attention Scores (Shim et al., ECCV 2024, arXiv 2404.11630), and heads.
//!
//! Neurons of queries and keys go together, those least along the leading components of the logits first; values and
//! feed-forward neurons go by how like they are to others of their layer; channels of the residual stream by the mean, over
//! the layers that add to it, of those scores divided by their layer's sum. Every head loses the same number, each its own.
//! What goes with what, and the plans, are those of [`crate::methods::filters`].
//!
//! The paper's text and its scoring program are not public. Choices of this program: gamma; the mean over pictures; the sum
//! over the heads of queries that share a key; which layers speak for the stream (patch embedding, attention output, second
//! feed-forward layer); layers of other kinds, scored as feed-forward neurons; and what a head is worth: the mean of its
//! shares of its layer's two scores. `docs/snp.md` names them all.

use std::collections::BTreeMap;

use pomona_graph::{ChannelGroup, ChannelKind, Graph, HeadGroup, NodeId, Op, attention_columns};
use pomona_task::Weights;

use crate::criteria::filters::{AttentionScores, FilterCriterion, Measure, redundancy};
use crate::error::Result;

/// Where the neurons of the attentions are among the groups.
pub(crate) struct Attentions {
    columns: Vec<pomona_graph::AttentionColumns>,
    heads: BTreeMap<String, HeadGroup>,
}

impl Attentions {
    /// Of channel groups, or of heads.
    pub fn new(graph: &Graph, groups: &[ChannelGroup], heads: Vec<HeadGroup>) -> Result<Attentions> {
        Ok(Attentions {
            columns: attention_columns(graph, groups)?,
            heads: heads.into_iter().map(|h| (h.group.name.clone(), h)).collect(),
        })
    }

    /// The measures of a group: one of its logits, one of the redundancy of each layer that makes it.
    pub fn measures(
        &self,
        graph: &Graph,
        (number, group): (usize, &ChannelGroup),
        criterion: FilterCriterion,
        attention: Option<&AttentionScores>,
        weights: &dyn Weights,
    ) -> Result<Vec<Measure>> {
        let (logits, likeness) = match criterion {
            FilterCriterion::Attention => (true, false),
            FilterCriterion::Redundancy => (false, true),
            _ => (true, true),
        };
        let mut out = Vec::new();
        let values = |values| Measure { side: pomona_graph::Side::Makes, values };
        match (group.kind, self.heads.get(&group.name)) {
            (ChannelKind::Heads, Some(heads)) => {
                if let Some(scores) = attention.filter(|_| logits) {
                    out.extend(
                        heads.attentions.iter().map(|id| values(of_heads(graph, *id, group.len, scores))),
                    );
                }
                if likeness {
                    out.extend(redundancy(graph, heads.values.iter(), group.len, weights)?);
                }
            }
            (ChannelKind::QueryKey, _) => {
                if let Some(scores) = attention.filter(|_| logits) {
                    let mine = |c: &&pomona_graph::AttentionColumns| {
                        c.queries.iter().flatten().any(|(g, _)| *g == number)
                    };
                    for attention in self.columns.iter().filter(mine) {
                        let mut sums = vec![0.0; group.len];
                        for (place, worth) in attention.queries.iter().zip(scores.of(attention.node)) {
                            if let Some((_, c)) = place.filter(|(g, _)| *g == number) {
                                sums[c as usize] += worth;
                            }
                        }
                        out.push(values(sums));
                    }
                }
            }
            _ if likeness => {
                let weight = super::filters::weights_of(graph, group);
                out = redundancy(graph, weight, group.len, weights)?;
            }
            _ => {}
        }
        Ok(out)
    }
}

/// The worth of all neurons of each head of keys.
fn of_heads(graph: &Graph, attention: NodeId, heads: usize, scores: &AttentionScores) -> Vec<f64> {
    let worth = scores.of(attention);
    let mut sums = vec![0.0; heads];
    if let Op::Attention(a) = &graph.node(attention).op {
        let per = (worth.len() / a.kv_heads.max(1)).max(1);
        worth.iter().enumerate().for_each(|(i, w)| {
            if let Some(s) = sums.get_mut(i / per) {
                *s += w;
            }
        });
    }
    sums
}
