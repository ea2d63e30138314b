//! What a pickle builds: plain values, and objects on a heap that instructions may share and change.

use super::globals::Global;
use crate::encoding::Encoding;

/// A value; objects stand on the [`Heap`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 8 bytes, least significant first.
    Long(&'a [u8]),
    Text(&'a str),
    Global(Global),
    Object(usize),
    /// Numbers, bytes and instances that no tensor is made of.
    Inert,
}

/// Something with parts.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(Box<View<'a>>),
}

/// A storage, or a part of one (legacy files only).
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    /// Type of its elements; none where it counts bytes.
    pub encoding: Option<Encoding>,
    /// First element, from the beginning of the stored data.
    pub start: u64,
    /// Number of elements.
    pub len: u64,
}

/// A tensor: a strided look at a storage.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub storage: Storage<'a>,
    pub encoding: Encoding,
    /// First element.
    pub offset: u64,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<u64>,
}

/// Objects by number.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    objects: Vec<Object<'a>>,
    /// Memory that the pickles of the file took.
    taken: usize,
}

/// Memory that any file may take.
const FREE_MEMORY: usize = 16 << 20;
/// Bytes of memory for each byte of a pickle: state dicts take about eight, a row of empty objects sixteen and more.
const MEMORY_PER_BYTE: usize = 12;

impl<'a> Heap<'a> {
    pub(super) fn add(&mut self, object: Object<'a>) -> Value<'a> {
        let parts = match &object {
            Object::Tuple(items) | Object::List(items) => size_of_val(items.as_slice()),
            Object::Dict(entries) => size_of_val(entries.as_slice()),
            Object::Storage(_) => 0,
            // Its shape and strides.
            Object::Tensor(view) => size_of::<View<'_>>() + 16 * view.shape.len(),
        };
        self.take(size_of::<Object<'_>>() + parts);
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    /// Counts memory that something takes for as long as the file is read.
    pub(super) fn take(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
    }

    /// Refuses a pickle that takes more memory than its first `length` bytes are worth.
    pub(super) fn check(&self, length: usize) -> Result<(), String> {
        let worth = FREE_MEMORY.saturating_add(length.saturating_mul(MEMORY_PER_BYTE));
        if self.taken > worth {
            return Err(format!("takes more memory than {length} bytes of pickle are worth ({worth} bytes)"));
        }
        Ok(())
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Object<'a>> {
        self.objects.iter()
    }

    pub(super) fn get(&self, value: Value<'a>) -> Option<&Object<'a>> {
        if let Value::Object(i) = value { self.objects.get(i) } else { None }
    }

    pub(super) fn get_mut(&mut self, value: Value<'a>) -> Option<&mut Object<'a>> {
        if let Value::Object(i) = value { self.objects.get_mut(i) } else { None }
    }

    /// Parts of a tuple or list.
    pub(super) fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.get(value)? {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// Entries of a dictionary.
    pub(super) fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        if let Object::Dict(entries) = self.get(value)? { Some(entries) } else { None }
    }

    /// What a value is, for messages.
    pub(super) fn kind(&self, value: Value<'a>) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Text(_) => "a string",
            Value::Global(_) => "a class",
            Value::Inert => "a plain value",
            Value::Object(_) => match self.get(value) {
                Some(Object::Tuple(_)) => "a tuple",
                Some(Object::List(_)) => "a list",
                Some(Object::Dict(_)) => "a dictionary",
                Some(Object::Storage(_)) => "a storage",
                Some(Object::Tensor(_)) => "a tensor",
                None => "nothing",
            },
        }
    }
}
