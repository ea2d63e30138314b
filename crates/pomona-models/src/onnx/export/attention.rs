//! Attention and rotary embedding on flat heads.

use pomona_graph::{AttentionAttrs, RopeAttrs, RopePairing};

use super::{Emit, Node, Writer, int};

/// Logits of keys that a query does not see.
const UNSEEN: f64 = -1e30;

impl Writer<'_> {
    /// `[b, n, heads * d]` as `[b, heads, n, d]`.
    fn split_heads(&mut self, x: &str, heads: usize, name: &str) -> String {
        let y = self.reshaped(x, &[0, 0, heads as i64, -1], &format!("{name}.heads"));
        self.transposed(&y, &[0, 2, 1, 3], &format!("{name}.by_head"))
    }

    pub(super) fn attention(&mut self, node: &Node, a: &AttentionAttrs) -> Emit<()> {
        let p = node.path.as_str();
        let (q, k, v) = (self.input(node, 0)?, self.input(node, 1)?, self.input(node, 2)?);
        let share = a.heads / a.kv_heads.max(1);
        let q = self.split_heads(&q, a.heads, &format!("{p}.q"));
        let mut keys = self.split_heads(&k, a.kv_heads, &format!("{p}.k"));
        let mut values = self.split_heads(&v, a.kv_heads, &format!("{p}.v"));
        if share > 1 {
            keys = self.repeated(&keys, a, &format!("{p}.k"));
            values = self.repeated(&values, a, &format!("{p}.v"));
        }
        let keys = self.transposed(&keys, &[0, 1, 3, 2], &format!("{p}.k.transposed"));
        let scale = self.scalar(a.scale);
        let q = self.emit("Mul", &[&q, &scale], &format!("{p}.q.scaled"), vec![]);
        let mut logits = self.emit("MatMul", &[&q, &keys], &format!("{p}.logits"), vec![]);
        if let Some(cap) = a.softcap.filter(|c| *c > 0.0) {
            let cap = self.scalar(cap);
            let y = self.emit("Div", &[&logits, &cap], &format!("{p}.ratio"), vec![]);
            let y = self.emit("Tanh", &[&y], &format!("{p}.tanh"), vec![]);
            logits = self.emit("Mul", &[&y, &cap], &format!("{p}.capped"), vec![]);
        }
        if a.causal || a.window.is_some() {
            let mask = self.causal_mask(node, a)?;
            let unseen = self.scalar(UNSEEN);
            logits = self.emit("Where", &[&mask, &logits, &unseen], &format!("{p}.seen"), vec![]);
        }
        if node.inputs.len() > 3 {
            let mask = self.input(node, 3)?;
            logits = self.emit("Add", &[&logits, &mask], &format!("{p}.masked"), vec![]);
        }
        let weights = self.emit("Softmax", &[&logits], &format!("{p}.weights"), vec![int("axis", -1)]);
        let y = self.emit("MatMul", &[&weights, &values], &format!("{p}.mixed"), vec![]);
        let y = self.transposed(&y, &[0, 2, 1, 3], &format!("{p}.by_token"));
        let shape = self.i64s(&[0, 0, -1]);
        self.finish(node, "Reshape", &[&y, &shape], vec![]);
        Ok(())
    }

    /// Each key head for all query heads that read it.
    fn repeated(&mut self, x: &str, a: &AttentionAttrs, name: &str) -> String {
        let share = a.heads / a.kv_heads.max(1);
        let axis = self.i64s(&[2]);
        let y = self.emit("Unsqueeze", &[x, &axis], &format!("{name}.single"), vec![]);
        let target = self.i64s(&[1, 1, share as i64, 1, 1]);
        let y = self.emit("Expand", &[&y, &target], &format!("{name}.shared"), vec![]);
        // Keys and heads of known number: the length is what is left.
        let y5 = self.transposed(&y, &[0, 3, 1, 2, 4], &format!("{name}.by_token"));
        let y4 = self.reshaped(&y5, &[0, 0, a.heads as i64, -1], &format!("{name}.repeated"));
        self.transposed(&y4, &[0, 2, 1, 3], &format!("{name}.all"))
    }

    /// Which keys a query sees, `[n, m]`: those up to its own place, counted from the end.
    fn causal_mask(&mut self, node: &Node, a: &AttentionAttrs) -> Emit<String> {
        let (n, m) = (&self.shape(node.inputs[0])[1], &self.shape(node.inputs[1])[1]);
        let key = format!("mask {n} {m} {} {:?}", a.causal, a.window);
        if let Some(known) = self.constants.get(&key) {
            return Ok(known.clone());
        }
        let near = &node.inputs;
        let (n, m) = (self.size(n, near)?, self.size(m, near)?);
        let empty = self.i64s(&[0]);
        let count = |w: &mut Self, size: &str, name: &str| {
            let end = w.emit("Squeeze", &[size, &empty], &format!("{name}.count"), vec![]);
            let (zero, one) = (w.i64_scalar(0), w.i64_scalar(1));
            w.emit("Range", &[&zero, &end, &one], name, vec![])
        };
        let rows = count(self, &n, "mask.queries");
        let columns = count(self, &m, "mask.keys");
        let ahead = self.emit("Sub", &[&m, &n], "mask.past", vec![]);
        let rows = self.emit("Add", &[&rows, &ahead], "mask.places", vec![]);
        let axis = self.i64s(&[1]);
        let rows = self.emit("Unsqueeze", &[&rows, &axis], "mask.column", vec![]);
        let mut mask = self.emit("LessOrEqual", &[&columns, &rows], "mask.causal", vec![]);
        if let Some(window) = a.window.filter(|w| *w > 0) {
            let width = self.i64s(&[window as i64]);
            let first = self.emit("Sub", &[&rows, &width], "mask.first", vec![]);
            let near = self.emit("Greater", &[&columns, &first], "mask.near", vec![]);
            mask = self.emit("And", &[&mask, &near], "mask.window", vec![]);
        }
        self.constants.insert(key, mask.clone());
        Ok(mask)
    }

    pub(super) fn rope(&mut self, node: &Node, a: &RopeAttrs) -> Emit<()> {
        let p = node.path.as_str();
        let (x, positions) = (self.input(node, 0)?, self.input(node, 1)?);
        let half = a.rotary / 2;
        let (cos, sin) = self.rotation(&positions, node, a);
        let x4 = self.reshaped(&x, &[0, 0, a.heads as i64, -1], &format!("{p}.heads"));
        let width = self.shape(node.inputs[0])[2].size(p).map_err(|e| e.to_string())? / a.heads.max(1);
        let (turning, rest) = if width == a.rotary {
            (x4, None)
        } else {
            let parts = self.split(&x4, 3, &[a.rotary, width - a.rotary], &format!("{p}.parts"));
            (parts[0].clone(), Some(parts[1].clone()))
        };
        let turned = match a.pairing {
            RopePairing::Halves => {
                let h = self.split(&turning, 3, &[half, half], &format!("{p}.halves"));
                let (first, second) = self.turn(&h[0], &h[1], &cos, &sin, p);
                self.emit("Concat", &[&first, &second], &format!("{p}.turned"), vec![int("axis", 3)])
            }
            RopePairing::Interleaved => {
                let pairs =
                    self.reshaped(&turning, &[0, 0, a.heads as i64, half as i64, 2], &format!("{p}.pairs"));
                let h = self.split(&pairs, 4, &[1, 1], &format!("{p}.halves"));
                let four = [0, 0, a.heads as i64, half as i64];
                let u = self.reshaped(&h[0], &four, &format!("{p}.even"));
                let v = self.reshaped(&h[1], &four, &format!("{p}.odd"));
                let (first, second) = self.turn(&u, &v, &cos, &sin, p);
                let five = [0, 0, a.heads as i64, half as i64, 1];
                let first = self.reshaped(&first, &five, &format!("{p}.first"));
                let second = self.reshaped(&second, &five, &format!("{p}.second"));
                let y = self.emit("Concat", &[&first, &second], &format!("{p}.joined"), vec![int("axis", 4)]);
                self.reshaped(&y, &[0, 0, a.heads as i64, -1], &format!("{p}.turned"))
            }
        };
        let whole = match rest {
            Some(rest) => self.emit("Concat", &[&turned, &rest], &format!("{p}.whole"), vec![int("axis", 3)]),
            None => turned,
        };
        let shape = self.i64s(&[0, 0, -1]);
        self.finish(node, "Reshape", &[&whole, &shape], vec![]);
        Ok(())
    }

    fn turn(&mut self, u: &str, v: &str, cos: &str, sin: &str, p: &str) -> (String, String) {
        let mut product =
            |a: &str, b: &str, name: &str| self.emit("Mul", &[a, b], &format!("{p}.{name}"), vec![]);
        let (uc, vs) = (product(u, cos, "u_cos"), product(v, sin, "v_sin"));
        let (vc, us) = (product(v, cos, "v_cos"), product(u, sin, "u_sin"));
        let first = self.emit("Sub", &[&uc, &vs], &format!("{p}.turned_first"), vec![]);
        let second = self.emit("Add", &[&vc, &us], &format!("{p}.turned_second"), vec![]);
        (first, second)
    }

    /// Cosines and sines `[b or 1, n, 1, rotary / 2]`; nodes of equal positions share them.
    fn rotation(&mut self, positions: &str, node: &Node, a: &RopeAttrs) -> (String, String) {
        let key = format!("rope {positions} {} {} {:?}", a.rotary, a.theta, a.scaling);
        if let (Some(c), Some(s)) =
            (self.constants.get(&format!("{key} cos")), self.constants.get(&format!("{key} sin")))
        {
            return (c.clone(), s.clone());
        }
        let frequencies = pomona_graph::rope_frequencies(a);
        let table = self.floats("rope.frequencies", &[frequencies.len()], &frequencies);
        let at = self.emit("Cast", &[positions], "rope.positions", vec![int("to", 1)]);
        let lead: Vec<i64> = if self.rank(node.inputs[1]) == 1 { vec![0, 2, 3] } else { vec![2, 3] };
        let lead = self.i64s(&lead);
        let at = self.emit("Unsqueeze", &[&at, &lead], "rope.column", vec![]);
        let angles = self.emit("Mul", &[&at, &table], "rope.angles", vec![]);
        let cos = self.emit("Cos", &[&angles], "rope.cos", vec![]);
        let sin = self.emit("Sin", &[&angles], "rope.sin", vec![]);
        self.constants.insert(format!("{key} cos"), cos.clone());
        self.constants.insert(format!("{key} sin"), sin.clone());
        (cos, sin)
    }

    /// Parts of an axis.
    pub(super) fn split(&mut self, x: &str, axis: usize, sizes: &[usize], name: &str) -> Vec<String> {
        let outputs: Vec<String> = (0..sizes.len()).map(|i| self.fresh(&format!("{name}.{i}"))).collect();
        let sizes: Vec<i64> = sizes.iter().map(|s| *s as i64).collect();
        let sizes = self.i64s(&sizes);
        self.emit_as("Split", &[x, &sizes], &outputs, vec![int("axis", axis as i64)]);
        outputs
    }
}
