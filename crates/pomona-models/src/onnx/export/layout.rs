//! Operators that move elements, and constants.

use pomona_graph::{Dim, Op, PadMode, ReduceFn, Slot, SplitMap};

use super::sink::Layout;
use super::{Emit, Node, Writer, int, ints, text};

impl Writer<'_> {
    pub(super) fn layout(&mut self, node: &Node) -> Emit<()> {
        let p = node.path.as_str();
        match &node.op {
            Op::Constant {} => {
                let id = node.weights.get(&Slot::Weight).copied().ok_or("has no weight")?;
                let name = self.tensor(id, &Layout::Plain);
                self.values.insert(node.outputs[0], name);
                return Ok(());
            }
            Op::Range { end } => {
                let end = self.size(end, &[])?;
                let axis = self.i64s(&[0]);
                let end = self.emit("Squeeze", &[&end, &axis], &format!("{p}.count"), vec![]);
                let (zero, one) = (self.i64_scalar(0), self.i64_scalar(1));
                self.finish(node, "Range", &[&zero, &end, &one], vec![]);
                return Ok(());
            }
            _ => {}
        }
        let x = self.input(node, 0)?;
        let from = self.shape(node.inputs[0]);
        match &node.op {
            Op::Concat { axis } => {
                let all = (0..node.inputs.len()).map(|i| self.input(node, i)).collect::<Emit<Vec<_>>>()?;
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                self.finish(node, "Concat", &all, vec![int("axis", *axis as i64)]);
            }
            Op::Split { axis, map: SplitMap::Parts { sizes } } => {
                let sizes = self.sizes(sizes, &node.inputs)?;
                let outputs: Vec<String> = (0..node.outputs.len()).map(|k| self.claim(node, k)).collect();
                self.emit_as("Split", &[&x, &sizes], &outputs, vec![int("axis", *axis as i64)]);
            }
            Op::Split { axis, map: SplitMap::Interleaved { groups, sizes } } => {
                self.interleaved(node, &x, *axis, *groups, sizes)?
            }
            Op::Slice { axis, start, end, step } => {
                let (start, end) = (self.size(start, &node.inputs)?, self.size(end, &node.inputs)?);
                let (axis, step) = (self.i64s(&[*axis as i64]), self.i64s(&[*step as i64]));
                self.finish(node, "Slice", &[&x, &start, &end, &axis, &step], vec![]);
            }
            Op::Reshape { shape } => {
                let shape = self.reshape_to(from, shape, &node.inputs)?;
                self.finish(node, "Reshape", &[&x, &shape], vec![]);
            }
            Op::Transpose { axes } => {
                self.finish(node, "Transpose", &[&x], vec![ints("perm", axes.iter().copied())])
            }
            Op::Expand { shape } => {
                // Axes that stay are stretched by 1, which needs no size.
                let lead = shape.len() - from.len().min(shape.len());
                let stays = |i: usize| i >= lead && from[i - lead] == shape[i];
                let target: Vec<Dim> = shape
                    .iter()
                    .enumerate()
                    .map(|(i, d)| if stays(i) { 1.into() } else { d.clone() })
                    .collect();
                let target = self.sizes(&target, &node.inputs)?;
                self.finish(node, "Expand", &[&x, &target], vec![]);
            }
            Op::Gather { axis } => {
                let index = self.input(node, 1)?;
                self.finish(node, "Gather", &[&x, &index], vec![int("axis", *axis as i64)]);
            }
            Op::Pad { amounts, mode } => {
                let before = amounts.iter().map(|a| a[0] as i64);
                let all: Vec<i64> = before.chain(amounts.iter().map(|a| a[1] as i64)).collect();
                let pads = self.i64s(&all);
                let (mode, value) = match mode {
                    PadMode::Constant { value } => ("constant", self.scalar(*value)),
                    PadMode::Reflect => ("reflect", String::new()),
                    PadMode::Edge => ("edge", String::new()),
                };
                self.finish(node, "Pad", &[&x, &pads, &value], vec![text("mode", mode)]);
            }
            Op::Reduce { function, axes, keep } => {
                let op = match function {
                    ReduceFn::Mean => "ReduceMean",
                    ReduceFn::Sum => "ReduceSum",
                    ReduceFn::Max => "ReduceMax",
                    ReduceFn::Min => "ReduceMin",
                    ReduceFn::Prod => "ReduceProd",
                    ReduceFn::L2 => "ReduceL2",
                };
                if axes.is_empty() {
                    // An empty list means all axes to ONNX.
                    self.same(node, &x);
                    return Ok(());
                }
                let out = self.claim(node, 0);
                let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
                self.reduce_as(op, &x, &axes, *keep, out);
            }
            Op::ArgMax { axis, keep } => {
                let attributes = vec![int("axis", *axis as i64), int("keepdims", i64::from(*keep))];
                self.finish(node, "ArgMax", &[&x], attributes);
            }
            Op::TopK { k } => {
                let k = self.i64s(&[*k as i64]);
                let outputs = [self.claim(node, 0), self.claim(node, 1)];
                self.emit_as("TopK", &[&x, &k], &outputs, vec![int("axis", -1)]);
            }
            Op::CumSum { axis } => {
                let axis = self.i64_scalar(*axis as i64);
                self.finish(node, "CumSum", &[&x, &axis], vec![]);
            }
            other => return Err(format!("is `{}`, which is not written", other.name())),
        }
        Ok(())
    }

    /// Runs of an axis, each with a share for every output: an axis of runs, split, and joined again.
    fn interleaved(&mut self, node: &Node, x: &str, axis: usize, groups: usize, sizes: &[Dim]) -> Emit<()> {
        let p = node.path.as_str();
        let from = self.shape(node.inputs[0]);
        let mut run = Dim::from(0);
        for s in sizes {
            run = run + s;
        }
        let mut split = from.clone();
        split.splice(axis..=axis, [Dim::from(groups), run]);
        let shape = self.reshape_to(from, &split, &node.inputs)?;
        let y = self.emit("Reshape", &[x, &shape], &format!("{p}.runs"), vec![]);
        let parts: Vec<String> = (0..sizes.len()).map(|k| self.fresh(&format!("{p}.part.{k}"))).collect();
        let lengths = self.sizes(sizes, &node.inputs)?;
        self.emit_as("Split", &[&y, &lengths], &parts, vec![int("axis", axis as i64 + 1)]);
        for (k, part) in parts.iter().enumerate() {
            let mut before = from.clone();
            before.splice(axis..=axis, [Dim::from(groups), sizes[k].clone()]);
            let to = self.shape(node.outputs[k]);
            let shape = self.reshape_to(&before, to, &node.inputs)?;
            let out = self.claim(node, k);
            self.emit_as("Reshape", &[part, &shape], &[out], vec![]);
        }
        Ok(())
    }
}
