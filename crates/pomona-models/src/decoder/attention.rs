//! Attention of a decoder: q, k and v, their norms and rotation, caches, and the way out.

use pomona_graph::{
    AttentionAttrs, Dim, GraphBuilder, Op, RopeAttrs, RopePairing, SplitMap, ValueId, ValueType,
};

use super::graph::rms_norm;
use super::{Decoder, Layer, Norm, QkNorm, Qkv};

type Result<T> = pomona_graph::Result<T>;

impl Decoder {
    pub(super) fn attention(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        layer: &Layer,
        x: ValueId,
        positions: ValueId,
    ) -> Result<ValueId> {
        let names = self.names;
        let at = |name: &str| format!("{path}.{}.{name}", names.attention);
        let kv = layer.kv_heads * self.head_dim;
        let [q, k, v] = self.projected(b, path, layer, x)?;
        let q = self.head_norm(b, path, ("q", names.q_norm), layer.heads, q)?;
        let k = self.head_norm(b, path, ("k", names.k_norm), layer.kv_heads, k)?;
        let (mut q, mut k) = (q, k);
        if let Some(rope) = &layer.rope {
            let turn = |heads| {
                Op::Rope(RopeAttrs {
                    heads,
                    rotary: rope.rotary,
                    theta: rope.theta,
                    pairing: RopePairing::Halves,
                    scaling: rope.scaling.clone(),
                })
            };
            q = b.node(&at("q_rope"), turn(layer.heads), &[q, positions], &[])?;
            k = b.node(&at("k_rope"), turn(layer.kv_heads), &[k, positions], &[])?;
        }
        let mut cached = Vec::with_capacity(2);
        for (node, state, new) in [("k_cache", "key_cache", k), ("v_cache", "value_cache", v)] {
            let shape = vec![Dim::symbol("batch"), Dim::symbol("past"), kv.into()];
            let old = b.state(&at(state), shape, ValueType::Float, 0.0);
            let all = b.node(&at(node), Op::Concat { axis: 1 }, &[old, new], &[])?;
            b.set_state(&at(state), all)?;
            cached.push(all);
        }
        let attrs = AttentionAttrs {
            heads: layer.heads,
            kv_heads: layer.kv_heads,
            scale: layer.scale,
            causal: true,
            window: layer.window,
            softcap: self.softcap,
        };
        let a = b.node(&at("attention"), Op::Attention(attrs), &[q, cached[0], cached[1]], &[])?;
        b.linear(&format!("{path}.{}", names.out), a, self.width, self.out_bias)
    }

    fn projected(&self, b: &mut GraphBuilder, path: &str, layer: &Layer, x: ValueId) -> Result<[ValueId; 3]> {
        let names = self.names;
        let at = |name: &str| format!("{path}.{name}");
        let d = self.head_dim;
        let (q, kv) = (layer.heads * d, layer.kv_heads * d);
        if self.qkv == Qkv::Apart {
            return Ok([
                b.linear(&at(names.q), x, q, self.qkv_bias)?,
                b.linear(&at(names.k), x, kv, self.qkv_bias)?,
                b.linear(&at(names.v), x, kv, self.qkv_bias)?,
            ]);
        }
        let all = b.linear(&at(names.qkv), x, q + 2 * kv, self.qkv_bias)?;
        let map = match self.qkv {
            Qkv::ByHead => SplitMap::Interleaved {
                groups: layer.kv_heads,
                sizes: vec![(q / layer.kv_heads.max(1)).into(), d.into(), d.into()],
            },
            _ => SplitMap::Parts { sizes: vec![q.into(), kv.into(), kv.into()] },
        };
        let split = format!("{path}.{}.qkv_split", names.attention);
        let parts = b.node_multi(&split, Op::Split { axis: 2, map }, &[all], &[])?;
        Ok([parts[0], parts[1], parts[2]])
    }

    /// The norm of q or k; `what` is its short name and its module in a block.
    fn head_norm(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        what: (&str, &str),
        heads: usize,
        x: ValueId,
    ) -> Result<ValueId> {
        let offset = match self.norm {
            Norm::Rms { offset } => offset,
            Norm::Layer => 0.0,
        };
        let norm = format!("{path}.{}", what.1);
        match self.qk_norm {
            QkNorm::None => Ok(x),
            QkNorm::Whole => rms_norm(b, &norm, x, self.eps, offset),
            QkNorm::Head => {
                let flat = b.shape(x).to_vec();
                let mut split = flat[..2].to_vec();
                split.extend([heads.into(), self.head_dim.into()]);
                let at = |kind: &str| format!("{path}.{}.{}_{kind}", self.names.attention, what.0);
                let x = b.node(&at("heads"), Op::Reshape { shape: split }, &[x], &[])?;
                let x = rms_norm(b, &norm, x, self.eps, offset)?;
                b.node(&at("flat"), Op::Reshape { shape: flat }, &[x], &[])
            }
        }
    }
}
