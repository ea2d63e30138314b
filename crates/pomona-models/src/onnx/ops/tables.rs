//! ONNX's names for the graph's element-wise functions.

use pomona_graph::{Activation, BinaryFn, ReduceFn, ValueType};

use super::super::context::{Call, Lower, unsupported};

pub(in super::super) fn binary(op: &str) -> Option<BinaryFn> {
    Some(match op {
        "Add" => BinaryFn::Add,
        "Sub" => BinaryFn::Sub,
        "Mul" => BinaryFn::Mul,
        "Div" => BinaryFn::Div,
        "Pow" => BinaryFn::Pow,
        "Min" => BinaryFn::Min,
        "Max" => BinaryFn::Max,
        "Mod" => BinaryFn::Mod,
        "Equal" => BinaryFn::Equal,
        "Less" => BinaryFn::Less,
        "LessOrEqual" => BinaryFn::LessEqual,
        "Greater" => BinaryFn::Greater,
        "GreaterOrEqual" => BinaryFn::GreaterEqual,
        "And" => BinaryFn::And,
        "Or" => BinaryFn::Or,
        _ => return None,
    })
}

/// The element-wise function of a node; none where its operator is no such function.
pub(in super::super) fn activation(c: &Call<'_>) -> Lower<Option<Activation>> {
    Ok(Some(match c.node.op.as_str() {
        "Relu" => Activation::Relu,
        "LeakyRelu" => Activation::LeakyRelu(c.float_or("alpha", 0.01)),
        "Elu" => Activation::Elu(c.float_or("alpha", 1.0)),
        "Selu" => {
            let (alpha, gamma) = (c.float_or("alpha", 1.673_263_2), c.float_or("gamma", 1.050_701));
            if (alpha - 1.673_263_2).abs() > 1e-5 || (gamma - 1.050_701).abs() > 1e-5 {
                return unsupported(format!(
                    "has alpha {alpha} and gamma {gamma}; the published ones are read"
                ));
            }
            Activation::Selu
        }
        "Gelu" if c.text("approximate") == Some("tanh") => Activation::GeluTanh,
        "Gelu" => Activation::Gelu,
        "Sigmoid" => Activation::Sigmoid,
        "HardSigmoid" => Activation::HardSigmoid(c.float_or("alpha", 0.2), c.float_or("beta", 0.5)),
        "HardSwish" => Activation::HardSwish,
        "Tanh" => Activation::Tanh,
        "Softplus" => Activation::Softplus,
        "Mish" => Activation::Mish,
        "Exp" => Activation::Exp,
        "Log" => Activation::Log,
        "Sqrt" => Activation::Sqrt,
        "Reciprocal" => Activation::Reciprocal,
        "Abs" => Activation::Abs,
        "Neg" => Activation::Neg,
        "Sin" => Activation::Sin,
        "Cos" => Activation::Cos,
        "Erf" => Activation::Erf,
        "Floor" => Activation::Floor,
        "Ceil" => Activation::Ceil,
        "Round" => Activation::Round,
        "Sign" => Activation::Sign,
        "Not" => Activation::Not,
        _ => return Ok(None),
    }))
}

pub(in super::super) fn reduction(op: &str) -> Option<ReduceFn> {
    Some(match op {
        "ReduceMean" => ReduceFn::Mean,
        "ReduceSum" | "ReduceL1" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => ReduceFn::Sum,
        "ReduceMax" => ReduceFn::Max,
        "ReduceMin" => ReduceFn::Min,
        "ReduceProd" => ReduceFn::Prod,
        "ReduceL2" => ReduceFn::L2,
        _ => return None,
    })
}

/// Kind of value of an element type: the graph does not tell widths apart.
pub(in super::super) fn value_type(element: i64) -> Lower<ValueType> {
    match element {
        1 | 10 | 11 | 16 => Ok(ValueType::Float),
        2..=7 | 12 | 13 => Ok(ValueType::Int),
        9 => Ok(ValueType::Bool),
        other => unsupported(format!("element type {other}, which no value of a graph has")),
    }
}
