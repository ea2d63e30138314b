//! ONNX files that lie, in protocol buffers' wire format by hand.

use super::{Attack, attacks};

/// A message, field by field. Numbers of fields are those of `onnx.proto`.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn int(mut self, field: u64, value: i64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value as u64);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    pub fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn inside(self, field: u64, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn message() -> Message {
    Message::default()
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let m = inputs.iter().fold(message(), |m, i| m.text(1, i));
    outputs.iter().fold(m, |m, o| m.text(2, o)).text(3, op).text(4, op)
}

fn ints(name: &str, values: &[i64]) -> Message {
    values.iter().fold(message().text(1, name), |m, v| m.int(8, *v)).int(20, 7)
}

/// Of i64 where there are numbers, else of `element` with `raw` bytes.
fn tensor(name: &str, element: i64, shape: &[i64], raw: &[u8]) -> Message {
    shape.iter().fold(message(), |m, d| m.int(1, *d)).int(2, element).text(8, name).bytes(9, raw)
}

fn numbers(name: &str, values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, 7, &[values.len() as i64], &raw)
}

fn external(name: &str, entries: &[(&str, &str)]) -> Message {
    let m = message().int(1, 2).int(2, 1).text(8, name).int(14, 1);
    entries.iter().fold(m, |m, (k, v)| m.inside(13, &message().text(1, k).text(2, v)))
}

/// A float port of fixed sizes.
fn port(name: &str, shape: &[i64]) -> Message {
    let shape = shape.iter().fold(message(), |m, d| m.inside(1, &message().int(1, *d)));
    message().text(1, name).inside(2, &message().inside(1, &message().int(1, 1).inside(2, &shape)))
}

/// `x [2]` to `y`.
pub fn graph(nodes: &[Message], tensors: &[Message]) -> Message {
    let m = nodes.iter().fold(message(), |m, n| m.inside(1, n)).text(2, "g");
    let m = tensors.iter().fold(m, |m, t| m.inside(5, t));
    m.inside(11, &port("x", &[2])).inside(12, &port("y", &[2]))
}

fn with_opset(graph: &Message, version: i64) -> Vec<u8> {
    message().int(1, 8).inside(7, graph).inside(8, &message().text(1, "").int(2, version)).0
}

pub fn model(graph: &Message) -> Vec<u8> {
    with_opset(graph, 17)
}

/// `y = x + w`.
pub fn good() -> Vec<u8> {
    model(&graph(&[node("Add", &["x", "w"], &["y"])], &[tensor("w", 1, &[2], &[0; 8])]))
}

/// Messages that are none.
pub fn wires() -> Vec<Attack> {
    let nest = |field: u64, depth: usize| (0..depth).fold(message(), |m, _| message().inside(field, &m));
    let mut branches = message();
    for _ in 0..1000 {
        let attribute = message().text(1, "then_branch").inside(6, &branches).int(20, 5);
        branches = message().inside(1, &node("If", &["c"], &["y"]).inside(5, &attribute));
    }
    attacks([
        ("nothing", vec![], ""),
        ("text", b"this is no model".to_vec(), ""),
        ("zeros", vec![0; 64], ""),
        ("an integer without end", vec![0xff; 40], "an integer takes more than ten bytes"),
        ("a length beyond the file", vec![0x3a, 0xff, 0xff, 0xff, 0x7f], "bytes are announced"),
        ("a length of 2^64", [&[0x3a][..], &[0xff; 9], &[1]].concat(), "bytes are announced"),
        ("a group", vec![0x3b, 0x3c], "unknown wire type 3"),
        ("field 0", vec![0x00, 0x01], "holds no graph"),
        ("half a float", vec![0x3d, 0, 0], "bytes are announced"),
        ("a graph that is a number", message().int(7, 3).0, "stands where bytes were expected"),
        ("no graph", message().int(1, 8).0, "holds no graph"),
        ("an empty graph", message().int(1, 8).inside(7, &message()).0, ""),
        ("unknown nesting", nest(7, 10_000).0, ""),
        ("branches in branches", model(&branches), "nests more than 16 graphs"),
    ])
}

/// Tensors against their data.
pub fn tensors() -> Vec<Attack> {
    let big = 1 << 40;
    let of = |t: Message| model(&graph(&[node("Add", &["x", "w"], &["y"])], &[t]));
    let two = |a: Message, b: Message| model(&graph(&[node("Add", &["x", "w"], &["y"])], &[a, b]));
    let plain = || tensor("w", 1, &[2], &[0; 8]);
    let outside = |place: &str| of(external("w", &[("location", place)]));
    let at = |offset: &str, length: &str| {
        of(external("w", &[("location", "m.onnx"), ("offset", offset), ("length", length)]))
    };
    attacks([
        ("too short", of(tensor("w", 1, &[2], &[0; 7])), "takes 8"),
        ("too long", of(tensor("w", 1, &[2], &[0; 9])), "takes 8"),
        ("no data", of(tensor("w", 1, &[2], &[])), "takes 8"),
        ("a negative size", of(tensor("w", 1, &[-2], &[0; 8])), "impossible shape"),
        ("an overflowing shape", of(tensor("w", 1, &[big, big], &[])), "overflows"),
        ("zero hides overflow", of(tensor("w", 1, &[0, big, big], &[])), "overflows"),
        ("many axes", of(tensor("w", 1, &[1; 100], &[0; 4])), "axes"),
        ("an unknown type", of(tensor("w", 99, &[2], &[0; 8])), "has element type 99"),
        ("text", of(message().int(2, 8).text(8, "w").text(6, "code")), "holds text"),
        ("the same name twice", two(plain(), plain()), "stands twice"),
        ("no name", two(plain(), tensor("", 1, &[2], &[0; 8])), "no name"),
        ("external without a place", of(external("w", &[])), "does not say where"),
        ("external above", outside("../secret"), "is not a name inside"),
        ("external elsewhere", outside("/etc/passwd"), "is not a name inside"),
        ("external around", outside("a/../../secret"), "is not a name inside"),
        ("external missing", outside("gone.data"), "gone.data"),
        ("an external directory", outside("."), ""),
        ("an external offset beyond the file", at("1000000", "8"), "which has"),
        ("external sizes that wrap around", at("18446744073709551612", "8"), "which has"),
        ("a negative external offset", at("-8", "8"), "no number"),
        ("an external length that does not fit", at("0", "7"), "takes 8"),
    ])
}

/// Nodes that cannot be computed, or would fill the memory.
pub fn nodes() -> Vec<Attack> {
    let huge = |op: &str, values: &[i64]| {
        let nodes = [node(op, &["n"], &["h"]), node("Add", &["x", "h"], &["y"])];
        model(&graph(&nodes, &[numbers("n", values)]))
    };
    let over = |op: &str, values: &[i64]| {
        model(&graph(&[node(op, &["x", "n"], &["h"]), node("Relu", &["h"], &["y"])], &[numbers("n", values)]))
    };
    let range = {
        let one = |name: &str, v: i64| tensor(name, 7, &[], &v.to_le_bytes());
        let nodes = [node("Range", &["a", "b", "c"], &["h"]), node("Add", &["x", "h"], &["y"])];
        model(&graph(&nodes, &[one("a", 0), one("b", i64::MAX), one("c", 1)]))
    };
    let doubling = {
        let first = numbers("t0", &[1; 64]);
        let next = |i: usize| {
            let (from, to) = (format!("t{i}"), format!("t{}", i + 1));
            node("Concat", &[&from, &from], &[&to]).inside(5, &message().text(1, "axis").int(3, 0).int(20, 2))
        };
        let nodes: Vec<Message> = (0..40).map(next).chain([node("Reshape", &["x", "t40"], &["y"])]).collect();
        model(&graph(&nodes, &[first]))
    };
    let calls = {
        let function = message().text(1, "f").text(4, "x").text(5, "y").text(10, "d");
        let function = function.inside(7, &node("f", &["x"], &["y"]).text(7, "d"));
        let graph = graph(&[node("f", &["x"], &["y"]).text(7, "d")], &[]);
        message().int(1, 8).inside(7, &graph).inside(8, &message().int(2, 17)).inside(25, &function).0
    };
    let tower = {
        let one = |i: usize| {
            let (own, next) = (format!("f{i}"), format!("f{}", i + 1));
            let call = |from: &str, to: &str| node(&next, &[from], &[to]).text(7, "d");
            let f = message().text(1, &own).text(4, "x").text(5, "y").text(10, "d");
            if i == 30 {
                f.inside(7, &node("Relu", &["x"], &["y"]))
            } else {
                f.inside(7, &call("x", "t")).inside(7, &call("t", "y"))
            }
        };
        let graph = graph(&[node("f0", &["x"], &["y"]).text(7, "d")], &[]);
        let m = message().int(1, 8).inside(7, &graph).inside(8, &message().int(2, 17));
        (0..=30).fold(m, |m, i| m.inside(25, &one(i))).0
    };
    let conv = |attributes: &[Message]| {
        let with = |n: Message| attributes.iter().fold(n, |n, a| n.inside(5, a));
        let nodes = [node("Reshape", &["x", "n"], &["h"]), with(node("Conv", &["h", "w"], &["y"]))];
        model(&graph(&nodes, &[numbers("n", &[1, 1, 2]), tensor("w", 1, &[1, 1, 1], &[0; 4])]))
    };
    let wide = {
        let nodes = [node("Expand", &["n", "s"], &["h"]), node("Add", &["x", "h"], &["y"])];
        model(&graph(&nodes, &[numbers("n", &[1]), numbers("s", &[1 << 40, 1 << 40])]))
    };
    let split = {
        let nodes = [node("Split", &["n", "s"], &["a", "b"]), node("Add", &["x", "a"], &["y"])];
        model(&graph(&nodes, &[numbers("n", &[1, 2]), numbers("s", &[i64::MAX, i64::MAX])]))
    };
    let transpose = node("Transpose", &["x"], &["y"]).inside(5, &ints("perm", &[7]));
    let one = |n: Message| model(&graph(&[n], &[]));
    attacks([
        ("no nodes", model(&graph(&[], &[])), "y"),
        ("an unknown operator", one(node("Explode", &["x"], &["y"])), "Explode"),
        ("no operator", one(message().text(1, "x").text(2, "y")), ""),
        ("a node that reads itself", one(node("Add", &["x", "y"], &["y"])), "y"),
        ("a missing value", one(node("Add", &["x", "gone"], &["y"])), "gone"),
        (
            "nodes in a circle",
            model(&graph(
                &[
                    node("Add", &["x", "b"], &["a"]),
                    node("Relu", &["a"], &["b"]),
                    node("Relu", &["b"], &["y"]),
                ],
                &[],
            )),
            "b",
        ),
        (
            "a value made twice",
            model(&graph(&[node("Relu", &["x"], &["y"]), node("Relu", &["x"], &["y"])], &[])),
            "",
        ),
        ("no inputs", one(node("Gemm", &[], &["y"])), ""),
        (
            "a constant gathered by nothing",
            model(&graph(
                &[node("Gather", &["n"], &["h"]), node("Add", &["x", "h"], &["y"])],
                &[numbers("n", &[1, 2])],
            )),
            "inputs",
        ),
        (
            "a constant of no shape",
            model(&graph(
                &[node("Reshape", &["n"], &["h"]), node("Add", &["x", "h"], &["y"])],
                &[numbers("n", &[1, 2])],
            )),
            "inputs",
        ),
        ("parts larger than the whole", split, "larger than what it splits"),
        ("no outputs", one(node("Relu", &["x"], &[])), ""),
        ("a permutation of nothing", one(transpose), ""),
        ("a constant of 2^80", huge("ConstantOfShape", &[1 << 40, 1 << 40]), ""),
        ("a constant of 2^40", huge("ConstantOfShape", &[1 << 40]), ""),
        ("a constant of 2^31", huge("ConstantOfShape", &[1 << 31]), ""),
        ("a constant of -1", huge("ConstantOfShape", &[-1]), ""),
        ("expansion to 2^62", over("Expand", &[1 << 62, 2]), ""),
        ("known expansion to 2^80", wide, ""),
        ("tiles of 2^62", over("Tile", &[1 << 62]), ""),
        ("a shape of -1 and -1", over("Reshape", &[-1, -1]), ""),
        ("a shape of 2^62", over("Reshape", &[1 << 62, 1 << 62]), ""),
        ("padding of 2^62", over("Pad", &[1 << 62, 1 << 62]), ""),
        ("squeezed axis 2^62", over("Squeeze", &[1 << 62]), ""),
        ("an endless range", range, ""),
        ("constants that double", doubling, ""),
        ("a function that calls itself", calls, "nests more than"),
        ("a tower of functions", tower, ""),
        ("negative strides", conv(&[ints("strides", &[-1])]), ""),
        ("strides of zero", conv(&[ints("strides", &[0])]), ""),
        ("dilations of 2^62", conv(&[ints("dilations", &[1 << 62])]), ""),
        ("padding beyond all", conv(&[ints("pads", &[i64::MAX, i64::MAX])]), ""),
        ("groups of zero", conv(&[message().text(1, "group").int(3, 0).int(20, 2)]), ""),
        ("groups of -1", conv(&[message().text(1, "group").int(3, -1).int(20, 2)]), ""),
        ("operator set 0", with_opset(&graph(&[node("Relu", &["x"], &["y"])], &[]), 0), "operator set 0"),
        (
            "operator set 2^62",
            with_opset(&graph(&[node("Relu", &["x"], &["y"])], &[]), 1 << 62),
            "operator set",
        ),
    ])
}

/// Few bytes of file that become many of memory.
pub fn bombs() -> Vec<Attack> {
    let many = |field: u64, n: usize| {
        let parts = message().inside(field, &message()).0.repeat(n);
        model(&Message([graph(&[node("Relu", &["x"], &["y"])], &[]).0, parts].concat()))
    };
    let names = Message(message().text(1, "").0.repeat(2 << 20));
    let nodes: Vec<Message> = (0..200_000).map(|i| node("Explode", &["x"], &[&format!("v{i}")])).collect();
    attacks([
        ("two million empty nodes", many(1, 2 << 20), "bytes are worth"),
        ("two million empty tensors", many(5, 2 << 20), "bytes are worth"),
        ("two million empty inputs", many(11, 2 << 20), "bytes are worth"),
        ("two million empty names", model(&graph(&[names], &[])), ""),
        ("200,000 unknown operators", model(&graph(&nodes, &[])), "Explode"),
    ])
}
