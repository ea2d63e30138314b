//! A mixture of experts with the operators that are there: every expert runs on every token, and those that the router does
//! not choose are multiplied by zero. Exact, and as slow as all experts together.

use pomona_graph::{BinaryFn, Dim, GraphBuilder, Op, ReduceFn, ValueId};

use super::Decoder;

type Result<T> = pomona_graph::Result<T>;

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Experts {
    pub count: usize,
    /// Experts that a token uses.
    pub used: usize,
    /// Inner width of each.
    pub width: usize,
    /// The weights of the chosen ones are made to sum to one.
    pub normalised: bool,
    /// Inner width of the expert that every token uses, behind a gate of its own.
    pub shared: Option<usize>,
}

impl Decoder {
    pub(super) fn experts(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        e: &Experts,
        x: ValueId,
    ) -> Result<ValueId> {
        let names = self.names;
        let at = |name: &str| format!("{path}.{name}");
        let weights = self.routed(b, path, e, x)?;
        let mut parts = Vec::with_capacity(e.count + 1);
        for i in 0..e.count {
            let expert = format!("{path}.{}.{i}", names.experts);
            b.module(&expert, "Expert");
            let out = self.one_expert(b, &expert, names.expert, e.width, x)?;
            let (start, end) = (Dim::from(i), Dim::from(i + 1));
            let share = b.node(
                &format!("{expert}.share"),
                Op::Slice { axis: 2, start, end, step: 1 },
                &[weights],
                &[],
            )?;
            parts.push(product(b, &format!("{expert}.weighted"), out, share)?);
        }
        if let Some(width) = e.shared {
            let expert = at(names.shared_expert);
            let out = self.one_expert(b, &expert, ["gate_proj", "up_proj", "down_proj"], width, x)?;
            let gate = b.linear(&at(names.shared_gate), x, 1, false)?;
            let gate =
                b.activation(&at("mlp.shared_expert_sigmoid"), pomona_graph::Activation::Sigmoid, gate)?;
            parts.push(product(b, &format!("{expert}.weighted"), out, gate)?);
        }
        match parts.as_slice() {
            [one] => Ok(*one),
            _ => b.add(&format!("{path}.{}_sum", names.experts), &parts),
        }
    }

    fn one_expert(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        names: [&str; 3],
        width: usize,
        x: ValueId,
    ) -> Result<ValueId> {
        let at = |name: &str| format!("{path}.{name}");
        let gate = b.linear(&at(names[0]), x, width, false)?;
        let up = b.linear(&at(names[1]), x, width, false)?;
        let hidden = self.gate(b, &at("act_fn"), &at("gated"), gate, up)?;
        b.linear(&at(names[2]), hidden, self.width, false)
    }

    /// The weight of each expert for each token, zero for those that are not chosen: `[batch, tokens, experts]`.
    fn routed(&self, b: &mut GraphBuilder, path: &str, e: &Experts, x: ValueId) -> Result<ValueId> {
        let at = |name: &str| format!("{path}.{}_{name}", self.names.router);
        let logits = b.linear(&format!("{path}.{}", self.names.router), x, e.count, false)?;
        let all = b.node(&at("softmax"), Op::Softmax { axis: 2, log: false }, &[logits], &[])?;
        let mut chosen = all;
        if e.used < e.count {
            let top = b.node_multi(&at("top"), Op::TopK { k: e.used }, &[all], &[])?[0];
            let (start, end) = (Dim::from(e.used - 1), Dim::from(e.used));
            let least = b.node(&at("least"), Op::Slice { axis: 2, start, end, step: 1 }, &[top], &[])?;
            let is_in = Op::Binary { function: BinaryFn::GreaterEqual };
            let is_in = b.node(&at("chosen"), is_in, &[all, least], &[])?;
            let none = Op::Scalar { function: BinaryFn::Mul, value: 0.0, reversed: false };
            let none = b.node(&at("none"), none, &[all], &[])?;
            chosen = b.node(&at("weights"), Op::Where {}, &[is_in, all, none], &[])?;
        }
        if !e.normalised {
            return Ok(chosen);
        }
        let sum = Op::Reduce { function: ReduceFn::Sum, axes: vec![2], keep: true };
        let sum = b.node(&at("sum"), sum, &[chosen], &[])?;
        b.node(&at("shares"), Op::Binary { function: BinaryFn::Div }, &[chosen, sum], &[])
    }
}

fn product(b: &mut GraphBuilder, path: &str, x: ValueId, y: ValueId) -> Result<ValueId> {
    b.node(path, Op::Binary { function: BinaryFn::Mul }, &[x, y], &[])
}
