//! LSTM and GRU.

use pomona_graph::{Direction, Op, RecurrentCell, Slot};

use super::sink::Layout;
use super::{Emit, Node, Writer, int, text};

impl Writer<'_> {
    pub(super) fn recurrent(&mut self, node: &Node) -> Emit<()> {
        let Op::Recurrent { cell, hidden, direction, reset_after } = &node.op else {
            return Err("is no recurrent cell".to_owned());
        };
        let (lstm, hidden) = (*cell == RecurrentCell::Lstm, *hidden);
        let p = node.path.as_str();
        let dirs: &[[Slot; 4]] = &[
            [Slot::WeightIh, Slot::WeightHh, Slot::BiasIh, Slot::BiasHh],
            [Slot::WeightIhReverse, Slot::WeightHhReverse, Slot::BiasIhReverse, Slot::BiasHhReverse],
        ];
        let dirs = if *direction == Direction::Both { dirs } else { &dirs[..1] };
        // PyTorch's i, f, g, o and r, z, n as ONNX's i, o, f, c and z, r, h.
        let order: &[usize] = if lstm { &[0, 3, 1, 2] } else { &[1, 0, 2] };
        let gates = Layout::Gates { order: order.to_vec(), hidden };
        let mut parts: [Vec<String>; 3] = Default::default();
        let rows = order.len() * hidden;
        for slots in dirs {
            for (k, slot) in slots[..2].iter().enumerate() {
                let id = *node.weights.get(slot).ok_or_else(|| format!("has no {slot:?}"))?;
                parts[k].push(self.tensor(id, &gates));
            }
            let mut halves = Vec::new();
            for slot in &slots[2..] {
                halves.push(match node.weights.get(slot) {
                    Some(id) => self.tensor(*id, &gates),
                    None => self.floats(&format!("{p}.no_bias"), &[1, rows], &vec![0.0; rows]),
                });
            }
            let both = [halves[0].as_str(), &halves[1]];
            parts[2].push(self.emit("Concat", &both, &format!("{p}.bias"), vec![int("axis", 1)]));
        }
        let mut joined = Vec::new();
        for (k, list) in parts.iter().enumerate() {
            joined.push(match list.as_slice() {
                [one] => one.clone(),
                many => {
                    let many: Vec<&str> = many.iter().map(String::as_str).collect();
                    self.emit("Concat", &many, &format!("{p}.both.{k}"), vec![int("axis", 0)])
                }
            });
        }
        let x = self.input(node, 0)?;
        let x = self.transposed(&x, &[1, 0, 2], &format!("{p}.by_time"));
        let mut states = Vec::new();
        for i in 1..node.inputs.len() {
            let h = self.input(node, i)?;
            let h = self.reshaped(&h, &[0, dirs.len() as i64, hidden as i64], &format!("{p}.state.{i}"));
            states.push(self.transposed(&h, &[1, 0, 2], &format!("{p}.start.{i}")));
        }
        let mut inputs = vec![x.as_str(), &joined[0], &joined[1], &joined[2], ""];
        inputs.extend(states.iter().map(String::as_str));
        let way = match direction {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
            Direction::Both => "bidirectional",
        };
        let mut attributes = vec![int("hidden_size", hidden as i64), text("direction", way)];
        if !lstm {
            attributes.push(int("linear_before_reset", i64::from(*reset_after)));
        }
        let raw: Vec<String> = (0..node.outputs.len()).map(|k| self.fresh(&format!("{p}.out.{k}"))).collect();
        self.emit_as(if lstm { "LSTM" } else { "GRU" }, &inputs, &raw, attributes);
        let flat = self.i64s(&[0, 0, -1]);
        let y = self.transposed(&raw[0], &[2, 0, 1, 3], &format!("{p}.by_batch"));
        let out = self.claim(node, 0);
        self.emit_as("Reshape", &[&y, &flat], &[out], vec![]);
        let flat = self.i64s(&[0, -1]);
        for (k, last) in raw.iter().enumerate().skip(1) {
            let h = self.transposed(last, &[1, 0, 2], &format!("{p}.last.{k}"));
            let out = self.claim(node, k);
            self.emit_as("Reshape", &[&h, &flat], &[out], vec![]);
        }
        Ok(())
    }
}
