//! The feed-forward part of a decoder's block.

use pomona_graph::{BinaryFn, GraphBuilder, Op, SplitMap, ValueId};

use super::{Decoder, Layer};

type Result<T> = pomona_graph::Result<T>;

impl Decoder {
    pub(super) fn feed_forward(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        layer: &Layer,
        x: ValueId,
    ) -> Result<ValueId> {
        if let Some(experts) = &layer.experts {
            return self.experts(b, path, experts, x);
        }
        let names = self.names;
        let at = |name: &str| format!("{path}.{name}");
        let n = layer.feed_forward;
        let hidden = if !self.gated {
            let up = b.linear(&at(names.up), x, n, self.mlp_bias)?;
            b.activation(&at(names.activation), self.activation, up)?
        } else if self.gate_up_fused {
            let both = b.linear(&at(names.gate_up), x, 2 * n, self.mlp_bias)?;
            let map = SplitMap::Parts { sizes: vec![n.into(), n.into()] };
            let parts = b.node_multi(&at("mlp.gate_up_split"), Op::Split { axis: 2, map }, &[both], &[])?;
            self.gate(b, &at(names.activation), &at("mlp.gated"), parts[0], parts[1])?
        } else {
            let gate = b.linear(&at(names.gate), x, n, self.mlp_bias)?;
            let up = b.linear(&at(names.up), x, n, self.mlp_bias)?;
            self.gate(b, &at(names.activation), &at("mlp.gated"), gate, up)?
        };
        b.linear(&at(names.down), hidden, self.width, self.mlp_bias)
    }

    /// `act(gate) * up`.
    pub(super) fn gate(
        &self,
        b: &mut GraphBuilder,
        act: &str,
        product: &str,
        gate: ValueId,
        up: ValueId,
    ) -> Result<ValueId> {
        let gate = b.activation(act, self.activation, gate)?;
        b.node(product, Op::Binary { function: BinaryFn::Mul }, &[gate, up], &[])
    }
}
