//! Simplification: what cancels out is removed, so that untouched tensors stay copies.
//!
//! Selections (gathers and splits) move towards the source and merge there: less is read, and what an importer permuted
//! and an exporter permutes back meets. Selections on different axes are kept with the lower axis inside. No rule cuts a
//! block encoding where the expression did not.

use super::{Expr, SourceTensor, Sources, Term, is_plain_dtype, widens_exactly};

/// The expression in its simplest known form: same value, same encoding, bit for bit.
pub(super) fn simplify_expr(expr: Expr, sources: &Sources<'_>) -> Expr {
    let boxed = |of: Box<Expr>| simplify_expr(*of, sources);
    match expr {
        Expr::Copy { .. } | Expr::Initialise { .. } | Expr::Literal { .. } => expr,
        Expr::Gather { axis, indices, of } => select(axis, Pick::Gather(indices), boxed(of), sources),
        Expr::Split { axis, start, len, of } => select(axis, Pick::Range(start, len), boxed(of), sources),
        Expr::Concat { axis, of } => {
            concat(axis, of.into_iter().map(|e| simplify_expr(e, sources)).collect(), sources)
        }
        Expr::Transpose { axes, of } => transpose(axes, boxed(of), sources),
        Expr::Reshape { shape, of } => reshape(shape, boxed(of), sources),
        Expr::Cast { dtype, of } => cast(dtype, boxed(of), sources),
        Expr::Decode { of } => decode(boxed(of), sources),
        Expr::Tile { repeats, of } => match (repeats.iter().all(|r| *r == 1), boxed(of)) {
            (true, of) => of,
            (false, of) => Expr::Tile { repeats, of: Box::new(of) },
        },
        Expr::WeightedSum { terms } => {
            let product = |p: Vec<Expr>| p.into_iter().map(|e| simplify_expr(e, sources)).collect();
            let term = |t: Term| Term { weight: t.weight, product: product(t.product) };
            Expr::WeightedSum { terms: terms.into_iter().map(term).collect() }
        }
    }
}

/// A selection on an axis; contiguous ascending indices are always a range.
#[derive(Clone, Debug, PartialEq)]
enum Pick {
    Range(usize, usize),
    Gather(Vec<u32>),
}

impl Pick {
    fn of(indices: Vec<u32>) -> Pick {
        match indices.first() {
            Some(&first) if indices.iter().enumerate().all(|(i, &v)| v as usize == first as usize + i) => {
                Pick::Range(first as usize, indices.len())
            }
            _ => Pick::Gather(indices),
        }
    }

    fn len(&self) -> usize {
        match self {
            Pick::Range(_, len) => *len,
            Pick::Gather(indices) => indices.len(),
        }
    }

    /// Index of the source for the i-th selected.
    fn get(&self, i: usize) -> Option<usize> {
        match self {
            Pick::Range(start, len) => (i < *len).then(|| start.checked_add(i))?,
            Pick::Gather(indices) => indices.get(i).map(|v| *v as usize),
        }
    }

    /// `outer` of what `self` selects; none where `outer` reads past the end or an index does not fit.
    fn then(&self, outer: &Pick) -> Option<Pick> {
        match (self, outer) {
            (Pick::Range(s, n), Pick::Range(t, m)) if t.checked_add(*m)? <= *n => {
                Some(Pick::Range(s.checked_add(*t)?, *m))
            }
            (Pick::Range(..), Pick::Range(..)) => None,
            _ => (0..outer.len())
                .map(|i| u32::try_from(self.get(outer.get(i)?)?).ok())
                .collect::<Option<Vec<u32>>>()
                .map(Pick::of),
        }
    }

    /// This followed by `next`, as one selection.
    fn join(&self, next: &Pick) -> Option<Pick> {
        match (self, next) {
            (Pick::Range(s, n), Pick::Range(t, m)) if s.checked_add(*n)? == *t => {
                Some(Pick::Range(*s, n.checked_add(*m)?))
            }
            _ => {
                let all = |p: &Pick| {
                    (0..p.len()).map(|i| u32::try_from(p.get(i)?).ok()).collect::<Option<Vec<u32>>>()
                };
                let mut indices = all(self)?;
                indices.extend(all(next)?);
                Some(Pick::of(indices))
            }
        }
    }

    fn on(self, axis: usize, of: Expr) -> Expr {
        let of = Box::new(of);
        match self {
            Pick::Range(start, len) => Expr::Split { axis, start, len, of },
            Pick::Gather(indices) => Expr::Gather { axis, indices, of },
        }
    }
}

/// A selection at the top of an expression.
fn as_pick(expr: Expr) -> Result<(usize, Pick, Expr), Expr> {
    match expr {
        Expr::Gather { axis, indices, of } => Ok((axis, Pick::of(indices), *of)),
        Expr::Split { axis, start, len, of } => Ok((axis, Pick::Range(start, len), *of)),
        other => Err(other),
    }
}

fn known_shape(expr: &Expr, sources: &Sources<'_>) -> Option<Vec<usize>> {
    expr.infer(sources).ok().map(|t| t.shape)
}

fn is_plain(expr: &Expr, sources: &Sources<'_>) -> bool {
    expr.infer(sources).ok().and_then(|t| t.dtype).is_some_and(|d| is_plain_dtype(&d))
}

/// `pick` on `axis` of a simplified expression.
fn select(axis: usize, pick: Pick, of: Expr, sources: &Sources<'_>) -> Expr {
    let pick = match pick {
        Pick::Gather(indices) => Pick::of(indices),
        range => range,
    };
    if let Pick::Range(0, len) = pick
        && known_shape(&of, sources).is_some_and(|s| s.get(axis) == Some(&len))
    {
        return of;
    }
    match of {
        Expr::Gather { .. } | Expr::Split { .. } => match as_pick(of) {
            Ok((inner_axis, inner, rest)) if inner_axis == axis => match inner.then(&pick) {
                Some(both) => select(axis, both, rest, sources),
                None => pick.on(axis, inner.on(axis, rest)),
            },
            Ok((inner_axis, inner, rest)) if inner_axis > axis => {
                let rest = select(axis, pick, rest, sources);
                select(inner_axis, inner, rest, sources)
            }
            Ok((inner_axis, inner, rest)) => {
                // A lower axis lies between: look through it for a selection on this one.
                pick.on(axis, inner.on(inner_axis, rest))
            }
            Err(of) => pick.on(axis, of),
        },
        Expr::Transpose { axes, of } => match axes.get(axis) {
            Some(&inner_axis) => {
                let inner = select(inner_axis, pick, *of, sources);
                transpose(axes, inner, sources)
            }
            None => pick.on(axis, Expr::Transpose { axes, of }),
        },
        Expr::Reshape { shape, of } => {
            let inner = known_shape(&of, sources);
            let same = inner.is_some_and(|s| s.len() > axis && s.get(..=axis) == shape.get(..=axis));
            if !same {
                return pick.on(axis, Expr::Reshape { shape, of });
            }
            let mut cut = shape;
            cut[axis] = pick.len();
            let inner = select(axis, pick, *of, sources);
            reshape(cut, inner, sources)
        }
        Expr::Cast { dtype, of } if meets_selection(&of, axis) => {
            let inner = select(axis, pick, *of, sources);
            cast(dtype, inner, sources)
        }
        Expr::Decode { of } if meets_selection(&of, axis) => {
            let inner = select(axis, pick, *of, sources);
            decode(inner, sources)
        }
        Expr::Concat { axis: joined, of } if joined == axis => select_of_concat(axis, pick, of, sources),
        of => pick.on(axis, of),
    }
}

/// Whether a chain of selections at the top of the expression has one on `axis`: cutting it there again is as legal for
/// its encoding as the cut that is there.
fn meets_selection(expr: &Expr, axis: usize) -> bool {
    match expr {
        Expr::Gather { axis: a, of, .. } | Expr::Split { axis: a, of, .. } => {
            *a == axis || meets_selection(of, axis)
        }
        _ => false,
    }
}

/// A selection from joined parts takes from each part directly, where that does not make more pieces than there were.
fn select_of_concat(axis: usize, pick: Pick, of: Vec<Expr>, sources: &Sources<'_>) -> Expr {
    let lengths: Option<Vec<usize>> =
        of.iter().map(|e| known_shape(e, sources).and_then(|s| s.get(axis).copied())).collect();
    match lengths.and_then(|lengths| runs(&pick, &lengths)) {
        Some(runs) if runs.len() <= of.len() => {
            let part = |(k, p): (usize, Pick)| select(axis, p, of[k].clone(), sources);
            let parts = runs.into_iter().map(part).collect();
            concat(axis, parts, sources)
        }
        _ => pick.on(axis, Expr::Concat { axis, of }),
    }
}

/// The selection as consecutive selections within single parts.
fn runs(pick: &Pick, lengths: &[usize]) -> Option<Vec<(usize, Pick)>> {
    let mut ends = Vec::with_capacity(lengths.len());
    let mut end = 0_usize;
    for len in lengths {
        end = end.checked_add(*len)?;
        ends.push(end);
    }
    let mut out: Vec<(usize, Vec<u32>)> = Vec::new();
    for i in 0..pick.len() {
        let index = pick.get(i)?;
        let part = ends.partition_point(|e| *e <= index);
        let start = ends.get(part)? - lengths.get(part)?;
        let local = u32::try_from(index - start).ok()?;
        match out.last_mut() {
            Some((p, list)) if *p == part => list.push(local),
            _ => out.push((part, vec![local])),
        }
        if out.len() > lengths.len() {
            return None;
        }
    }
    (!out.is_empty()).then(|| out.into_iter().map(|(p, list)| (p, Pick::of(list))).collect())
}

fn concat(axis: usize, of: Vec<Expr>, sources: &Sources<'_>) -> Expr {
    let mut flat = Vec::with_capacity(of.len());
    for part in of {
        match part {
            Expr::Concat { axis: inner, of } if inner == axis => flat.extend(of),
            other => flat.push(other),
        }
    }
    let mut parts: Vec<Expr> = Vec::with_capacity(flat.len());
    for part in flat {
        let merged = parts.last().and_then(|last| {
            let (a, rest_a) = peel(last, axis)?;
            let (b, rest_b) = peel(&part, axis)?;
            (rest_a == rest_b).then(|| a.join(&b)).flatten().map(|both| (both, rest_a))
        });
        match merged {
            Some((both, rest)) => {
                parts.pop();
                parts.push(select(axis, both, rest, sources));
            }
            None => parts.push(part),
        }
    }
    match parts.len() {
        1 => parts.remove(0),
        _ => Expr::Concat { axis, of: parts },
    }
}

/// The selection on `axis` in a chain of selections, and the chain without it.
fn peel(expr: &Expr, axis: usize) -> Option<(Pick, Expr)> {
    let (found, pick, rest) = match expr {
        Expr::Gather { axis, indices, of } => (*axis, Pick::of(indices.clone()), of),
        Expr::Split { axis, start, len, of } => (*axis, Pick::Range(*start, *len), of),
        _ => return None,
    };
    if found == axis {
        return Some((pick, (**rest).clone()));
    }
    let (inner, base) = peel(rest, axis)?;
    Some((inner, pick.on(found, base)))
}

fn transpose(axes: Vec<usize>, of: Expr, sources: &Sources<'_>) -> Expr {
    if axes.iter().enumerate().all(|(i, a)| i == *a) {
        return of;
    }
    let compose = |inner: &[usize]| axes.iter().map(|a| inner.get(*a).copied()).collect::<Option<Vec<_>>>();
    match of {
        Expr::Transpose { axes: inner, of } => match compose(&inner) {
            Some(both) => transpose(both, *of, sources),
            None => Expr::Transpose { axes, of: Box::new(Expr::Transpose { axes: inner, of }) },
        },
        Expr::Cast { dtype, of } => {
            let meets = match &*of {
                Expr::Transpose { axes: inner, of } => {
                    let identity = compose(inner).is_some_and(|b| b.iter().enumerate().all(|(i, a)| i == *a));
                    identity || is_plain(of, sources)
                }
                _ => false,
            };
            if meets {
                return cast(dtype, transpose(axes, *of, sources), sources);
            }
            Expr::Transpose { axes, of: Box::new(Expr::Cast { dtype, of }) }
        }
        of => Expr::Transpose { axes, of: Box::new(of) },
    }
}

fn reshape(shape: Vec<usize>, of: Expr, sources: &Sources<'_>) -> Expr {
    let of = match of {
        Expr::Reshape { of, .. } => *of,
        other => other,
    };
    if known_shape(&of, sources).is_some_and(|s| s == shape) {
        return of;
    }
    Expr::Reshape { shape, of: Box::new(of) }
}

fn cast(dtype: String, of: Expr, sources: &Sources<'_>) -> Expr {
    match of {
        // Casting decodes, so a decoding before it is said twice.
        Expr::Decode { of } if dtype != "f32" => cast(dtype, *of, sources),
        Expr::Decode { of } => decode(*of, sources),
        Expr::Cast { dtype: middle, of } => {
            let from = of.infer(sources).ok().and_then(|t| t.dtype);
            if dtype == middle || from.is_some_and(|f| widens_exactly(&f, &middle)) {
                return cast(if dtype == middle { middle } else { dtype }, *of, sources);
            }
            Expr::Cast { dtype, of: Box::new(Expr::Cast { dtype: middle, of }) }
        }
        of => match of.infer(sources) {
            Ok(SourceTensor { dtype: Some(d), .. }) if d == dtype => of,
            _ => Expr::Cast { dtype, of: Box::new(of) },
        },
    }
}

fn decode(of: Expr, sources: &Sources<'_>) -> Expr {
    match of {
        Expr::Decode { .. } => of,
        of => match of.infer(sources) {
            Ok(SourceTensor { dtype: Some(d), .. }) if d == "f32" => of,
            _ => Expr::Decode { of: Box::new(of) },
        },
    }
}
