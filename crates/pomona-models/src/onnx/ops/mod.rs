//! What each ONNX operator becomes in the graph. A file a family.

mod einsum;
mod elementwise;
mod layout;
mod linear;
mod norms;
mod quant;
mod recurrent;
mod resize;
mod spatial;
pub(super) mod tables;

pub(super) use linear::weight_name;
pub(super) use quant::Rounding;

use super::context::{Call, Context, Entry, Lower, unsupported};

/// Operators of the default domain that are read.
const KNOWN: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "Cos",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "GatherElements",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "If",
    "InstanceNormalization",
    "IsNaN",
    "ScatterND",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "NonZero",
    "Not",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
];

/// Whether an operator is read at all.
pub(super) fn is_known(domain: &str, op: &str) -> bool {
    domain.is_empty() && KNOWN.contains(&op)
}

/// The node as nodes of the graph. Gives what its outputs stand for, those that are left out included.
pub(super) fn lower(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let op = c.node.op.as_str();
    let one = match op {
        "Conv" => spatial::conv(ctx, c),
        "ConvTranspose" => spatial::conv_transpose(ctx, c),
        "MaxPool" | "AveragePool" => spatial::pool(ctx, c),
        "GlobalAveragePool" | "GlobalMaxPool" => spatial::global_pool(ctx, c),
        "DepthToSpace" | "SpaceToDepth" => spatial::shuffle(ctx, c),
        "Resize" | "Upsample" => resize::resize(ctx, c),
        "Gemm" => linear::gemm(ctx, c),
        "MatMul" => linear::matmul(ctx, c),
        "Einsum" => einsum::einsum(ctx, c),
        "BatchNormalization" => norms::batch(ctx, c),
        "InstanceNormalization" => norms::instance(ctx, c),
        "LayerNormalization" => norms::layer(ctx, c),
        "GroupNormalization" => norms::group(ctx, c),
        "LpNormalization" => norms::lp(ctx, c),
        "Softmax" | "LogSoftmax" => norms::softmax(ctx, c),
        "LSTM" | "GRU" => return recurrent::recurrent(ctx, c),
        "QuantizeLinear" => return quant::quantize(ctx, c),
        "DequantizeLinear" => return quant::dequantize(ctx, c),
        "Split" => return layout::split(ctx, c),
        "TopK" => return layout::top_k(ctx, c),
        "Identity" | "Dropout" => {
            let entry = match c.node.inputs.first() {
                Some(name) => ctx.entry(name)?.clone(),
                None => return unsupported("has no input"),
            };
            return Ok(vec![entry]);
        }
        _ => match layout::lower(ctx, c)? {
            Some(v) => Ok(v),
            None => elementwise::lower(ctx, c),
        },
    };
    Ok(vec![Entry::Value(one?)])
}
