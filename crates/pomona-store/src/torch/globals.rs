//! The names that a pickle may refer to, and what each stands for here. None of them is ever called.

use crate::encoding::Encoding;

/// An allowed name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch.Size`.
    Size,
    /// A function that puts a tensor together from a storage, offset, shape and strides; its last argument is the type.
    RebuildTensor {
        /// Whether the type is an argument instead of being the storage's.
        typed: bool,
    },
    /// A function that wraps a tensor into a parameter.
    RebuildParameter,
    /// A storage class; without an element type where it is the untyped one.
    Storage(Option<Encoding>),
    /// A type of elements.
    Dtype(Encoding),
    /// Something that stands beside weights in training checkpoints and is left out.
    Inert,
}

/// Names of element types, as `torch.NAME`, and of the storage classes of older versions.
const TYPES: &[(&str, &str, Encoding)] = &[
    ("float64", "DoubleStorage", Encoding::F64),
    ("float32", "FloatStorage", Encoding::F32),
    ("float16", "HalfStorage", Encoding::F16),
    ("bfloat16", "BFloat16Storage", Encoding::Bf16),
    ("int64", "LongStorage", Encoding::I64),
    ("int32", "IntStorage", Encoding::I32),
    ("int16", "ShortStorage", Encoding::I16),
    ("int8", "CharStorage", Encoding::I8),
    ("uint8", "ByteStorage", Encoding::U8),
    ("bool", "BoolStorage", Encoding::Bool),
    ("complex64", "ComplexFloatStorage", Encoding::C64),
    ("uint16", "", Encoding::U16),
    ("uint32", "", Encoding::U32),
    ("uint64", "", Encoding::U64),
    ("float8_e4m3fn", "", Encoding::F8E4m3),
    ("float8_e5m2", "", Encoding::F8E5m2),
    ("float8_e4m3fnuz", "", Encoding::F8E4m3Fnuz),
    ("float8_e5m2fnuz", "", Encoding::F8E5m2Fnuz),
    ("float8_e8m0fnu", "", Encoding::F8E8m0),
];

/// Values that training loops save beside the weights.
const INERT: &[(&str, &str)] = &[
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("builtins", "set"),
    ("__builtin__", "set"),
    ("builtins", "bytearray"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("datetime", "datetime"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
];

/// What a name stands for; none where it is refused.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch", "Size") => Global::Size,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor { typed: false },
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensor { typed: true },
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch" | "torch.storage", "UntypedStorage" | "_UntypedStorage") => Global::Storage(None),
        ("torch" | "torch.cuda", class) if class.ends_with("Storage") => {
            Global::Storage(Some(TYPES.iter().find(|t| t.1 == class)?.2))
        }
        ("torch", dtype) if TYPES.iter().any(|t| t.0 == dtype) => {
            Global::Dtype(TYPES.iter().find(|t| t.0 == dtype)?.2)
        }
        pair => return INERT.contains(&pair).then_some(Global::Inert),
    })
}
