//! What an ONNX file says, without its weights: nodes, ports, and where each tensor's bytes are.

/// An ONNX model. Tensors with data are in the checkpoint, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxModel {
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets: domain (empty for ONNX's own) and version.
    pub opsets: Vec<(String, i64)>,
    /// Program that wrote the file.
    pub producer: String,
    /// The computation.
    pub graph: OnnxGraph,
    /// Operators that the file defines itself.
    pub functions: Vec<OnnxFunction>,
}

/// A graph: the main one, or a branch of a control-flow node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxGraph {
    /// Its name.
    pub name: String,
    /// Nodes in topological order.
    pub nodes: Vec<OnnxNode>,
    /// Inputs; before IR version 4 the initializers are among them.
    pub inputs: Vec<OnnxPort>,
    /// Outputs.
    pub outputs: Vec<OnnxPort>,
    /// Tensors with data, in file order.
    pub initializers: Vec<OnnxTensor>,
    /// Kinds of data that are not read (`sparse_initializer`), with the names of what has them.
    pub unread: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxNode {
    /// Its name; often empty.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Operator's domain; empty for ONNX's own.
    pub domain: String,
    /// Names of values; an empty one leaves an optional input out.
    pub inputs: Vec<String>,
    /// Names of values.
    pub outputs: Vec<String>,
    /// Attributes.
    pub attributes: Vec<OnnxAttribute>,
    /// Paths of the modules around it, from outside in, where PyTorch's exporter wrote them; its own name comes last.
    pub scopes: Vec<String>,
    /// Class names beside `scopes`.
    pub classes: Vec<String>,
}

/// A named attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: OnnxValue,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum OnnxValue {
    /// `f`
    Float(f32),
    /// `i`
    Int(i64),
    /// `s`
    Text(String),
    /// `floats`
    Floats(Vec<f32>),
    /// `ints`
    Ints(Vec<i64>),
    /// `strings`
    Texts(Vec<String>),
    /// `t`
    Tensor(OnnxTensor),
    /// `g`
    Graph(Box<OnnxGraph>),
    /// The attribute of this name of the function's caller.
    Reference(String),
    /// A kind that nothing here reads.
    Other,
}

/// A function: a graph without types whose attributes come from its caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxFunction {
    /// Operator that it is.
    pub name: String,
    /// Domain of the operator.
    pub domain: String,
    /// Names of its inputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Attributes that have a default.
    pub defaults: Vec<OnnxAttribute>,
    /// Its nodes.
    pub nodes: Vec<OnnxNode>,
    /// Operator sets of its nodes.
    pub opsets: Vec<(String, i64)>,
}

/// An input or output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxPort {
    /// Its name.
    pub name: String,
    /// Number of its element type; 0 where the file does not say.
    pub element: i32,
    /// Its axes; none where the file does not say.
    pub shape: Option<Vec<OnnxDim>>,
}

/// Size of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum OnnxDim {
    /// A number.
    Size(i64),
    /// A name.
    Name(String),
    /// Nothing is said.
    Unknown,
}

/// A tensor with data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxTensor {
    /// Its name; empty for an attribute's.
    pub name: String,
    /// Number of its element type.
    pub element: i32,
    /// Shape.
    pub shape: Vec<i64>,
    /// Where the data are.
    pub data: OnnxData,
}

/// Where a tensor's data are.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OnnxData {
    /// Nowhere: only an empty tensor may have none.
    #[default]
    None,
    /// Bytes `offset .. offset + len` of the file: little-endian, row-major.
    Here {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Decoded into bytes of the element type.
    Bytes(Vec<u8>),
    /// In a file beside this one.
    External {
        /// Name of the file, from the model's directory.
        location: String,
        /// First byte.
        offset: u64,
        /// Number of bytes; to the end of the file where the model does not say.
        len: Option<u64>,
    },
}

/// Numbers of element types, as `TensorProto.DataType` has them.
pub mod element {
    use crate::encoding::Encoding;

    /// `FLOAT`
    pub const FLOAT: i32 = 1;
    /// `INT64`
    pub const INT64: i32 = 7;
    /// `BOOL`
    pub const BOOL: i32 = 9;
    const TABLE: [(i32, Encoding); 16] = [
        (FLOAT, Encoding::F32),
        (2, Encoding::U8),
        (3, Encoding::I8),
        (4, Encoding::U16),
        (5, Encoding::I16),
        (6, Encoding::I32),
        (INT64, Encoding::I64),
        (BOOL, Encoding::Bool),
        (10, Encoding::F16),
        (11, Encoding::F64),
        (12, Encoding::U32),
        (13, Encoding::U64),
        (14, Encoding::C64),
        (16, Encoding::Bf16),
        (17, Encoding::F8E4m3),
        (19, Encoding::F8E5m2),
    ];

    /// The encoding of an element type, where there is one (strings and 4-bit types have none).
    pub fn encoding(element: i32) -> Option<Encoding> {
        TABLE.iter().find(|(n, _)| *n == element).map(|(_, e)| *e)
    }

    /// The element type of an encoding.
    pub fn of(encoding: Encoding) -> Option<i32> {
        TABLE.iter().find(|(_, e)| *e == encoding).map(|(n, _)| *n)
    }
}
