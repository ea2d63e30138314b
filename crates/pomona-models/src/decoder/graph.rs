//! The graph of a decoder. Node paths and tensor names are those of the transformers library.

use pomona_graph::{Activation, BinaryFn, Dim, Graph, GraphBuilder, Op, Slot, ValueId, ValueType};

use super::{Decoder, Layer, Norm, Order};

type Result<T> = pomona_graph::Result<T>;

impl Decoder {
    /// The graph, every tensor stored as `dtype`.
    pub(crate) fn graph(&self, dtype: &str) -> Result<Graph> {
        let names = self.names;
        let mut b = GraphBuilder::new("model", dtype);
        let (batch, tokens) = (Dim::symbol("batch"), Dim::symbol("tokens"));
        let ids = b.input("input_ids", vec![batch, tokens.clone()], ValueType::Int);
        let positions = b.input("positions", vec![tokens], ValueType::Int);
        b.module(names.model, "Model");
        let mut x = self.embedded(&mut b, ids, positions)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.block(&mut b, &format!("{}.{i}", names.blocks), layer, x, positions)?;
        }
        if self.final_norm {
            x = self.normed(&mut b, names.norm, x)?;
        }
        let logits = self.logits(&mut b, x)?;
        b.output("logits", logits);
        b.finish()
    }

    fn embedded(&self, b: &mut GraphBuilder, ids: ValueId, positions: ValueId) -> Result<ValueId> {
        let names = self.names;
        let at = |name: &str| format!("{}.{name}", names.model);
        let mut x = b.embedding(names.embed, ids, self.vocab, self.embed_width.unwrap_or(self.width))?;
        if self.embed_width.is_some() {
            x = b.linear(names.project_in, x, self.width, false)?;
        }
        if let Some(value) = self.embed_scale {
            x = scalar(b, &at("embed_scale"), BinaryFn::Mul, value, x)?;
        }
        let Some(learned) = self.positions else { return Ok(x) };
        let row = match learned.offset {
            0 => positions,
            n => scalar(b, &at("position_offset"), BinaryFn::Add, n as f64, positions)?,
        };
        let p = b.embedding(names.positions, row, learned.rows, self.width)?;
        b.node(&at("position_sum"), Op::Binary { function: BinaryFn::Add }, &[x, p], &[])
    }

    fn logits(&self, b: &mut GraphBuilder, x: ValueId) -> Result<ValueId> {
        let names = self.names;
        let width = self.embed_width.unwrap_or(self.width);
        let x = match self.embed_width {
            Some(width) => b.linear(names.project_out, x, width, false)?,
            None => x,
        };
        let logits = if self.tied {
            let table = b.parameter(&format!("{}.weight", names.embed), &[self.vocab, width])?;
            b.alias(table, &format!("{}.weight", names.head));
            b.node(names.head, Op::Linear {}, &[x], &[(Slot::Weight, table)])?
        } else {
            b.linear(names.head, x, self.vocab, false)?
        };
        let Some(cap) = self.logit_softcap else { return Ok(logits) };
        let y = scalar(b, "logits_divided", BinaryFn::Div, cap, logits)?;
        let y = b.activation("logits_bounded", Activation::Tanh, y)?;
        scalar(b, "logits_capped", BinaryFn::Mul, cap, y)
    }

    /// The family's norm.
    pub(super) fn normed(&self, b: &mut GraphBuilder, path: &str, x: ValueId) -> Result<ValueId> {
        match self.norm {
            Norm::Layer => b.layer_norm(path, x, self.eps),
            Norm::Rms { offset } => rms_norm(b, path, x, self.eps, offset),
        }
    }

    fn block(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        layer: &Layer,
        x: ValueId,
        positions: ValueId,
    ) -> Result<ValueId> {
        let names = self.names;
        let at = |name: &str| format!("{path}.{name}");
        b.module(path, self.class);
        b.module(&at(names.attention), "Attention");
        if !names.mlp.is_empty() {
            b.module(&at(names.mlp), if self.gated { "GatedMLP" } else { "MLP" });
        }
        if let Order::Parallel { shared } = self.order {
            let h = self.normed(b, &at(names.attention_norm), x)?;
            let attended = self.attention(b, path, layer, h, positions)?;
            let h = if shared { h } else { self.normed(b, &at(names.mlp_norm), x)? };
            let fed = self.feed_forward(b, path, layer, h)?;
            return b.add(&at("residual"), &[x, attended, fed]);
        }
        let before = matches!(self.order, Order::Pre | Order::Both);
        let behind = matches!(self.order, Order::Post | Order::Both);
        let after_join = self.order == Order::AfterJoin;
        let mut h = if before { self.normed(b, &at(names.attention_norm), x)? } else { x };
        h = self.attention(b, path, layer, h, positions)?;
        if behind {
            h = self.normed(b, &at(names.attention_post_norm), h)?;
        }
        let mut x = b.add(&at(&format!("{}_residual", names.attention)), &[x, h])?;
        if after_join {
            x = self.normed(b, &at(names.attention_norm), x)?;
        }
        h = if before { self.normed(b, &at(names.mlp_norm), x)? } else { x };
        h = self.feed_forward(b, path, layer, h)?;
        if behind {
            h = self.normed(b, &at(names.mlp_post_norm), h)?;
        }
        x = b.add(&at("mlp_residual"), &[x, h])?;
        if after_join { self.normed(b, &at(names.mlp_norm), x) } else { Ok(x) }
    }
}

/// `x function value`.
fn scalar(b: &mut GraphBuilder, path: &str, function: BinaryFn, value: f64, x: ValueId) -> Result<ValueId> {
    b.node(path, Op::Scalar { function, value, reversed: false }, &[x], &[])
}

/// RMSNorm over the last axis.
pub(super) fn rms_norm(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    eps: f64,
    offset: f64,
) -> Result<ValueId> {
    let width = match b.shape(x).last() {
        Some(dim) => dim.size(path)?,
        None => 0,
    };
    let weight = b.parameter(&format!("{path}.weight"), &[width])?;
    b.node(path, Op::RmsNorm { eps, offset }, &[x], &[(Slot::Weight, weight)])
}
