//! Normalisations.

use pomona_graph::{BatchStatistics, Dim, Op, Slot};

use super::{Emit, Node, Writer, float, int, ints};

impl Writer<'_> {
    pub(super) fn norm(&mut self, node: &Node) -> Emit<()> {
        let x = self.input(node, 0)?;
        let p = node.path.as_str();
        match &node.op {
            Op::LayerNorm { axes, eps } => {
                let w = match self.slot(node, Slot::Weight)? {
                    Some(w) => w,
                    None => {
                        let s = self.shape(node.inputs[0]);
                        let sizes: Vec<usize> = s[s.len() - axes..]
                            .iter()
                            .map(|d| d.size(p).map_err(|e| e.to_string()))
                            .collect::<Emit<_>>()?;
                        let ones = vec![1.0; sizes.iter().product()];
                        self.floats(&format!("{p}.ones"), &sizes, &ones)
                    }
                };
                let b = self.slot(node, Slot::Bias)?.unwrap_or_default();
                let attributes = vec![int("axis", -(*axes as i64)), float("epsilon", *eps)];
                self.finish(node, "LayerNormalization", &[&x, &w, &b], attributes);
            }
            Op::RmsNorm { eps, offset } => {
                let square = self.emit("Mul", &[&x, &x], &format!("{p}.square"), vec![]);
                let mean = self.mean(&square, &[-1], &format!("{p}.mean"));
                let eps = self.scalar(*eps);
                let sum = self.emit("Add", &[&mean, &eps], &format!("{p}.eps"), vec![]);
                let root = self.emit("Sqrt", &[&sum], &format!("{p}.rms"), vec![]);
                match self.slot(node, Slot::Weight)? {
                    None => self.finish(node, "Div", &[&x, &root], vec![]),
                    Some(mut w) => {
                        let y = self.emit("Div", &[&x, &root], &format!("{p}.normal"), vec![]);
                        if *offset != 0.0 {
                            let offset = self.scalar(*offset);
                            w = self.emit("Add", &[&w, &offset], &format!("{p}.scale"), vec![]);
                        }
                        self.finish(node, "Mul", &[&y, &w], vec![]);
                    }
                }
            }
            Op::InstanceNorm { eps } => {
                let (w, b) = self.scale_and_bias(node)?;
                self.finish(node, "InstanceNormalization", &[&x, &w, &b], vec![float("epsilon", *eps)]);
            }
            Op::BatchNorm { eps, momentum, statistics: BatchStatistics::Running } => {
                let (w, b) = self.scale_and_bias(node)?;
                let (mean, var) = (self.need(node, Slot::RunningMean)?, self.need(node, Slot::RunningVar)?);
                let attributes = vec![float("epsilon", *eps), float("momentum", 1.0 - momentum)];
                self.finish(node, "BatchNormalization", &[&x, &w, &b, &mean, &var], attributes);
            }
            Op::BatchNorm { eps, .. } => {
                let rank = self.rank(node.inputs[0]) as i64;
                let axes: Vec<i64> = (0..rank).filter(|a| *a != 1).collect();
                let mean = self.mean(&x, &axes, &format!("{p}.mean"));
                let gap = self.emit("Sub", &[&x, &mean], &format!("{p}.centred"), vec![]);
                let square = self.emit("Mul", &[&gap, &gap], &format!("{p}.square"), vec![]);
                let var = self.mean(&square, &axes, &format!("{p}.variance"));
                let eps = self.scalar(*eps);
                let sum = self.emit("Add", &[&var, &eps], &format!("{p}.eps"), vec![]);
                let root = self.emit("Sqrt", &[&sum], &format!("{p}.deviation"), vec![]);
                let y = self.emit("Div", &[&gap, &root], &format!("{p}.normal"), vec![]);
                self.affine(node, &y)?;
            }
            Op::GroupNorm { groups, eps } => {
                if self.options.opset >= 21 {
                    let (w, b) = self.scale_and_bias(node)?;
                    let attributes = vec![int("num_groups", *groups as i64), float("epsilon", *eps)];
                    self.finish(node, "GroupNormalization", &[&x, &w, &b], attributes);
                    return Ok(());
                }
                let flat = self.reshaped(&x, &[0, *groups as i64, -1], &format!("{p}.groups"));
                let (ones, zeros) = (self.filled(*groups, 1.0), self.filled(*groups, 0.0));
                let inputs = [flat.as_str(), &ones, &zeros];
                let y = self.emit(
                    "InstanceNormalization",
                    &inputs,
                    &format!("{p}.instance"),
                    vec![float("epsilon", *eps)],
                );
                // Only the batch is in its place after the grouping.
                let s = self.shape(node.inputs[0]);
                let shape = self.reshape_to(&s[..1], s, &node.inputs)?;
                let y = self.emit("Reshape", &[&y, &shape], &format!("{p}.normal"), vec![]);
                self.affine(node, &y)?;
            }
            _ => return Err("is no normalisation".to_owned()),
        }
        Ok(())
    }

    /// Mean over axes, which stay with size 1: an attribute before operator set 18.
    pub(super) fn mean(&mut self, x: &str, axes: &[i64], name: &str) -> String {
        self.reduce("ReduceMean", x, axes, true, name)
    }

    pub(super) fn reduce(&mut self, op: &str, x: &str, axes: &[i64], keep: bool, name: &str) -> String {
        let out = self.fresh(name);
        self.reduce_as(op, x, axes, keep, out.clone());
        out
    }

    pub(super) fn reduce_as(&mut self, op: &str, x: &str, axes: &[i64], keep: bool, out: String) {
        let mut attributes = vec![int("keepdims", i64::from(keep))];
        if self.options.opset >= 18 || op == "ReduceSum" {
            let axes = self.i64s(axes);
            self.emit_as(op, &[x, &axes], &[out], attributes);
        } else {
            let value = pomona_store::onnx::OnnxValue::Ints(axes.to_vec());
            attributes.push(super::OnnxAttribute { name: "axes".to_owned(), value });
            self.emit_as(op, &[x], &[out], attributes);
        }
    }

    fn channels(&self, node: &Node) -> Emit<usize> {
        let d = self.shape(node.inputs[0]).get(1).and_then(Dim::as_int);
        d.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| "has channels of unknown number".to_owned())
    }

    fn scale_and_bias(&mut self, node: &Node) -> Emit<(String, String)> {
        let w = match self.slot(node, Slot::Weight)? {
            Some(w) => w,
            None => {
                let n = self.channels(node)?;
                self.filled(n, 1.0)
            }
        };
        let b = match self.slot(node, Slot::Bias)? {
            Some(b) => b,
            None => {
                let n = self.channels(node)?;
                self.filled(n, 0.0)
            }
        };
        Ok((w, b))
    }

    /// Scale and bias of each channel (axis 1), where there are any.
    fn affine(&mut self, node: &Node, y: &str) -> Emit<()> {
        let rank = self.rank(node.inputs[0]);
        let column = |w: &mut Self, t: Option<String>| {
            t.map(|t| {
                let mut shape = vec![1; rank - 1];
                shape[0] = -1;
                w.reshaped(&t, &shape, &format!("{t}.column"))
            })
        };
        let scale = self.slot(node, Slot::Weight)?;
        let scale = column(self, scale);
        let bias = self.slot(node, Slot::Bias)?;
        let bias = column(self, bias);
        match (scale, bias) {
            (None, None) => self.same(node, y),
            (Some(w), None) => self.finish(node, "Mul", &[y, &w], vec![]),
            (None, Some(b)) => self.finish(node, "Add", &[y, &b], vec![]),
            (Some(w), Some(b)) => {
                let scaled = self.emit("Mul", &[y, &w], &format!("{}.scaled", node.path), vec![]);
                self.finish(node, "Add", &[&scaled, &b], vec![]);
            }
        }
        Ok(())
    }

    pub(super) fn transposed(&mut self, x: &str, order: &[usize], name: &str) -> String {
        self.emit("Transpose", &[x], name, vec![ints("perm", order.iter().copied())])
    }
}
