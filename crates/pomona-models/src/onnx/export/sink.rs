//! Constants and weights: small ones stand in the header, weights are streamed.

use pomona_graph::{Expr, QuantTarget, Slot, TensorId};
use pomona_store::Encoding;
use pomona_store::onnx::small_tensor;

use super::{Emit, Node, Writer, int};
use pomona_store::onnx::element;

/// How a tensor of the graph lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Layout {
    /// As in the graph.
    Plain,
    /// `[in, out]`, as MatMul reads it.
    Transposed,
    /// Blocks of `hidden` rows in another order, with an axis of 1 before them.
    Gates {
        /// Block i of the file is this block of the graph.
        order: Vec<usize>,
        hidden: usize,
    },
}

/// A tensor of the graph in the file.
pub(crate) struct Stored {
    /// Name in the graph.
    pub tensor: String,
    /// Name in the file.
    pub name: String,
    pub layout: Layout,
}

impl Stored {
    /// A tensor that no node reads.
    pub(crate) fn plain(name: &str) -> Stored {
        Stored { tensor: name.to_owned(), name: name.to_owned(), layout: Layout::Plain }
    }

    /// The file's tensor from the graph's.
    pub(crate) fn write(&self, of: Expr, shape: &[usize]) -> Expr {
        match &self.layout {
            Layout::Plain => of,
            Layout::Transposed => Expr::Transpose { axes: vec![1, 0], of: Box::new(of) },
            Layout::Gates { order, hidden } => {
                let lead = [&[1], shape].concat();
                Expr::Reshape { shape: lead, of: Box::new(gates(of, order, *hidden)) }
            }
        }
    }

    /// The graph's tensor from the file's.
    pub(crate) fn read(&self, shape: &[usize]) -> Expr {
        let copy = Expr::copy(&self.name);
        match &self.layout {
            Layout::Plain => copy,
            Layout::Transposed => Expr::Transpose { axes: vec![1, 0], of: Box::new(copy) },
            Layout::Gates { order, hidden } => {
                let flat = Expr::Reshape { shape: shape.to_vec(), of: Box::new(copy) };
                let back: Vec<usize> =
                    (0..order.len()).map(|i| order.iter().position(|o| *o == i).unwrap_or(i)).collect();
                gates(flat, &back, *hidden)
            }
        }
    }
}

fn gates(of: Expr, order: &[usize], hidden: usize) -> Expr {
    let block = |g: &usize| Expr::Split { axis: 0, start: g * hidden, len: hidden, of: Box::new(of.clone()) };
    Expr::Concat { axis: 0, of: order.iter().map(block).collect() }
}

impl Writer<'_> {
    /// A small constant; equal ones are one.
    pub(super) fn constant(
        &mut self,
        name: &str,
        encoding: Encoding,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> String {
        let key = format!("{encoding} {shape:?} {bytes:?}");
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = self.fresh(name);
        self.small.push(small_tensor(&name, encoding, shape, bytes));
        self.constants.insert(key, name.clone());
        name
    }

    pub(super) fn i64s(&mut self, values: &[i64]) -> String {
        let label: Vec<String> = values.iter().map(i64::to_string).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(&format!("const.{}", label.join("_")), Encoding::I64, &[values.len()], bytes)
    }

    pub(super) fn i64_scalar(&mut self, value: i64) -> String {
        self.constant(&format!("const.{value}.scalar"), Encoding::I64, &[], value.to_le_bytes().to_vec())
    }

    pub(super) fn scalar(&mut self, value: f64) -> String {
        self.constant(&format!("const.{value}f"), Encoding::F32, &[], (value as f32).to_le_bytes().to_vec())
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, Encoding::F32, shape, bytes)
    }

    /// One number everywhere, rank 1.
    pub(super) fn filled(&mut self, n: usize, value: f32) -> String {
        self.floats(&format!("const.{value}x{n}"), &[n], &vec![value; n])
    }

    /// The tensor of a slot as it is stored, cast to what the graph computes with.
    pub(super) fn tensor(&mut self, id: TensorId, layout: &Layout) -> String {
        let def = self.graph.tensor(id);
        if let Some(name) = self.initializers.get(&id) {
            return name.clone();
        }
        self.initializers.insert(id, def.name.clone());
        self.stored.push(Stored { tensor: def.name.clone(), name: def.name.clone(), layout: layout.clone() });
        let stored = self.options.encodings.get(&def.name).copied().unwrap_or(Encoding::F32);
        let wanted = match stored {
            Encoding::Bool | Encoding::F32 | Encoding::I64 => return def.name.clone(),
            e if e.name().starts_with(['i', 'u']) => element::INT64,
            _ => element::FLOAT,
        };
        let cast =
            self.emit("Cast", &[&def.name], &format!("{}.cast", def.name), vec![int("to", wanted.into())]);
        self.initializers.insert(id, cast.clone());
        cast
    }

    /// A weight slot of a node, rounded where an annotation says so.
    pub(super) fn slot(&mut self, node: &Node, slot: Slot) -> Emit<Option<String>> {
        let Some(&id) = node.weights.get(&slot) else { return Ok(None) };
        let transposed = self.linear_only.contains(&id);
        let name = self.tensor(id, if transposed { &Layout::Transposed } else { &Layout::Plain });
        if slot != Slot::Weight || self.note(node, &QuantTarget::Weight).is_none() {
            return Ok(Some(name));
        }
        let key = (id, "rounded".to_owned());
        if let Some(known) = self.read.get(&key) {
            return Ok(Some(known.clone()));
        }
        let name = self.rounded(node, &QuantTarget::Weight, name, transposed.then_some(1))?;
        self.read.insert(key, name.clone());
        Ok(Some(name))
    }

    pub(super) fn need(&mut self, node: &Node, slot: Slot) -> Emit<String> {
        self.slot(node, slot)?.ok_or_else(|| format!("has no {slot:?}"))
    }
}
