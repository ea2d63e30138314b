//! Values that are known while a file is read: shape arithmetic, axes, scalars. Integers may be symbolic.

use pomona_graph::{BinaryFn, Dim, ValueType};

use super::context::{Fault, Lower, unsupported};

/// Most elements that are worked out here; larger constants stay tensors.
pub(super) const LIMIT: usize = 1 << 16;
/// Most bytes that the worked out values of a file take.
pub(super) const MEMORY: usize = 24 << 20;

/// A known value, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Host {
    pub shape: Vec<usize>,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Ints(Vec<Dim>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
}

impl Host {
    pub(super) fn ints(shape: Vec<usize>, values: Vec<Dim>) -> Host {
        Host { shape, data: Data::Ints(values) }
    }

    /// A list of integers, rank 1.
    pub(super) fn list(values: Vec<Dim>) -> Host {
        Host::ints(vec![values.len()], values)
    }

    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Ints(v) => v.len(),
            Data::Floats(v) => v.len(),
            Data::Bools(v) => v.len(),
        }
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        // An integer is a sum of products: a list and its only entry.
        let element = match &self.data {
            Data::Ints(_) => size_of::<Dim>() + 32,
            Data::Floats(_) => 8,
            Data::Bools(_) => 1,
        };
        self.len().saturating_mul(element)
    }

    pub(super) fn ty(&self) -> ValueType {
        match &self.data {
            Data::Ints(_) => ValueType::Int,
            Data::Floats(_) => ValueType::Float,
            Data::Bools(_) => ValueType::Bool,
        }
    }

    pub(super) fn dims(&self) -> Lower<&[Dim]> {
        match &self.data {
            Data::Ints(v) => Ok(v),
            _ => unsupported("a list of integers was expected"),
        }
    }

    /// Integers without symbols.
    pub(super) fn i64s(&self) -> Lower<Vec<i64>> {
        self.dims()?.iter().map(number).collect()
    }

    /// Numbers without symbols, whatever their type.
    pub(super) fn f64s(&self) -> Lower<Vec<f64>> {
        Ok(match &self.data {
            Data::Floats(v) => v.clone(),
            Data::Ints(_) => self.i64s()?.into_iter().map(|v| v as f64).collect(),
            Data::Bools(v) => v.iter().map(|b| f64::from(u8::from(*b))).collect(),
        })
    }

    /// The only element, whatever the rank.
    pub(super) fn scalar(&self) -> Option<f64> {
        if self.len() == 1 { self.f64s().ok()?.first().copied() } else { None }
    }

    /// Elements at these positions.
    pub(super) fn pick(&self, shape: Vec<usize>, at: &[usize]) -> Host {
        let data = match &self.data {
            Data::Ints(v) => Data::Ints(at.iter().map(|i| v[*i].clone()).collect()),
            Data::Floats(v) => Data::Floats(at.iter().map(|i| v[*i]).collect()),
            Data::Bools(v) => Data::Bools(at.iter().map(|i| v[*i]).collect()),
        };
        Host { shape, data }
    }

    /// Broadcast to a shape that it broadcasts to.
    pub(super) fn expand(&self, shape: &[usize]) -> Lower<Host> {
        if shape.len() < self.shape.len() || volume(shape) > LIMIT {
            return unsupported("a constant does not broadcast as asked");
        }
        let lead = shape.len() - self.shape.len();
        let strides = strides(&self.shape);
        let mut at = Vec::new();
        for index in indices(shape) {
            let mut from = 0;
            for (axis, size) in self.shape.iter().enumerate() {
                if *size != 1 && *size != shape[lead + axis] {
                    return unsupported("constants of different shapes meet");
                }
                from += if *size == 1 { 0 } else { index[lead + axis] * strides[axis] };
            }
            at.push(from);
        }
        Ok(self.pick(shape.to_vec(), &at))
    }

    pub(super) fn cast(&self, to: ValueType) -> Lower<Host> {
        let data = match (to, &self.data) {
            (ValueType::Int, Data::Ints(_))
            | (ValueType::Float, Data::Floats(_))
            | (ValueType::Bool, Data::Bools(_)) => self.data.clone(),
            (ValueType::Float, _) => Data::Floats(self.f64s()?),
            (ValueType::Int, _) => {
                Data::Ints(self.f64s()?.into_iter().map(|v| Dim::from(v as i64)).collect())
            }
            (ValueType::Bool, _) => Data::Bools(self.f64s()?.into_iter().map(|v| v != 0.0).collect()),
        };
        Ok(Host { shape: self.shape.clone(), data })
    }
}

/// A dimension's number; where it is symbolic its symbols must be bound first.
pub(super) fn number(d: &Dim) -> Lower<i64> {
    d.as_int().ok_or_else(|| Fault::Bind(d.symbols()))
}

/// Number of elements; the largest number where it does not fit one.
pub(super) fn volume(shape: &[usize]) -> usize {
    shape.iter().fold(1, |n, d| n.saturating_mul(*d))
}

pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1_usize; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i].saturating_mul(shape[i]);
    }
    out
}

/// Every index of a shape, row-major.
pub(super) fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    // A size of zero leaves nothing, whatever the others are.
    let total = if shape.contains(&0) { 0 } else { volume(shape) };
    let strides = strides(shape);
    (0..total).map(move |i| strides.iter().zip(shape).map(|(s, d)| i / s % d).collect())
}

fn broadcast(a: &[usize], b: &[usize]) -> Lower<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => unsupported("constants of different shapes meet"),
        })
        .collect()
}

/// A function of two known values.
pub(super) fn binary(function: BinaryFn, a: &Host, b: &Host) -> Lower<Host> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (a, b) = (a.expand(&shape)?, b.expand(&shape)?);
    let data = match (&a.data, &b.data) {
        (Data::Ints(x), Data::Ints(y)) if function.is_predicate() => {
            Data::Bools(x.iter().zip(y).map(|(p, q)| compare_dims(function, p, q)).collect::<Lower<_>>()?)
        }
        (Data::Ints(x), Data::Ints(y)) => {
            Data::Ints(x.iter().zip(y).map(|(p, q)| dims(function, p, q)).collect::<Lower<_>>()?)
        }
        (Data::Bools(x), Data::Bools(y)) => {
            let f = |(p, q): (&bool, &bool)| match function {
                BinaryFn::And => Ok(*p && *q),
                BinaryFn::Or => Ok(*p || *q),
                BinaryFn::Equal => Ok(p == q),
                _ => unsupported("arithmetic on truth values"),
            };
            Data::Bools(x.iter().zip(y).map(f).collect::<Lower<_>>()?)
        }
        _ => {
            let (x, y) = (a.f64s()?, b.f64s()?);
            if function.is_predicate() {
                Data::Bools(x.iter().zip(&y).map(|(p, q)| compare(function, *p, *q)).collect())
            } else {
                // Run times compute in f32.
                let f = |(p, q): (&f64, &f64)| f64::from(floats(function, *p, *q) as f32);
                Data::Floats(x.iter().zip(&y).map(f).collect())
            }
        }
    };
    Ok(Host { shape, data })
}

fn floats(function: BinaryFn, a: f64, b: f64) -> f64 {
    match function {
        BinaryFn::Add => a + b,
        BinaryFn::Sub => a - b,
        BinaryFn::Mul => a * b,
        BinaryFn::Div => a / b,
        BinaryFn::Pow => a.powf(b),
        BinaryFn::Min => a.min(b),
        BinaryFn::Max => a.max(b),
        BinaryFn::Mod => a - b * (a / b).floor(),
        _ => f64::from(u8::from(compare(function, a, b))),
    }
}

fn compare(function: BinaryFn, a: f64, b: f64) -> bool {
    match function {
        BinaryFn::Less => a < b,
        BinaryFn::LessEqual => a <= b,
        BinaryFn::Greater => a > b,
        BinaryFn::GreaterEqual => a >= b,
        BinaryFn::And => a != 0.0 && b != 0.0,
        BinaryFn::Or => a != 0.0 || b != 0.0,
        _ => a == b,
    }
}

/// Comparisons that hold for every size of the symbols: sizes are at least 1 where a network runs.
fn compare_dims(function: BinaryFn, a: &Dim, b: &Dim) -> Lower<bool> {
    if a == b {
        return Ok(!matches!(function, BinaryFn::Less | BinaryFn::Greater));
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return Ok(match function {
            BinaryFn::Less => x < y,
            BinaryFn::LessEqual => x <= y,
            BinaryFn::Greater => x > y,
            BinaryFn::GreaterEqual => x >= y,
            BinaryFn::Equal => x == y,
            BinaryFn::And => x != 0 && y != 0,
            _ => x != 0 || y != 0,
        });
    }
    // A size never equals -1 or 0, the marks of reshapes.
    let (known, size) = match (a.as_int(), b.as_int()) {
        (Some(x), None) => (x, b),
        (None, Some(y)) => (y, a),
        _ => return Err(Fault::Bind([a.symbols(), b.symbols()].concat())),
    };
    let plain = !size.to_string().contains('-');
    match function {
        BinaryFn::Equal if known <= 0 && plain => Ok(false),
        BinaryFn::Less | BinaryFn::LessEqual if known <= 0 && plain => Ok(a.as_int().is_some()),
        BinaryFn::Greater | BinaryFn::GreaterEqual if known <= 0 && plain => Ok(a.as_int().is_none()),
        _ => Err(Fault::Bind(size.symbols())),
    }
}

fn dims(function: BinaryFn, a: &Dim, b: &Dim) -> Lower<Dim> {
    let numbers = a.as_int().zip(b.as_int());
    Ok(match (function, numbers) {
        (BinaryFn::Add, _) => a.checked_add(b)?,
        (BinaryFn::Sub, _) => a.checked_add(&b.checked_mul(&Dim::from(-1))?)?,
        (BinaryFn::Mul, _) => a.checked_mul(b)?,
        // Integer division rounds towards zero.
        (BinaryFn::Div, Some((x, y))) => match x.checked_div(y) {
            Some(q) => q.into(),
            None => return unsupported("a division by zero in shape arithmetic"),
        },
        (BinaryFn::Div, None) => a.floor_div(b)?,
        (BinaryFn::Mod, Some((x, y))) => match x.checked_rem_euclid(y) {
            Some(r) => r.into(),
            None => return unsupported("a division by zero in shape arithmetic"),
        },
        (BinaryFn::Mod, None) => {
            let whole = a.floor_div(b)?.checked_mul(b)?;
            a.checked_add(&whole.checked_mul(&Dim::from(-1))?)?
        }
        (BinaryFn::Min, Some((x, y))) => x.min(y).into(),
        (BinaryFn::Max, Some((x, y))) => x.max(y).into(),
        (BinaryFn::Min, None) => extreme(a, b, false)?,
        (BinaryFn::Max, None) => extreme(a, b, true)?,
        (BinaryFn::Pow, Some((x, y))) => {
            u32::try_from(y).ok().and_then(|y| x.checked_pow(y)).unwrap_or(i64::MAX).into()
        }
        _ => return Err(Fault::Bind([a.symbols(), b.symbols()].concat())),
    })
}

/// The larger or smaller of a size and a number that every size is above or below.
fn extreme(a: &Dim, b: &Dim, largest: bool) -> Lower<Dim> {
    let (size, known) = match (a.as_int(), b.as_int()) {
        (None, Some(k)) => (a, k),
        (Some(k), None) => (b, k),
        _ if a == b => return Ok(a.clone()),
        _ => return Err(Fault::Bind([a.symbols(), b.symbols()].concat())),
    };
    let plain = !size.to_string().contains('-');
    match (known <= 1 && plain, known >= i64::from(i32::MAX)) {
        (true, _) => Ok(if largest { size.clone() } else { known.into() }),
        (_, true) => Ok(if largest { known.into() } else { size.clone() }),
        _ => Err(Fault::Bind(size.symbols())),
    }
}
