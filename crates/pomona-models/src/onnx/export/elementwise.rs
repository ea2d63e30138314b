//! Functions of single elements.

use pomona_graph::{Activation, BinaryFn, Op, Slot, ValueId, ValueType};

use super::{Emit, Node, Writer, element_of, float, int};

impl Writer<'_> {
    pub(super) fn elementwise(&mut self, node: &Node) -> Emit<()> {
        match &node.op {
            Op::Activation { function } => self.activation(node, *function),
            Op::Binary { function } => {
                let (a, b) = (node.inputs[0], node.inputs[1]);
                let (mut x, mut y) = (self.input(node, 0)?, self.input(node, 1)?);
                if self.ty(a) != self.ty(b) {
                    let common = if *function == BinaryFn::And || *function == BinaryFn::Or {
                        ValueType::Bool
                    } else if self.ty(a) == ValueType::Float || self.ty(b) == ValueType::Float {
                        ValueType::Float
                    } else {
                        ValueType::Int
                    };
                    x = self.cast_to(&x, self.ty(a), common);
                    y = self.cast_to(&y, self.ty(b), common);
                    return self.binary(node, *function, &x, &y, common);
                }
                self.binary(node, *function, &x, &y, self.ty(a))
            }
            Op::Scalar { function, value, reversed } => {
                let x = self.input(node, 0)?;
                let ty = self.ty(node.inputs[0]);
                let number = match ty {
                    ValueType::Float => self.scalar(*value),
                    ValueType::Int => self.i64_scalar(*value as i64),
                    ValueType::Bool => self.constant(
                        "const.flag",
                        pomona_store::Encoding::Bool,
                        &[],
                        vec![u8::from(*value != 0.0)],
                    ),
                };
                if *reversed {
                    self.binary(node, *function, &number, &x, ty)
                } else {
                    self.binary(node, *function, &x, &number, ty)
                }
            }
            Op::Add {} => {
                let all = (0..node.inputs.len()).map(|i| self.input(node, i)).collect::<Emit<Vec<_>>>()?;
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                // Sum takes floats only; sums of integers have two operands wherever they occur.
                let op = if all.len() == 2 { "Add" } else { "Sum" };
                self.finish(node, op, &all, vec![]);
                Ok(())
            }
            Op::PRelu {} => {
                let (x, mut w) = (self.input(node, 0)?, self.need(node, Slot::Weight)?);
                let rank = self.rank(node.inputs[0]);
                if rank > 2 {
                    let mut shape = vec![1; rank - 1];
                    shape[0] = -1;
                    w = self.reshaped(&w, &shape, &format!("{w}.column"));
                }
                self.finish(node, "PRelu", &[&x, &w], vec![]);
                Ok(())
            }
            Op::Where {} => {
                let (c, a, b) = (self.input(node, 0)?, self.input(node, 1)?, self.input(node, 2)?);
                let (ta, tb) = (self.ty(node.inputs[1]), self.ty(node.inputs[2]));
                let b = self.cast_to(&b, tb, ta);
                self.finish(node, "Where", &[&c, &a, &b], vec![]);
                Ok(())
            }
            Op::Clip { min, max } => {
                let x = self.input(node, 0)?;
                let float = self.ty(node.inputs[0]) == ValueType::Float;
                let mut bound = |v: &Option<f64>| match v {
                    None => String::new(),
                    Some(v) if float => self.scalar(*v),
                    Some(v) => self.i64_scalar(*v as i64),
                };
                let (min, max) = (bound(min), bound(max));
                self.finish(node, "Clip", &[&x, &min, &max], vec![]);
                Ok(())
            }
            Op::Cast { to } => {
                let x = self.input(node, 0)?;
                self.finish(node, "Cast", &[&x], vec![int("to", element_of(*to).into())]);
                Ok(())
            }
            Op::Softmax { axis, log } => {
                let x = self.input(node, 0)?;
                let op = if *log { "LogSoftmax" } else { "Softmax" };
                self.finish(node, op, &[&x], vec![int("axis", *axis as i64)]);
                Ok(())
            }
            Op::Dropout { .. } => {
                let x = self.input(node, 0)?;
                self.same(node, &x);
                Ok(())
            }
            Op::Sinusoid { width, max_period, cosine_first, shift } => {
                self.sinusoid(node, *width, *max_period, *cosine_first, *shift)
            }
            _ => Err("is no function of elements".to_owned()),
        }
    }

    fn cast_to(&mut self, x: &str, from: ValueType, to: ValueType) -> String {
        if from == to {
            return x.to_owned();
        }
        self.emit("Cast", &[x], &format!("{x}.cast"), vec![int("to", element_of(to).into())])
    }

    fn binary(&mut self, node: &Node, function: BinaryFn, x: &str, y: &str, ty: ValueType) -> Emit<()> {
        let op = match function {
            BinaryFn::Add => "Add",
            BinaryFn::Sub => "Sub",
            BinaryFn::Mul => "Mul",
            BinaryFn::Div => "Div",
            BinaryFn::Pow => "Pow",
            BinaryFn::Min => "Min",
            BinaryFn::Max => "Max",
            BinaryFn::Equal => "Equal",
            BinaryFn::Less => "Less",
            BinaryFn::LessEqual => "LessOrEqual",
            BinaryFn::Greater => "Greater",
            BinaryFn::GreaterEqual => "GreaterOrEqual",
            BinaryFn::And => "And",
            BinaryFn::Or => "Or",
            BinaryFn::Mod if ty == ValueType::Float => {
                // ONNX's remainder of floats has the other sign: a - b * floor(a / b).
                let q = self.emit("Div", &[x, y], &format!("{}.ratio", node.path), vec![]);
                let q = self.emit("Floor", &[&q], &format!("{}.whole", node.path), vec![]);
                let q = self.emit("Mul", &[&q, y], &format!("{}.multiple", node.path), vec![]);
                self.finish(node, "Sub", &[x, &q], vec![]);
                return Ok(());
            }
            BinaryFn::Mod => "Mod",
        };
        self.finish(node, op, &[x, y], vec![]);
        Ok(())
    }

    fn activation(&mut self, node: &Node, function: Activation) -> Emit<()> {
        let x = self.input(node, 0)?;
        let p = node.path.as_str();
        let plain = match function {
            Activation::Relu => "Relu",
            Activation::Selu => "Selu",
            Activation::Sigmoid => "Sigmoid",
            Activation::Tanh => "Tanh",
            Activation::Softplus => "Softplus",
            Activation::Exp => "Exp",
            Activation::Log => "Log",
            Activation::Sqrt => "Sqrt",
            Activation::Reciprocal => "Reciprocal",
            Activation::Abs => "Abs",
            Activation::Neg => "Neg",
            Activation::Sin => "Sin",
            Activation::Cos => "Cos",
            Activation::Erf => "Erf",
            Activation::Floor => "Floor",
            Activation::Ceil => "Ceil",
            Activation::Round => "Round",
            Activation::Sign => "Sign",
            Activation::Not => "Not",
            Activation::HardSwish => "HardSwish",
            Activation::LeakyRelu(a) => {
                self.finish(node, "LeakyRelu", &[&x], vec![float("alpha", a)]);
                return Ok(());
            }
            Activation::Elu(a) => {
                self.finish(node, "Elu", &[&x], vec![float("alpha", a)]);
                return Ok(());
            }
            Activation::HardSigmoid(a, b) => {
                self.finish(node, "HardSigmoid", &[&x], vec![float("alpha", a), float("beta", b)]);
                return Ok(());
            }
            Activation::Relu6 => {
                let (low, high) = (self.scalar(0.0), self.scalar(6.0));
                self.finish(node, "Clip", &[&x, &low, &high], vec![]);
                return Ok(());
            }
            Activation::Rsqrt => {
                let root = self.emit("Sqrt", &[&x], &format!("{p}.root"), vec![]);
                self.finish(node, "Reciprocal", &[&root], vec![]);
                return Ok(());
            }
            Activation::Silu | Activation::QuickGelu => {
                let inner = match function {
                    Activation::Silu => x.clone(),
                    _ => {
                        let factor = self.scalar(1.702);
                        self.emit("Mul", &[&x, &factor], &format!("{p}.steep"), vec![])
                    }
                };
                let gate = self.emit("Sigmoid", &[&inner], &format!("{p}.gate"), vec![]);
                self.finish(node, "Mul", &[&x, &gate], vec![]);
                return Ok(());
            }
            Activation::Mish => {
                let soft = self.emit("Softplus", &[&x], &format!("{p}.softplus"), vec![]);
                let gate = self.emit("Tanh", &[&soft], &format!("{p}.gate"), vec![]);
                self.finish(node, "Mul", &[&x, &gate], vec![]);
                return Ok(());
            }
            Activation::Gelu | Activation::GeluTanh => {
                return self.gelu(node, &x, function == Activation::GeluTanh);
            }
        };
        self.finish(node, plain, &[&x], vec![]);
        Ok(())
    }

    fn gelu(&mut self, node: &Node, x: &str, tanh: bool) -> Emit<()> {
        let p = node.path.as_str();
        if self.options.opset >= 20 {
            let kind = super::text("approximate", if tanh { "tanh" } else { "none" });
            self.finish(node, "Gelu", &[x], vec![kind]);
            return Ok(());
        }
        let gate = if tanh {
            let (cubic, factor) = (self.scalar(0.044_715), self.scalar((2.0 / std::f64::consts::PI).sqrt()));
            let square = self.emit("Mul", &[x, x], &format!("{p}.square"), vec![]);
            let cube = self.emit("Mul", &[&square, x], &format!("{p}.cube"), vec![]);
            let cube = self.emit("Mul", &[&cube, &cubic], &format!("{p}.scaled_cube"), vec![]);
            let sum = self.emit("Add", &[x, &cube], &format!("{p}.sum"), vec![]);
            let inner = self.emit("Mul", &[&sum, &factor], &format!("{p}.inner"), vec![]);
            self.emit("Tanh", &[&inner], &format!("{p}.tanh"), vec![])
        } else {
            let root = self.scalar(std::f64::consts::SQRT_2);
            let inner = self.emit("Div", &[x, &root], &format!("{p}.inner"), vec![]);
            self.emit("Erf", &[&inner], &format!("{p}.erf"), vec![])
        };
        let (one, half) = (self.scalar(1.0), self.scalar(0.5));
        let gate = self.emit("Add", &[&gate, &one], &format!("{p}.gate"), vec![]);
        let y = self.emit("Mul", &[x, &gate], &format!("{p}.gated"), vec![]);
        self.finish(node, "Mul", &[&y, &half], vec![]);
        Ok(())
    }

    fn sinusoid(
        &mut self,
        node: &Node,
        width: usize,
        max_period: f64,
        cosine_first: bool,
        shift: f64,
    ) -> Emit<()> {
        let p = node.path.as_str();
        let v: ValueId = node.inputs[0];
        let x = self.input(node, 0)?;
        let x = self.cast_to(&x, self.ty(v), ValueType::Float);
        let half = width / 2;
        let frequency = |i: usize| (-(max_period.ln()) * i as f64 / (half as f64 - shift)).exp() as f32;
        let table: Vec<f32> = (0..half).map(frequency).collect();
        let table = self.floats(&format!("{p}.frequencies"), &[half], &table);
        let axis = self.i64s(&[-1]);
        let column = self.emit("Unsqueeze", &[&x, &axis], &format!("{p}.column"), vec![]);
        let angles = self.emit("Mul", &[&column, &table], &format!("{p}.angles"), vec![]);
        let sin = self.emit("Sin", &[&angles], &format!("{p}.sin"), vec![]);
        let cos = self.emit("Cos", &[&angles], &format!("{p}.cos"), vec![]);
        let (first, second) = if cosine_first { (cos, sin) } else { (sin, cos) };
        if width.is_multiple_of(2) {
            self.finish(node, "Concat", &[&first, &second], vec![int("axis", -1)]);
            return Ok(());
        }
        let both = self.emit("Concat", &[&first, &second], &format!("{p}.both"), vec![int("axis", -1)]);
        let mut pads = vec![0; 2 * (self.rank(v) + 1)];
        if let Some(last) = pads.last_mut() {
            *last = 1;
        }
        let pads = self.i64s(&pads);
        self.finish(node, "Pad", &[&both, &pads], vec![]);
        Ok(())
    }
}
