//! Products.

use pomona_graph::{Op, Slot};

use super::{Emit, Node, Writer, int, ints};

impl Writer<'_> {
    pub(super) fn linear(&mut self, node: &Node) -> Emit<()> {
        match &node.op {
            Op::Embedding {} => {
                let (table, ids) = (self.need(node, Slot::Weight)?, self.input(node, 0)?);
                self.finish(node, "Gather", &[&table, &ids], vec![int("axis", 0)]);
            }
            Op::MatMul { transpose_b } => {
                let (a, mut b) = (self.input(node, 0)?, self.input(node, 1)?);
                if *transpose_b {
                    let rank = self.rank(node.inputs[1]);
                    let mut order: Vec<usize> = (0..rank).collect();
                    order.swap(rank - 1, rank - 2);
                    b = self.emit(
                        "Transpose",
                        &[&b],
                        &format!("{}.transposed", node.path),
                        vec![ints("perm", order)],
                    );
                }
                self.finish(node, "MatMul", &[&a, &b], vec![]);
            }
            _ => {
                let x = self.input(node, 0)?;
                let id = node.weights.get(&Slot::Weight).copied().ok_or("has no weight")?;
                let mut w = self.need(node, Slot::Weight)?;
                let transposed = self.linear_only.contains(&id);
                let bias = self.slot(node, Slot::Bias)?;
                if self.rank(node.inputs[0]) == 2 {
                    let attributes = vec![int("transB", i64::from(!transposed))];
                    self.finish(node, "Gemm", &[&x, &w, bias.as_deref().unwrap_or("")], attributes);
                    return Ok(());
                }
                if !transposed {
                    let key = (id, format!("transposed {w}"));
                    w = match self.read.get(&key) {
                        Some(known) => known.clone(),
                        None => {
                            let t = self.emit(
                                "Transpose",
                                &[&w],
                                &format!("{w}.transposed"),
                                vec![ints("perm", [1, 0])],
                            );
                            self.read.insert(key, t.clone());
                            t
                        }
                    };
                }
                match bias {
                    None => self.finish(node, "MatMul", &[&x, &w], vec![]),
                    Some(b) => {
                        let y = self.emit("MatMul", &[&x, &w], &format!("{}.product", node.path), vec![]);
                        self.finish(node, "Add", &[&y, &b], vec![]);
                    }
                }
            }
        }
        Ok(())
    }
}
