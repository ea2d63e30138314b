//! The pickle machine: the instructions that state dicts consist of, over values that do nothing.

use std::collections::HashMap;

use super::globals::{self, Global};
use super::value::{Heap, Object, Storage, Value, View};

/// Values on the stack, far more than any checkpoint has at once.
const MAX_STACK: usize = 1 << 18;
/// Opened and not yet closed marks.
const MAX_MARKS: usize = 1 << 16;
/// Axes of a tensor; PyTorch itself allows 64.
const MAX_RANK: usize = 64;
/// Memory of an entry of the memo, with the room that its table keeps free.
const MEMO_ENTRY: usize = 56;

/// Result of an instruction; the reason lacks the place.
type Step<T> = Result<T, String>;

struct Machine<'a, 'h> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    heap: &'h mut Heap<'a>,
}

/// Runs the pickle at the beginning of `bytes`: its value and its length.
///
/// # Errors
/// The instruction, its byte, and the reason.
pub(super) fn run<'a>(bytes: &'a [u8], heap: &mut Heap<'a>) -> Result<(Value<'a>, usize), String> {
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut m = Machine { bytes, at: 0, stack, marks, memo, heap };
    loop {
        let at = m.at;
        let Some(&code) = bytes.get(at) else {
            return Err(format!("ends at byte {at} without STOP: the file is truncated, fetch it again"));
        };
        m.at += 1;
        match m.step(code).and_then(|done| m.heap.check(m.at).map(|()| done)) {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((value, m.at)),
            Err(reason) => return Err(format!("{} at byte {at}: {reason}", name(code))),
        }
    }
}

impl<'a> Machine<'a, '_> {
    /// One instruction; the pickle's value at its end.
    fn step(&mut self, code: u8) -> Step<Option<Value<'a>>> {
        match code {
            0x80 => drop(self.take(1)?), // PROTO
            0x95 => drop(self.take(8)?), // FRAME
            b'.' => {
                let value = self.pop()?;
                return Ok(Some(value));
            }
            b'(' => {
                if self.marks.len() >= MAX_MARKS {
                    return Err(format!("more than {MAX_MARKS} marks are open"));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.integer(code)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Inert)?;
            }
            b'X' | b'U' | b'T' | 0x8c | 0x8d => self.text(code)?,
            b'B' | b'C' | 0x8e | 0x96 => {
                let len = match code {
                    b'C' => self.number(1)?,
                    b'B' => self.number(4)?,
                    _ => self.number(8)?,
                };
                self.take_long(len)?;
                self.push(Value::Inert)?;
            }
            b']' => self.object(Object::List(Vec::new()))?,
            b'}' => self.object(Object::Dict(Vec::new()))?,
            0x8f => self.push(Value::Inert)?, // EMPTY_SET
            b')' => self.object(Object::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.object(Object::Tuple(items))?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.object(Object::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.object(Object::List(items))?;
            }
            b'd' => {
                let entries = pairs(self.pop_to_mark()?)?;
                self.object(Object::Dict(entries))?;
            }
            0x91 => {
                self.pop_to_mark()?; // FROZENSET
                self.push(Value::Inert)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let entry = self.pop_many(2)?;
                self.set(entry)?;
            }
            b'u' => {
                let entries = self.pop_to_mark()?;
                self.set(entries)?;
            }
            b'q' | b'r' | 0x94 => self.remember(code)?,
            b'h' | b'j' => {
                let key = self.number(if code == b'h' { 1 } else { 4 })?;
                let value = self.memo.get(&key).copied();
                self.push(value.ok_or_else(|| format!("entry {key} was never stored"))?)?;
            }
            b'c' => {
                let (module, class) = (self.line()?, self.line()?);
                self.global(module, class)?;
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                let [Value::Text(module), Value::Text(class)] = parts[..] else {
                    return Err("two strings were expected".to_owned());
                };
                self.global(module, class)?;
            }
            b'R' | 0x81 => {
                let parts = self.pop_many(2)?;
                let made = self.call(parts[0], parts[1])?;
                self.push(made)?;
            }
            b'b' => {
                self.pop()?;
                let target = self.top()?;
                if !matches!(self.heap.get(target), Some(Object::Dict(_) | Object::Tensor(_)))
                    && target != Value::Inert
                {
                    return Err(format!("{} has no state to set", self.heap.kind(target)));
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.object(Object::Storage(storage))?;
            }
            _ => return Err("is not among the instructions of a state dict; refused".to_owned()),
        }
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let rest = self.bytes.len() - self.at;
        if len > rest {
            return Err(format!(
                "needs {len} bytes and {rest} follow: the file is truncated, fetch it again"
            ));
        }
        let out = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(out)
    }

    fn take_long(&mut self, len: u64) -> Step<&'a [u8]> {
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// An unsigned number, least significant byte first.
    fn number(&mut self, bytes: usize) -> Step<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        // Names of modules and classes are short; a missing newline must not cost a search through the file.
        let end = rest.iter().take(1024).position(|b| *b == b'\n');
        let end = end.ok_or("a line of at most 1024 bytes was expected")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "its name is not UTF-8".to_owned())
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.stack.len() >= MAX_STACK {
            return Err(format!("more than {MAX_STACK} values are on the stack"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn object(&mut self, object: Object<'a>) -> Step<()> {
        let value = self.heap.add(object);
        self.push(value)
    }

    /// Values above the last mark: an instruction must not reach below it.
    fn above(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0).min(self.stack.len())
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let some = self.above() > 0;
        some.then(|| self.stack.pop()).flatten().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn top(&self) -> Step<Value<'a>> {
        let some = self.above() > 0;
        some.then(|| self.stack.last().copied()).flatten().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop_many(&mut self, n: usize) -> Step<Vec<Value<'a>>> {
        if self.above() < n {
            return Err(format!("needs {n} values and {} are on the stack", self.above()));
        }
        Ok(self.stack.split_off(self.stack.len() - n))
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("no mark was set")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn integer(&mut self, code: u8) -> Step<()> {
        let bytes = match code {
            b'K' => return self.number(1).and_then(|n| self.push(Value::Int(n as i64))),
            b'M' => return self.number(2).and_then(|n| self.push(Value::Int(n as i64))),
            b'J' => self.take(4)?,
            0x8a => {
                let len = self.number(1)?;
                self.take_long(len)?
            }
            _ => {
                let len = self.number(4)?;
                self.take_long(len)?
            }
        };
        if bytes.len() > 8 {
            return self.push(Value::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut word = if negative { [0xff; 8] } else { [0; 8] };
        word[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(word)))
    }

    fn text(&mut self, code: u8) -> Step<()> {
        let len = match code {
            b'U' | 0x8c => self.number(1)?,
            b'X' | b'T' => self.number(4)?,
            _ => self.number(8)?,
        };
        let bytes = self.take_long(len)?;
        // Python 2 wrote bytes as strings; those that are not text name nothing.
        self.push(std::str::from_utf8(bytes).map_or(Value::Inert, Value::Text))
    }

    fn extend(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        let target = self.top()?;
        self.heap.take(size_of_val(items.as_slice()));
        match self.heap.get_mut(target) {
            Some(Object::List(list)) => list.extend(items),
            _ if target == Value::Inert => {}
            _ => return Err(format!("{} takes no items", self.heap.kind(target))),
        }
        Ok(())
    }

    fn set(&mut self, entries: Vec<Value<'a>>) -> Step<()> {
        let (target, entries) = (self.top()?, pairs(entries)?);
        self.heap.take(size_of_val(entries.as_slice()));
        match self.heap.get_mut(target) {
            Some(Object::Dict(dict)) => dict.extend(entries),
            _ if target == Value::Inert => {}
            _ => return Err(format!("{} takes no entries", self.heap.kind(target))),
        }
        Ok(())
    }

    fn remember(&mut self, code: u8) -> Step<()> {
        let key = match code {
            b'q' => self.number(1)?,
            b'r' => self.number(4)?,
            _ => self.memo.len() as u64,
        };
        let value = self.top()?;
        if self.memo.insert(key, value).is_none() {
            self.heap.take(MEMO_ENTRY);
        }
        Ok(())
    }

    fn global(&mut self, module: &str, class: &str) -> Step<()> {
        let found = globals::find(module, class).ok_or_else(|| {
            format!(
                "asks for `{module}.{class}`, which is not allowed: a file may name tensors and plain values only; \
                 save the weights with torch.save(model.state_dict(), ...)"
            )
        })?;
        self.push(Value::Global(found))
    }

    /// What a call or a construction stands for; nothing is called.
    fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Step<Value<'a>> {
        let Value::Global(function) = function else {
            if function == Value::Inert {
                return Ok(Value::Inert);
            }
            return Err(format!("{} cannot be called", self.heap.kind(function)));
        };
        let Some(args) = self.heap.items(arguments) else {
            return Err(format!("arguments are {}; a tuple was expected", self.heap.kind(arguments)));
        };
        let first = args.first().copied();
        match function {
            Global::OrderedDict => {
                // Python 2 gives the entries as a list of pairs.
                let list = first.and_then(|l| self.heap.items(l)).unwrap_or_default();
                let mut entries = Vec::with_capacity(list.len());
                for &pair in list {
                    let Some(&[key, value]) = self.heap.items(pair) else {
                        return Err("an entry of the dictionary is no pair".to_owned());
                    };
                    entries.push((key, value));
                }
                Ok(self.heap.add(Object::Dict(entries)))
            }
            Global::Size => first.ok_or_else(|| "a size has no value".to_owned()),
            Global::RebuildTensor { typed } => {
                let view = self.tensor(args, typed)?;
                Ok(self.heap.add(Object::Tensor(Box::new(view))))
            }
            Global::RebuildParameter => match first {
                Some(v) if matches!(self.heap.get(v), Some(Object::Tensor(_))) => Ok(v),
                _ => Err("a parameter holds no tensor".to_owned()),
            },
            Global::Inert => Ok(Value::Inert),
            Global::Storage(_) | Global::Dtype(_) => Err("a type cannot be called".to_owned()),
        }
    }

    /// A tensor of `(storage, offset, shape, strides, ..)`; the type is the seventh argument where `typed`.
    fn tensor(&self, args: &[Value<'a>], typed: bool) -> Step<View<'a>> {
        let &[storage, offset, shape, strides, ..] = args else {
            return Err(format!(
                "a tensor has {} parts; storage, offset, shape and strides were expected",
                args.len()
            ));
        };
        let Some(&Object::Storage(storage)) = self.heap.get(storage) else {
            return Err(format!("a tensor lies in {}; a storage was expected", self.heap.kind(storage)));
        };
        let encoding = match (typed, args.get(6)) {
            (true, Some(Value::Global(Global::Dtype(e)))) => Some(*e),
            (true, _) => None,
            (false, _) => storage.encoding,
        };
        let encoding = encoding.ok_or("a tensor has no element type")?;
        let shape = self.sizes(shape, "shape")?;
        let strides = self.sizes(strides, "strides")?;
        if shape.len() != strides.len() {
            return Err(format!("a tensor has {} axes and {} strides", shape.len(), strides.len()));
        }
        let shape = shape.iter().map(|d| usize::try_from(*d)).collect::<Result<_, _>>();
        let shape = shape.map_err(|_| "a shape overflows")?;
        Ok(View { storage, encoding, offset: self.size(offset, "offset")?, shape, strides })
    }

    fn size(&self, value: Value<'a>, what: &str) -> Step<u64> {
        match value {
            Value::Int(n) => {
                u64::try_from(n).map_err(|_| format!("the {what} has {n}, which is less than zero"))
            }
            other => Err(format!("the {what} has {}; a size was expected", self.heap.kind(other))),
        }
    }

    fn sizes(&self, value: Value<'a>, what: &str) -> Step<Vec<u64>> {
        let items = self.heap.items(value);
        let items =
            items.ok_or_else(|| format!("{what} is {}; a tuple was expected", self.heap.kind(value)))?;
        if items.len() > MAX_RANK {
            return Err(format!("{what} has {} axes; at most {MAX_RANK} were expected", items.len()));
        }
        items.iter().map(|v| self.size(*v, what)).collect()
    }

    /// The storage of a persistent id: `("storage", class, key, device, length)` and, in legacy files, the part of it.
    fn storage(&self, id: Value<'a>) -> Step<Storage<'a>> {
        let parts = self.heap.items(id).unwrap_or_default();
        let &[Value::Text("storage"), Value::Global(Global::Storage(encoding)), Value::Text(key), _, len, ..] =
            parts
        else {
            return Err("a storage, its class, key, device and length were expected".to_owned());
        };
        let (mut start, mut len) = (0, self.size(len, "storage's length")?);
        if let Some(&part) = parts.get(5).filter(|v| **v != Value::None) {
            let Some(&[Value::Text(_), offset, length]) = self.heap.items(part) else {
                return Err("part of a storage: key, offset and length were expected".to_owned());
            };
            (start, len) = (self.size(offset, "part's offset")?, self.size(length, "part's length")?);
        }
        Ok(Storage { key, encoding, start, len })
    }
}

fn pairs<'a>(items: Vec<Value<'a>>) -> Step<Vec<(Value<'a>, Value<'a>)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a key has no value".to_owned());
    }
    Ok(items.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

/// An instruction as `pickletools` calls it.
fn name(code: u8) -> String {
    let known = match code {
        b'(' => "MARK",
        b'.' => "STOP",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        b'G' => "BINFLOAT",
        b'J' => "BININT",
        b'K' => "BININT1",
        b'M' => "BININT2",
        b'N' => "NONE",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        b'R' => "REDUCE",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'X' => "BINUNICODE",
        b'a' => "APPEND",
        b'b' => "BUILD",
        b'c' => "GLOBAL",
        b'd' => "DICT",
        b'e' => "APPENDS",
        b'h' => "BINGET",
        b'i' => "INST",
        b'j' => "LONG_BINGET",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'q' => "BINPUT",
        b'r' => "LONG_BINPUT",
        b's' => "SETITEM",
        b't' => "TUPLE",
        b'u' => "SETITEMS",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82..=0x84 => "EXT",
        0x85 => "TUPLE1",
        0x86 => "TUPLE2",
        0x87 => "TUPLE3",
        0x8a => "LONG1",
        0x8b => "LONG4",
        0x8c => "SHORT_BINUNICODE",
        0x8d => "BINUNICODE8",
        0x90 => "ADDITEMS",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        _ => return format!("instruction 0x{code:02x}"),
    };
    known.to_owned()
}
