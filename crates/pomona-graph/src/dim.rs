//! Symbolic dimensions: integers, symbols and expressions of them, kept in one normal form.
//!
//! A [`Dim`] is a sum of integer multiples of products of atoms; an atom is a symbol or a floor division that does not
//! come out even. Equal expressions therefore have equal values: `2*h - h == h`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Sub};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::GraphError;

/// Sizes for symbols, as given to [`crate::Graph::bind`].
pub type Bindings = BTreeMap<String, i64>;

/// Products of sums are written out: without a limit a short expression in a hostile file takes hours.
const MAX_TERMS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Atom {
    Symbol(Arc<str>),
    Floor(Box<Dim>, Box<Dim>),
}

/// A size along one axis: an integer, a symbol, or an expression with `+`, `-`, `*` and floor division.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim {
    /// Products of sorted atoms with their integer factor, never zero. The empty product is the constant.
    terms: Vec<(Vec<Atom>, i64)>,
}

/// A factor of a product in a [`Dim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DimFactor {
    /// A symbol.
    Symbol(String),
    /// The first divided by the second, rounded down.
    Floor(Dim, Dim),
}

impl Dim {
    /// The sum that this is: products of factors, each with its integer; the empty product is the constant.
    pub fn terms(&self) -> Vec<(Vec<DimFactor>, i64)> {
        let factor = |a: &Atom| match a {
            Atom::Symbol(s) => DimFactor::Symbol(s.to_string()),
            Atom::Floor(a, b) => DimFactor::Floor(Dim::clone(a), Dim::clone(b)),
        };
        self.terms.iter().map(|(atoms, n)| (atoms.iter().map(factor).collect(), *n)).collect()
    }

    /// The symbol `name`.
    pub fn symbol(name: impl AsRef<str>) -> Self {
        Self { terms: vec![(vec![Atom::Symbol(name.as_ref().into())], 1)] }
    }

    /// The integer this is, if it holds no symbol.
    pub fn as_int(&self) -> Option<i64> {
        match self.terms.as_slice() {
            [] => Some(0),
            [(atoms, factor)] if atoms.is_empty() => Some(*factor),
            _ => None,
        }
    }

    /// The integer as a size; an error that names `what` where it is symbolic or negative.
    pub fn size(&self, what: &str) -> Result<usize, GraphError> {
        self.as_int()
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| GraphError::Unbound { what: what.to_owned(), dim: self.to_string() })
    }

    /// Floor division. Exact where every term divides; otherwise kept as an atom that `bind` resolves.
    pub fn floor_div(&self, by: &Dim) -> Result<Dim, GraphError> {
        match (self.as_int(), by.as_int()) {
            (_, Some(0)) => {
                return Err(GraphError::Dimension(format!(
                    "{self} / 0: a dimension cannot be divided by zero"
                )));
            }
            // Rounds down for negative divisors too; the smallest integer by -1 has no result.
            (Some(a), Some(b)) => return a.checked_div_euclid(b).map(Dim::from).ok_or_else(overflow),
            (_, Some(1)) => return Ok(self.clone()),
            (None, Some(b)) if self.terms.iter().all(|(_, f)| f.checked_rem(b) == Some(0)) => {
                let divided = self.terms.iter().map(|(a, f)| Some((a.clone(), f.checked_div(b)?)));
                return Ok(Self { terms: divided.collect::<Option<_>>().ok_or_else(overflow)? });
            }
            _ if self == by => return Ok(1.into()),
            _ => {}
        }
        if let Some(quotient) = self.divide_by_product(by) {
            return Ok(quotient);
        }
        Ok(Self { terms: vec![(vec![Atom::Floor(Box::new(self.clone()), Box::new(by.clone()))], 1)] })
    }

    /// Exact division: an error where the remainder is known not to be zero.
    pub fn exact_div(&self, by: &Dim) -> Result<Dim, GraphError> {
        if let (Some(a), Some(b)) = (self.as_int(), by.as_int())
            && a.checked_rem(b) != Some(0)
        {
            return Err(GraphError::Dimension(format!("{a} is not divisible by {b}")));
        }
        self.floor_div(by)
    }

    /// `self / by` where `by` is a single product that divides every term.
    fn divide_by_product(&self, by: &Dim) -> Option<Dim> {
        let [(atoms, factor)] = by.terms.as_slice() else { return None };
        let mut out = Vec::with_capacity(self.terms.len());
        for (own, f) in &self.terms {
            let mut rest = own.clone();
            for a in atoms {
                let at = rest.iter().position(|r| r == a)?;
                rest.remove(at);
            }
            if f.checked_rem(*factor)? != 0 {
                return None;
            }
            out.push((rest, f.checked_div(*factor)?));
        }
        Some(Self::normal(out))
    }

    /// Replaces symbols by integers; symbols without a binding stay.
    pub fn bind(&self, sizes: &Bindings) -> Result<Dim, GraphError> {
        let mut sum = Dim::from(0);
        for (atoms, factor) in &self.terms {
            let mut product = Dim::from(*factor);
            for atom in atoms {
                let value = match atom {
                    Atom::Symbol(name) => match sizes.get(name.as_ref()) {
                        Some(v) => Dim::from(*v),
                        None => Dim::symbol(name),
                    },
                    Atom::Floor(a, b) => a.bind(sizes)?.floor_div(&b.bind(sizes)?)?,
                };
                product = product.checked_mul(&value)?;
            }
            sum = sum.checked_add(&product)?;
        }
        Ok(sum)
    }

    /// The symbols in it, sorted, each once.
    pub fn symbols(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect_symbols(&mut out);
        out.sort();
        out.dedup();
        out
    }

    fn collect_symbols(&self, out: &mut Vec<String>) {
        for atom in self.terms.iter().flat_map(|(atoms, _)| atoms) {
            match atom {
                Atom::Symbol(s) => out.push(s.to_string()),
                Atom::Floor(a, b) => {
                    a.collect_symbols(out);
                    b.collect_symbols(out);
                }
            }
        }
    }

    /// Sum; an error on overflow of 64 bits.
    pub fn checked_add(&self, other: &Dim) -> Result<Dim, GraphError> {
        let mut terms = self.terms.clone();
        for (atoms, factor) in &other.terms {
            match terms.iter_mut().find(|(a, _)| a == atoms) {
                Some((_, f)) => *f = f.checked_add(*factor).ok_or_else(overflow)?,
                None => terms.push((atoms.clone(), *factor)),
            }
        }
        Ok(Self::normal(terms))
    }

    /// Product; an error on overflow of 64 bits.
    pub fn checked_mul(&self, other: &Dim) -> Result<Dim, GraphError> {
        if self.terms.len().saturating_mul(other.terms.len()) > MAX_TERMS {
            return Err(GraphError::Dimension(format!(
                "a dimension has more than {MAX_TERMS} terms: no model's size is such a product of sums"
            )));
        }
        let mut sum = Dim::from(0);
        for (a, fa) in &self.terms {
            for (b, fb) in &other.terms {
                let mut atoms: Vec<Atom> = a.iter().chain(b).cloned().collect();
                atoms.sort();
                let factor = fa.checked_mul(*fb).ok_or_else(overflow)?;
                sum = sum.checked_add(&Dim { terms: vec![(atoms, factor)] })?;
            }
        }
        Ok(sum)
    }

    fn normal(mut terms: Vec<(Vec<Atom>, i64)>) -> Dim {
        terms.retain(|(_, f)| *f != 0);
        terms.sort();
        Dim { terms }
    }
}

fn overflow() -> GraphError {
    GraphError::Dimension(
        "a dimension does not fit 64 bits: check the sizes in the model's config".to_owned(),
    )
}

impl From<i64> for Dim {
    fn from(v: i64) -> Self {
        Dim::normal(vec![(Vec::new(), v)])
    }
}

impl From<i32> for Dim {
    fn from(v: i32) -> Self {
        i64::from(v).into()
    }
}

impl From<usize> for Dim {
    /// Sizes above `i64::MAX` saturate: no tensor has them, and every use of such a size fails its bounds check.
    fn from(v: usize) -> Self {
        i64::try_from(v).unwrap_or(i64::MAX).into()
    }
}

impl From<&Dim> for Dim {
    fn from(d: &Dim) -> Self {
        d.clone()
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Dim::symbol(name)
    }
}

macro_rules! saturating_operator {
    ($trait:ident, $method:ident, $f:expr) => {
        impl<T: Into<Dim>> $trait<T> for Dim {
            type Output = Dim;
            /// Saturates at the largest 64-bit size on overflow; use the `checked_` form on untrusted sizes.
            fn $method(self, other: T) -> Dim {
                let f: fn(&Dim, &Dim) -> Result<Dim, GraphError> = $f;
                f(&self, &other.into()).unwrap_or_else(|_| Dim::from(i64::MAX))
            }
        }
    };
}
saturating_operator!(Add, add, |a, b| a.checked_add(b));
saturating_operator!(Sub, sub, |a, b| a.checked_add(&b.checked_mul(&Dim::from(-1))?));
saturating_operator!(Mul, mul, |a, b| a.checked_mul(b));

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return write!(f, "0");
        }
        // Symbols before the constant, as a person writes them: `2*h + 1`.
        for (i, (atoms, factor)) in self.terms.iter().rev().enumerate() {
            let sign = match (i, *factor < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            write!(f, "{sign}")?;
            let size = factor.unsigned_abs();
            if size != 1 || atoms.is_empty() {
                write!(f, "{size}")?;
            }
            for (k, atom) in atoms.iter().enumerate() {
                if k > 0 || size != 1 {
                    write!(f, "*")?;
                }
                match atom {
                    Atom::Symbol(s) => crate::dim_parse::write_symbol(f, s)?,
                    Atom::Floor(a, b) => write!(f, "floor({a}, {b})")?,
                }
            }
        }
        Ok(())
    }
}

impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.as_int() {
            Some(v) => s.serialize_i64(v),
            None => s.serialize_str(&self.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Int(i64),
            Text(String),
        }
        match Raw::deserialize(d)? {
            Raw::Int(v) => Ok(v.into()),
            Raw::Text(t) => crate::dim_parse::parse(&t).map_err(serde::de::Error::custom),
        }
    }
}

/// A shape: one [`Dim`] an axis.
pub type Shape = Vec<Dim>;

/// `[1, seq, 64]`, as messages print shapes.
pub fn show_shape(shape: &[Dim]) -> String {
    let parts: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", parts.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::parse_dim;

    fn small() -> impl Strategy<Value = Dim> {
        let leaf = prop_oneof![
            (-9_i64..9).prop_map(Dim::from),
            "[a-c]".prop_map(Dim::symbol),
            Just(Dim::symbol("batch*2 - 'x' \\\\ ü"))
        ];
        leaf.prop_recursive(3, 12, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| a + b),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| a - b),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| a.checked_mul(&b).unwrap_or(a)),
                (inner, 1_i64..5).prop_map(|(a, b)| a.floor_div(&b.into()).unwrap()),
            ]
        })
    }

    proptest! {
        #[test]
        fn printed_dimensions_are_read_back(d in small()) {
            prop_assert_eq!(parse_dim(&d.to_string()).unwrap(), d);
        }

        #[test]
        fn binding_commutes_with_arithmetic(a in small(), b in small(), x in 1_i64..7, y in 1_i64..7, z in 1_i64..7) {
            let odd = "batch*2 - 'x' \\\\ ü";
            let sizes = Bindings::from([("a".into(), x), ("b".into(), y), ("c".into(), z), (odd.into(), 3)]);
            let bound = |d: &Dim| d.bind(&sizes).unwrap().as_int().unwrap();
            prop_assert_eq!(bound(&(a.clone() + &b)), bound(&a) + bound(&b));
            prop_assert_eq!(bound(&(a.clone() - &b)), bound(&a) - bound(&b));
            if let Ok(product) = a.checked_mul(&b) {
                prop_assert_eq!(bound(&product), bound(&a) * bound(&b));
            }
            prop_assert_eq!(bound(&a.floor_div(&3.into()).unwrap()), bound(&a).div_euclid(3));
        }
    }

    #[test]
    fn hostile_expressions_are_errors() {
        for text in [
            "floor(-9223372036854775807 - 1, -1)",
            "floor(h - 9223372036854775807 - 1, 0)",
            "9223372036854775807 + 1",
            "99999999999999999999",
            "(((((((((((((((((((((((((((((((((1)))))))))))))))))))))))))))))))))",
            "(a+b+c+d+e+f+g+h+i)*(a+b+c+d+e+f+g+h+i)",
            "a +",
            "'a",
            "'a\\'",
            "",
        ] {
            assert!(parse_dim(text).is_err(), "{text}");
        }
    }

    #[test]
    fn equal_expressions_are_equal() {
        for (a, b) in [
            ("2*h - h", "h"),
            ("floor(4*h, 2)", "2*h"),
            ("h*w", "w*h"),
            ("floor(h*w, w)", "h"),
            ("h - h", "0"),
        ] {
            assert_eq!(parse_dim(a).unwrap(), parse_dim(b).unwrap(), "{a}");
        }
        assert_ne!(parse_dim("floor(h, 2)").unwrap(), parse_dim("h").unwrap());
    }
}
