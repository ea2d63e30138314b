//! Metadata values of GGUF.

/// A metadata value. Arrays are homogeneous, as in the format.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    String(String),
    /// Type 9, with the type number of its elements (kept for empty arrays).
    Array(u32, Vec<GgufValue>),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

impl GgufValue {
    /// Type number in the file.
    pub fn type_id(&self) -> u32 {
        match self {
            GgufValue::U8(_) => 0,
            GgufValue::I8(_) => 1,
            GgufValue::U16(_) => 2,
            GgufValue::I16(_) => 3,
            GgufValue::U32(_) => 4,
            GgufValue::I32(_) => 5,
            GgufValue::F32(_) => 6,
            GgufValue::Bool(_) => 7,
            GgufValue::String(_) => 8,
            GgufValue::Array(..) => 9,
            GgufValue::U64(_) => 10,
            GgufValue::I64(_) => 11,
            GgufValue::F64(_) => 12,
        }
    }

    /// Any integer type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            GgufValue::U8(v) => Some((*v).into()),
            GgufValue::U16(v) => Some((*v).into()),
            GgufValue::U32(v) => Some((*v).into()),
            GgufValue::U64(v) => Some(*v),
            other => other.as_i64().and_then(|v| v.try_into().ok()),
        }
    }

    /// Any integer type that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            GgufValue::I8(v) => Some((*v).into()),
            GgufValue::I16(v) => Some((*v).into()),
            GgufValue::I32(v) => Some((*v).into()),
            GgufValue::I64(v) => Some(*v),
            GgufValue::U8(v) => Some((*v).into()),
            GgufValue::U16(v) => Some((*v).into()),
            GgufValue::U32(v) => Some((*v).into()),
            GgufValue::U64(v) => (*v).try_into().ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            GgufValue::F32(v) => Some((*v).into()),
            GgufValue::F64(v) => Some(*v),
            other => other.as_i64().map(|v| v as f64),
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let GgufValue::Bool(v) = self { Some(*v) } else { None }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        if let GgufValue::String(v) = self { Some(v) } else { None }
    }

    /// An array's elements.
    pub fn as_array(&self) -> Option<&[GgufValue]> {
        if let GgufValue::Array(_, v) = self { Some(v) } else { None }
    }

    /// An array of strings.
    pub fn strings<S: Into<String>>(values: impl IntoIterator<Item = S>) -> GgufValue {
        GgufValue::Array(8, values.into_iter().map(|s| GgufValue::String(s.into())).collect())
    }
}
