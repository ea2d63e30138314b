//! The operators: layer-level, under their standard names. Weights are in the node's slots, sizes in the tensors' shapes.
//!
//! Values are row-major with PyTorch's axis order (`[batch, channels, height, width]`, `[batch, tokens, width]`).

use serde::{Deserialize, Serialize};

use crate::dim::Dim;

/// What a node computes. Inputs are positional, as listed at each operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// `x @ weight.T + bias` on the last axis. Weight `[out, in]`.
    Linear {},
    /// Convolution over the last `stride.len()` axes (1, 2 or 3). Weight `[out, in/groups, k...]`.
    Conv(ConvAttrs),
    /// Transposed convolution. Weight `[in, out/groups, k...]`.
    ConvTranspose {
        /// Stride, padding, dilation, groups.
        #[serde(flatten)]
        conv: ConvAttrs,
        /// Extra size at the end of each spatial axis.
        output_padding: Vec<usize>,
    },
    /// Rows of weight `[count, width]` by integer index: `[...] -> [..., width]`.
    Embedding {},
    /// Normalises over the last `axes` axes; weight and bias optional.
    LayerNorm {
        /// Number of trailing axes.
        axes: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// `x / rms(x) * (offset + weight)` over the last axis.
    RmsNorm {
        /// Added to the mean square.
        eps: f64,
        /// 0, or 1 where the stored weight is a difference from one.
        offset: f64,
    },
    /// Normalises groups of channels (axis 1) over the rest; weight and bias `[channels]` optional.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// Batch normalisation over axis 1, with running or batch statistics.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Weight of the new batch in the running statistics.
        momentum: f64,
        /// Whether inference uses the stored statistics or the batch's own.
        statistics: BatchStatistics,
    },
    /// Normalises each channel of each sample over its spatial axes; weight and bias optional.
    InstanceNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// An element-wise function without weights.
    Activation {
        /// Which function.
        function: Activation,
    },
    /// `x` where positive, `weight * x` elsewhere; weight `[1]` or `[channels]`.
    PRelu {},
    /// Scaled dot-product attention on flat heads. Inputs: q `[b, n, heads*dk]`, k `[b, m, kv_heads*dk]`,
    /// v `[b, m, kv_heads*dv]`, then optionally an additive mask broadcast to `[b, heads, n, m]`. Output `[b, n, heads*dv]`.
    /// With `causal`, query i sees keys up to `i + m - n` (aligned at the end, so that cached keys are seen).
    Attention(AttentionAttrs),
    /// Rotary embedding of each head's first `rotary` channels. Inputs: x `[b, n, heads*d]`, positions `[n]` or `[b, n]` (integer).
    Rope(RopeAttrs),
    /// Two inputs, broadcast as NumPy does.
    Binary {
        /// Which function.
        function: BinaryFn,
    },
    /// One input and a number: `x function value`, or `value function x` with `reversed`.
    Scalar {
        /// Which function.
        function: BinaryFn,
        /// The number.
        value: f64,
        /// The number is the left operand.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reversed: bool,
    },
    /// Sum of two or more inputs of one shape: the residual join, whose operands edits can drop.
    Add {},
    /// Matrix product of two values over their last two axes, batch axes broadcast.
    MatMul {
        /// The second input is taken transposed in its last two axes.
        transpose_b: bool,
    },
    /// Softmax along an axis.
    Softmax {
        /// Axis, from 0.
        axis: usize,
        /// Gives the logarithm.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        log: bool,
    },
    /// Inputs joined along an axis.
    Concat {
        /// Axis, from 0.
        axis: usize,
    },
    /// One input into several outputs along an axis, by an explicit map.
    Split {
        /// Axis, from 0.
        axis: usize,
        /// Which part of the axis goes to which output.
        map: SplitMap,
    },
    /// Elements `start, start+step, ..` below `end` of an axis.
    Slice {
        /// Axis, from 0.
        axis: usize,
        /// First index.
        start: Dim,
        /// End, exclusive.
        end: Dim,
        /// Stride, positive.
        step: usize,
    },
    /// Same elements in a new shape.
    Reshape {
        /// The new shape, complete.
        shape: Vec<Dim>,
    },
    /// Axes in a new order: output axis i is input axis `axes[i]`.
    Transpose {
        /// The order.
        axes: Vec<usize>,
    },
    /// Broadcast to a shape.
    Expand {
        /// The shape.
        shape: Vec<Dim>,
    },
    /// Input 0 indexed along an axis by integer input 1.
    Gather {
        /// Axis, from 0.
        axis: usize,
    },
    /// Constant, reflected or repeated border: `amounts[axis] = [before, after]`.
    Pad {
        /// Elements added before and after, an entry an axis.
        amounts: Vec<[usize; 2]>,
        /// Where the values come from.
        mode: PadMode,
    },
    /// Maximum or average over windows of the spatial axes.
    Pool {
        /// Maximum or average.
        kind: PoolKind,
        /// Window size.
        kernel: Vec<usize>,
        /// Step.
        stride: Vec<usize>,
        /// Border before and after, an entry a spatial axis.
        padding: Vec<[usize; 2]>,
        /// Partial windows at the end count.
        ceil: bool,
        /// An average divides by the window's size, border included.
        count_padding: bool,
    },
    /// Average (or maximum) pooling to a given spatial size.
    AdaptivePool {
        /// Maximum or average.
        kind: PoolKind,
        /// Output size of each spatial axis.
        size: Vec<usize>,
    },
    /// Spatial resampling to a size.
    Resize {
        /// How values are found.
        mode: ResizeMode,
        /// How output coordinates map to input coordinates.
        coordinates: ResizeCoordinates,
        /// Output size of each spatial axis.
        size: Vec<Dim>,
    },
    /// `[b, c*r*r, h, w] -> [b, c, h*r, w*r]` (`PixelShuffle`), or back with `inverse`.
    PixelShuffle {
        /// r.
        factor: usize,
        /// The other direction.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        inverse: bool,
    },
    /// Reduction over axes.
    Reduce {
        /// Which function.
        function: ReduceFn,
        /// Axes, from 0.
        axes: Vec<usize>,
        /// Reduced axes stay with size 1.
        keep: bool,
    },
    /// Sine and cosine features of a number: `[...] -> [..., width]`.
    Sinusoid {
        /// Number of features.
        width: usize,
        /// Longest period.
        max_period: f64,
        /// Cosine before sine.
        cosine_first: bool,
        /// Subtracted from `width/2` in the exponent's denominator.
        shift: f64,
    },
    /// Zeroes a share of the elements in training, the identity otherwise.
    Dropout {
        /// Share.
        rate: f64,
    },
    /// A tensor of the table as a value (slot `weight`).
    Constant {},
    /// Integers `0 .. end`.
    Range {
        /// End, exclusive.
        end: Dim,
    },
    /// A value of another type.
    Cast {
        /// The type.
        to: ValueType,
    },
    /// Inputs: condition, then, else; broadcast.
    Where {},
    /// `x` limited to `[min, max]`.
    Clip {
        /// Lower bound.
        min: Option<f64>,
        /// Upper bound.
        max: Option<f64>,
    },
    /// Indices of the largest element along an axis.
    ArgMax {
        /// Axis, from 0.
        axis: usize,
        /// The axis stays with size 1.
        keep: bool,
    },
    /// The `k` largest elements along the last axis: values, indices.
    TopK {
        /// How many.
        k: usize,
    },
    /// Running sum along an axis.
    CumSum {
        /// Axis, from 0.
        axis: usize,
    },
    /// LSTM or GRU over a sequence. Inputs: x `[b, n, in]`, h0 `[b, dirs*hidden]`, c0 (LSTM) likewise.
    /// Outputs: y `[b, n, dirs*hidden]`, last h, last c (LSTM).
    Recurrent {
        /// Which cell.
        cell: RecurrentCell,
        /// Width of the state.
        hidden: usize,
        /// Order of time.
        direction: Direction,
        /// GRU only: the reset gate is applied after the hidden product (PyTorch, and ONNX with `linear_before_reset`).
        reset_after: bool,
    },
}

/// Attributes that convolutions share; each list has an entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvAttrs {
    /// Step.
    pub stride: Vec<usize>,
    /// Zeros before and after.
    pub padding: Vec<[usize; 2]>,
    /// Distance of kernel elements.
    pub dilation: Vec<usize>,
    /// Channel groups.
    pub groups: usize,
}

impl ConvAttrs {
    /// A two-dimensional convolution with square attributes and one group.
    pub fn square(stride: usize, padding: usize) -> Self {
        Self { stride: vec![stride; 2], padding: vec![[padding; 2]; 2], dilation: vec![1; 2], groups: 1 }
    }
}

/// Attributes of attention. Widths of q/k and v are free: they are read off the inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionAttrs {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`; query head h reads `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Factor of the logits: a stored number, never derived from a width.
    pub scale: f64,
    /// No query sees a later key.
    pub causal: bool,
    /// A query sees at most this many latest keys, itself among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Logits become `softcap * tanh(logits / softcap)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softcap: Option<f64>,
}

/// Attributes of rotary position embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeAttrs {
    /// Heads in the last axis.
    pub heads: usize,
    /// Channels of each head that turn: even.
    pub rotary: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// How channels are paired.
    pub pairing: RopePairing,
    /// Change of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

/// How rotary channels pair up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopePairing {
    /// Channel i with i + rotary/2 (transformers, NeoX).
    Halves,
    /// Channel 2i with 2i + 1 (the original; GGUF's row order for llama).
    Interleaved,
}

/// Scaling of rotary frequencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RopeScaling {
    /// As they are.
    None,
    /// Divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by the factor, short ones kept, between them smooth.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context length of the first training.
        original_context: usize,
    },
    /// A divisor for each frequency, `rotary/2` of them.
    Divisors {
        /// The divisors.
        divisors: Vec<f64>,
    },
}

/// Statistics of BatchNorm at inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatistics {
    /// The stored ones.
    Running,
    /// The batch's own, also at inference (pix2pix).
    Batch,
}

/// Element-wise functions of one input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x, or slope * x below zero
    LeakyRelu(f64),
    /// x, or alpha * (exp(x) - 1) below zero
    Elu(f64),
    /// Scaled ELU with the published constants
    Selu,
    /// x * sigmoid(x)
    Silu,
    /// x * Phi(x), exact
    Gelu,
    /// x * Phi(x) by tanh
    GeluTanh,
    /// x * sigmoid(1.702 x)
    QuickGelu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// clip(slope * x + offset, 0, 1): PyTorch's is (1/6, 1/2)
    HardSigmoid(f64, f64),
    /// x * clip(x/6 + 1/2, 0, 1)
    HardSwish,
    /// tanh(x)
    Tanh,
    /// log(1 + exp(x))
    Softplus,
    /// x * tanh(softplus(x))
    Mish,
    /// exp(x)
    Exp,
    /// ln(x)
    Log,
    /// sqrt(x)
    Sqrt,
    /// 1 / sqrt(x)
    Rsqrt,
    /// 1 / x
    Reciprocal,
    /// |x|
    Abs,
    /// -x
    Neg,
    /// sin(x)
    Sin,
    /// cos(x)
    Cos,
    /// The error function
    Erf,
    /// Largest integer not above x
    Floor,
    /// Smallest integer not below x
    Ceil,
    /// Nearest integer, ties to even
    Round,
    /// -1, 0 or 1
    Sign,
    /// Logical not
    Not,
}

/// Functions of two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryFn {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// a ^ b
    Pow,
    /// The smaller
    Min,
    /// The larger
    Max,
    /// Remainder with the sign of b
    Mod,
    /// a == b
    Equal,
    /// a < b
    Less,
    /// a <= b
    LessEqual,
    /// a > b
    Greater,
    /// a >= b
    GreaterEqual,
    /// a and b
    And,
    /// a or b
    Or,
}

impl BinaryFn {
    /// Whether the result is a truth value.
    pub fn is_predicate(self) -> bool {
        use BinaryFn::*;
        matches!(self, Equal | Less | LessEqual | Greater | GreaterEqual | And | Or)
    }
}

/// Reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceFn {
    /// Mean.
    Mean,
    /// Sum.
    Sum,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
    /// Product.
    Prod,
    /// Square root of the sum of squares.
    L2,
}

/// How an axis is shared out by [`Op::Split`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum SplitMap {
    /// One contiguous part an output, in order.
    Parts {
        /// Size of each part.
        sizes: Vec<Dim>,
    },
    /// The axis is `groups` equal runs (heads), each holding its share of every part in order:
    /// output p gets `groups * sizes[p]` elements.
    Interleaved {
        /// Number of runs.
        groups: usize,
        /// Size of each part within a run.
        sizes: Vec<Dim>,
    },
}

/// Border values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum PadMode {
    /// A number.
    Constant {
        /// The number.
        value: f64,
    },
    /// Mirrored without the edge.
    Reflect,
    /// The edge repeated.
    Edge,
}

/// Pooling functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Maximum.
    Max,
    /// Average.
    Average,
}

/// Interpolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Nearest neighbour.
    Nearest,
    /// Linear in each spatial axis.
    Linear,
    /// Cubic in each spatial axis (a = -0.75).
    Cubic,
}

/// Coordinate maps of [`Op::Resize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeCoordinates {
    /// `out * in/size` (with floor for nearest).
    Asymmetric,
    /// `(out + 1/2) * in/size - 1/2`.
    HalfPixel,
    /// Corners on corners.
    AlignCorners,
}

/// Recurrent cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecurrentCell {
    /// Gates i, f, g, o as PyTorch orders them.
    Lstm,
    /// Gates r, z, n as PyTorch orders them.
    Gru,
}

/// Order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// First to last.
    Forward,
    /// Last to first.
    Reverse,
    /// Both, joined on the width.
    Both,
}

/// Type of a value's elements. Precision is a matter of the executor and of annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// Floating point.
    Float,
    /// Integer.
    Int,
    /// Truth value.
    Bool,
}

/// The name of every operator, from one list, so that none is missing from it.
macro_rules! names {
    ($($pattern:pat => $name:literal),* $(,)?) => {
        impl Op {
            /// The names of all operators.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The operator's standard name, as reports print it.
            pub fn name(&self) -> &'static str {
                match self {
                    $($pattern => $name),*
                }
            }
        }
    };
}

names! {
    Op::Linear {} => "Linear",
    Op::Conv(_) => "Conv",
    Op::ConvTranspose { .. } => "ConvTranspose",
    Op::Embedding {} => "Embedding",
    Op::LayerNorm { .. } => "LayerNorm",
    Op::RmsNorm { .. } => "RmsNorm",
    Op::GroupNorm { .. } => "GroupNorm",
    Op::BatchNorm { .. } => "BatchNorm",
    Op::InstanceNorm { .. } => "InstanceNorm",
    Op::Activation { .. } => "Activation",
    Op::PRelu {} => "PRelu",
    Op::Attention(_) => "Attention",
    Op::Rope(_) => "Rope",
    Op::Binary { .. } => "Binary",
    Op::Scalar { .. } => "Scalar",
    Op::Add {} => "Add",
    Op::MatMul { .. } => "MatMul",
    Op::Softmax { .. } => "Softmax",
    Op::Concat { .. } => "Concat",
    Op::Split { .. } => "Split",
    Op::Slice { .. } => "Slice",
    Op::Reshape { .. } => "Reshape",
    Op::Transpose { .. } => "Transpose",
    Op::Expand { .. } => "Expand",
    Op::Gather { .. } => "Gather",
    Op::Pad { .. } => "Pad",
    Op::Pool { .. } => "Pool",
    Op::AdaptivePool { .. } => "AdaptivePool",
    Op::Resize { .. } => "Resize",
    Op::PixelShuffle { .. } => "PixelShuffle",
    Op::Reduce { .. } => "Reduce",
    Op::Sinusoid { .. } => "Sinusoid",
    Op::Dropout { .. } => "Dropout",
    Op::Constant {} => "Constant",
    Op::Range { .. } => "Range",
    Op::Cast { .. } => "Cast",
    Op::Where {} => "Where",
    Op::Clip { .. } => "Clip",
    Op::ArgMax { .. } => "ArgMax",
    Op::TopK { .. } => "TopK",
    Op::CumSum { .. } => "CumSum",
    Op::Recurrent { .. } => "Recurrent",
}
