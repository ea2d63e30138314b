//! Constant folding: nodes whose inputs are known, or of which only a shape is asked.

use pomona_graph::{Activation, BinaryFn, Dim, ValueType};
use pomona_store::onnx::OnnxValue;

use super::args;
use super::context::{Call, Context, Entry, Fault, Lower, Weight, axis, unsupported};
use super::host::{Data, Host, LIMIT, binary, indices, number, strides, volume};
use super::ops::tables;

const TOO_LONG: &str = "holds a list of numbers that is longer than any shape: store it as a tensor";

/// What a node gives, where it is known; none where it must run.
pub(super) fn fold(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Option<Vec<Entry>>> {
    let op = c.node.op.as_str();
    match op {
        "Shape" => return shape(ctx, c).map(Some),
        "Size" => {
            let name = c.node.inputs.first().map_or("", String::as_str);
            let mut n = Dim::from(1);
            for d in ctx.shape_of(name)? {
                n = n.checked_mul(&d)?;
            }
            return Ok(Some(vec![Entry::Host(Host::ints(vec![], vec![n]))]));
        }
        "Constant" => return constant(ctx, c).map(Some),
        _ => {}
    }
    let known = c.node.inputs.iter().all(|n| n.is_empty() || ctx.is_constant(n));
    if c.node.inputs.is_empty() || !known {
        return Ok(None);
    }
    if let Some(w) = ctx.weight(c, 0)
        && let Some(w) = rearranged(ctx, c, &w)?
    {
        return Ok(Some(vec![Entry::Weight(w)]));
    }
    let hosts: Option<Vec<Host>> =
        c.node.inputs.iter().filter(|n| !n.is_empty()).map(|n| ctx.host_of(n)).collect();
    match hosts {
        Some(h) => match evaluate(ctx, c, &h) {
            // A constant stretched to a symbolic size is a node; only arithmetic on sizes must be known.
            Err(Fault::Bind(_)) if matches!(op, "Expand" | "Tile" | "Reshape" | "Slice" | "Cast") => Ok(None),
            // What would fill the memory is computed when the graph runs.
            other => Ok(other?
                .filter(|all| ctx.afford(all.iter().map(Host::memory).sum()))
                .map(|all| all.into_iter().map(Entry::Host).collect())),
        },
        None => Ok(None),
    }
}

fn shape(ctx: &Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let all = ctx.shape_of(c.node.inputs.first().map_or("", String::as_str))?;
    let rank = all.len() as i64;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let (start, end) = (clamp(c.int_or("start", 0)), clamp(c.int_or("end", rank)));
    Ok(vec![Entry::Host(Host::list(all[start..end.max(start)].to_vec()))])
}

fn constant(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let one = |data, n: Option<usize>| vec![Entry::Host(Host { shape: n.into_iter().collect(), data })];
    let Some(a) = c.node.attributes.first() else { return unsupported("has no value") };
    Ok(match &a.value {
        OnnxValue::Tensor(t) => {
            let name = ctx.free_name(c.node.outputs.first().map_or("constant", String::as_str));
            let mut tensor = t.clone();
            tensor.name.clone_from(&name);
            vec![args::attribute_tensor(ctx, tensor)?]
        }
        OnnxValue::Float(v) => one(Data::Floats(vec![f64::from(*v)]), None),
        OnnxValue::Int(v) => one(Data::Ints(vec![(*v).into()]), None),
        OnnxValue::Floats(v) if v.len() > LIMIT => return unsupported(TOO_LONG),
        OnnxValue::Ints(v) if v.len() > LIMIT => return unsupported(TOO_LONG),
        OnnxValue::Floats(v) => one(Data::Floats(v.iter().map(|f| f64::from(*f)).collect()), Some(v.len())),
        OnnxValue::Ints(v) => one(Data::Ints(v.iter().map(|i| (*i).into()).collect()), Some(v.len())),
        _ => return unsupported(format!("holds a constant as `{}`, which is not read", a.name)),
    })
}

/// Rearrangements of a tensor of the file stay a recipe over it, whatever its size.
fn rearranged(ctx: &Context<'_>, c: &Call<'_>, w: &Weight) -> Lower<Option<Weight>> {
    let static_shape =
        |dims: Vec<Dim>| dims.iter().map(|d| number(d).map(|n| n as usize)).collect::<Lower<Vec<usize>>>();
    let rank = w.shape.len();
    let of: Vec<Dim> = w.shape.iter().map(|d| (*d).into()).collect();
    Ok(match c.node.op.as_str() {
        "Identity" | "Dropout" => Some(w.clone()),
        "Cast" => (tables::value_type(c.int_or("to", 0))? == w.ty()).then(|| w.clone()),
        "Transpose" => Some(w.transpose(&args::permutation(c, rank)?)),
        "Reshape" if w.elements() > LIMIT || w.ty() == ValueType::Float => {
            let Some(target) = ctx.host(c, 1) else { return Ok(None) };
            let shape: Vec<usize> = static_shape(args::reshape_target(c, &of, target.dims()?)?)?;
            Some(w.reshape(shape))
        }
        "Unsqueeze" => Some(w.reshape(static_shape(args::unsqueezed(ctx, c, &of)?)?)),
        "Squeeze" => Some(w.reshape(static_shape(args::squeezed(ctx, c, &of)?)?)),
        _ => None,
    })
}

/// Inputs that the evaluation of an operator reads.
fn operands(op: &str) -> usize {
    match op {
        "Where" | "ScatterND" => 3,
        "Reshape" | "Gather" | "Expand" | "Tile" | "GatherElements" => 2,
        _ => 1,
    }
}

fn evaluate(ctx: &Context<'_>, c: &Call<'_>, h: &[Host]) -> Lower<Option<Vec<Host>>> {
    let op = c.node.op.as_str();
    let Some(x) = h.first() else { return Ok(None) };
    if h.len() < operands(op) {
        return unsupported(format!("has {} inputs; {} were expected", h.len(), operands(op)));
    }
    if let Some(function) = tables::binary(op) {
        let mut out = x.clone();
        for y in h.iter().skip(1) {
            out = binary(function, &out, y)?;
        }
        return Ok(Some(vec![out]));
    }
    let of: Vec<Dim> = x.shape.iter().map(|d| (*d).into()).collect();
    let sized =
        |dims: Vec<Dim>| dims.iter().map(|d| number(d).map(|n| n as usize)).collect::<Lower<Vec<usize>>>();
    let one = |host: Host| Ok(Some(vec![host]));
    match op {
        "Identity" => one(x.clone()),
        "Cast" => one(x.cast(tables::value_type(c.int_or("to", 0))?)?),
        "Sum" | "Mean" => {
            let mut out = x.clone();
            for y in h.iter().skip(1) {
                out = binary(BinaryFn::Add, &out, y)?;
            }
            let count = Host { shape: vec![], data: Data::Floats(vec![h.len() as f64]) };
            one(if op == "Mean" { binary(BinaryFn::Div, &out, &count)? } else { out })
        }
        "Reshape" => one(Host { shape: sized(args::reshape_target(c, &of, h[1].dims()?)?)?, ..x.clone() }),
        "Flatten" => {
            let at = c.int_or("axis", 1);
            let at = if at == x.shape.len() as i64 { x.shape.len() } else { axis(at, x.shape.len())? };
            let shape = vec![volume(&x.shape[..at]), volume(&x.shape[at..])];
            one(Host { shape, ..x.clone() })
        }
        "Unsqueeze" => one(Host { shape: sized(args::unsqueezed(ctx, c, &of)?)?, ..x.clone() }),
        "Squeeze" => one(Host { shape: sized(args::squeezed(ctx, c, &of)?)?, ..x.clone() }),
        "Transpose" => {
            let order = args::permutation(c, x.shape.len())?;
            let shape: Vec<usize> = order.iter().map(|a| x.shape[*a]).collect();
            let from = strides(&x.shape);
            let at = |index: Vec<usize>| order.iter().zip(index).map(|(a, i)| from[*a] * i).sum::<usize>();
            let at: Vec<usize> = indices(&shape).map(at).collect();
            one(x.pick(shape, &at))
        }
        "Concat" if h.iter().map(Host::len).sum::<usize>() > LIMIT => Ok(None),
        "Concat" => concat(c, h).and_then(one),
        "Gather" => gather(c, x, &h[1]).and_then(one),
        "Slice" => slice(ctx, c, x).and_then(one),
        "Split" => {
            let n = x.shape.get(axis(c.int_or("axis", 0), x.shape.len())?).copied().unwrap_or(0);
            let at = axis(c.int_or("axis", 0), x.shape.len())?;
            let mut start = 0;
            let mut out = Vec::new();
            for size in args::split_sizes(ctx, c, &n.into())? {
                let size = usize::try_from(number(&size)?).ok().filter(|s| *s <= x.shape[at] - start);
                let Some(size) = size else { return unsupported("its parts are larger than what it splits") };
                let end = start + size;
                out.push(along(x, at, &(start..end).collect::<Vec<_>>())?);
                start = end;
            }
            Ok(Some(out))
        }
        "Expand" => {
            let target = sized(h[1].dims()?.to_vec())?;
            let rank = target.len().max(x.shape.len());
            let get = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
            let shape: Vec<usize> = (0..rank).map(|i| get(&target, i).max(get(&x.shape, i))).collect();
            if volume(&shape) > LIMIT { Ok(None) } else { one(x.expand(&shape)?) }
        }
        "Tile" => {
            let mut out = x.clone();
            for (a, n) in h[1].i64s()?.into_iter().enumerate() {
                let size = *out.shape.get(a).unwrap_or(&0);
                let n = usize::try_from(n).unwrap_or(0);
                if out.len().saturating_mul(n) > LIMIT {
                    return Ok(None);
                }
                out = along(&out, a, &(0..n * size).map(|i| i % size.max(1)).collect::<Vec<_>>())?;
            }
            one(out)
        }
        "ConstantOfShape" => {
            let Ok(shape) = sized(x.dims()?.to_vec()) else { return Ok(None) };
            let n = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
            if n > LIMIT {
                return Ok(None);
            }
            let fill = args::fill_value(ctx, c)?;
            one(fill.pick(shape, &vec![0; n]))
        }
        "Range" => range(h),
        "Where" => {
            let rank = h.iter().map(|v| v.shape.len()).max().unwrap_or(0);
            let get = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
            let shape: Vec<usize> =
                (0..rank).map(|i| h.iter().map(|v| get(&v.shape, i)).max().unwrap_or(1)).collect();
            choose(&h[0].expand(&shape)?, &h[1].expand(&shape)?, &h[2].expand(&shape)?).and_then(one)
        }
        "Not" => match &x.data {
            Data::Bools(v) => one(Host { data: Data::Bools(v.iter().map(|b| !b).collect()), ..x.clone() }),
            _ => Ok(None),
        },
        "Neg" if x.ty() == ValueType::Int => {
            one(binary(BinaryFn::Mul, x, &Host::ints(vec![], vec![Dim::from(-1)]))?)
        }
        "NonZero" => nonzero(x).and_then(one),
        "ScatterND" if c.text("reduction").is_none_or(|r| r == "none") => {
            scatter(x, &h[1], &h[2]).and_then(one)
        }
        "GatherElements" => gather_elements(c, x, &h[1]).and_then(one),
        _ if op.starts_with("Reduce") => reduce(ctx, c, x),
        _ => match (tables::activation(c), &x.data) {
            (Ok(Some(f)), Data::Floats(v)) => {
                let data: Option<Vec<f64>> = v.iter().map(|v| apply(f, *v)).collect();
                Ok(data.map(|d| vec![Host { data: Data::Floats(d), ..x.clone() }]))
            }
            _ => Ok(None),
        },
    }
}

fn apply(f: Activation, x: f64) -> Option<f64> {
    let y = match f {
        Activation::Sqrt => x.sqrt(),
        Activation::Reciprocal => 1.0 / x,
        Activation::Exp => x.exp(),
        Activation::Log => x.ln(),
        Activation::Neg => -x,
        Activation::Abs => x.abs(),
        Activation::Sin => x.sin(),
        Activation::Cos => x.cos(),
        Activation::Floor => x.floor(),
        Activation::Ceil => x.ceil(),
        Activation::Round => x.round_ties_even(),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        _ => return None,
    };
    Some(f64::from(y as f32))
}

fn along(x: &Host, at: usize, positions: &[usize]) -> Lower<Host> {
    let mut shape = x.shape.clone();
    let Some(size) = shape.get_mut(at) else { return unsupported("an axis that a constant does not have") };
    if positions.iter().any(|p| p >= size) {
        return unsupported("an index outside a constant");
    }
    *size = positions.len();
    let from = strides(&x.shape);
    let place = |index: Vec<usize>| {
        index.iter().enumerate().map(|(a, i)| from[a] * if a == at { positions[*i] } else { *i }).sum()
    };
    let all: Vec<usize> = indices(&shape).map(place).collect();
    Ok(x.pick(shape, &all))
}

fn concat(c: &Call<'_>, h: &[Host]) -> Lower<Host> {
    let at = axis(c.int_or("axis", 0), h[0].shape.len())?;
    let mut shape = h[0].shape.clone();
    shape[at] = h.iter().map(|x| x.shape.get(at).copied().unwrap_or(0)).sum();
    if h.iter().any(|x| x.shape.len() != shape.len()) {
        return unsupported("joins constants of different ranks");
    }
    let outer: usize = shape[..at].iter().product();
    let mut parts = Vec::new();
    for o in 0..outer {
        for x in h {
            let run: usize = x.shape[at..].iter().product();
            parts.push(x.pick(vec![run], &(o * run..(o + 1) * run).collect::<Vec<_>>()));
        }
    }
    let ty = h.iter().find(|x| x.len() > 0).unwrap_or(&h[0]).ty();
    Ok(joined(shape, parts, ty))
}

/// Parts one behind the other.
fn joined(shape: Vec<usize>, parts: Vec<Host>, ty: ValueType) -> Host {
    let mut data = match ty {
        ValueType::Int => Data::Ints(Vec::new()),
        ValueType::Float => Data::Floats(Vec::new()),
        ValueType::Bool => Data::Bools(Vec::new()),
    };
    for p in parts {
        match (&mut data, p.data) {
            (Data::Ints(a), Data::Ints(b)) => a.extend(b),
            (Data::Floats(a), Data::Floats(b)) => a.extend(b),
            (Data::Bools(a), Data::Bools(b)) => a.extend(b),
            _ => {}
        }
    }
    Host { shape, data }
}

fn gather(c: &Call<'_>, x: &Host, index: &Host) -> Lower<Host> {
    let at = axis(c.int_or("axis", 0), x.shape.len())?;
    let n = x.shape[at] as i64;
    let position =
        |i: &i64| usize::try_from(if *i < 0 { i.saturating_add(n) } else { *i }).unwrap_or(usize::MAX);
    let positions: Vec<usize> = index.i64s()?.iter().map(position).collect();
    let rest = x.len() / x.shape[at].max(1);
    if positions.len().saturating_mul(rest) > LIMIT {
        return unsupported("picks more of a constant than is worked out");
    }
    let mut out = along(x, at, &positions)?;
    out.shape.splice(at..=at, index.shape.iter().copied());
    Ok(out)
}

fn slice(ctx: &Context<'_>, c: &Call<'_>, x: &Host) -> Lower<Host> {
    let mut out = x.clone();
    for s in args::slices(ctx, c, x.shape.len())? {
        let n = out.shape[s.axis] as i64;
        let clamp =
            |v: i64, low: i64, high: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(low, high);
        let (start, end) = (number(&s.start)?, number(&s.end)?);
        let mut positions = Vec::new();
        if s.step > 0 {
            let (mut i, end) = (clamp(start, 0, n), clamp(end, 0, n));
            while i < end {
                positions.push(i as usize);
                i = i.saturating_add(s.step);
            }
        } else {
            let end = if end < -n { -1 } else { clamp(end, -1, n - 1) };
            let mut i = clamp(start, -1, n - 1);
            while i > end {
                positions.push(i as usize);
                i = i.saturating_add(s.step);
            }
        }
        out = along(&out, s.axis, &positions)?;
    }
    Ok(out)
}

fn range(h: &[Host]) -> Lower<Option<Vec<Host>>> {
    if h.len() != 3 {
        return unsupported("has no start, end and step");
    }
    if h.iter().all(|v| v.ty() == ValueType::Int) {
        let numbers: Option<Vec<i64>> = h.iter().map(|v| v.dims().ok()?.first()?.as_int()).collect();
        let Some(n) = numbers else { return Ok(None) };
        if n[2] == 0 || n[1].saturating_sub(n[0]).checked_div(n[2]).is_none_or(|c| c > LIMIT as i64) {
            return Ok(None);
        }
        let mut out = Vec::new();
        let mut at = n[0];
        while out.len() <= LIMIT && ((n[2] > 0 && at < n[1]) || (n[2] < 0 && at > n[1])) {
            out.push(at.into());
            at = at.saturating_add(n[2]);
        }
        return Ok(Some(vec![Host::list(out)]));
    }
    let v: Vec<f64> = h.iter().filter_map(Host::scalar).collect();
    let [start, end, step] = v[..] else { return Ok(None) };
    let count = ((end - start) / step).ceil().max(0.0);
    if !count.is_finite() || count > LIMIT as f64 {
        return Ok(None);
    }
    let n = count as usize;
    Ok(Some(vec![Host {
        shape: vec![n],
        data: Data::Floats((0..n).map(|i| start + i as f64 * step).collect()),
    }]))
}

fn choose(condition: &Host, a: &Host, b: &Host) -> Lower<Host> {
    let Data::Bools(mask) = &condition.data else { return unsupported("chooses by what is no truth value") };
    let shape = condition.shape.clone();
    let data = match (&a.data, &b.data) {
        (Data::Ints(x), Data::Ints(y)) => Data::Ints(
            mask.iter()
                .zip(x.iter().zip(y))
                .map(|(m, (p, q))| if *m { p.clone() } else { q.clone() })
                .collect(),
        ),
        _ => {
            let (x, y) = (a.f64s()?, b.f64s()?);
            Data::Floats(
                mask.iter().zip(x.iter().zip(&y)).map(|(m, (p, q))| if *m { *p } else { *q }).collect(),
            )
        }
    };
    Ok(Host { shape, data })
}

/// Slices of `x` replaced at positions that the last axis of `at` holds.
fn scatter(x: &Host, at: &Host, updates: &Host) -> Lower<Host> {
    let depth = at.shape.last().copied().unwrap_or(0);
    if depth == 0 || depth > x.shape.len() || x.ty() != updates.ty() {
        return unsupported("scatters what does not fit");
    }
    let run: usize = x.shape[depth..].iter().product();
    let steps = strides(&x.shape);
    let positions = at.i64s()?;
    // Element i of the result is element `from[i]` of the old elements followed by the updates.
    let mut from: Vec<usize> = (0..x.len()).collect();
    for (k, index) in positions.chunks(depth).enumerate() {
        let mut start = 0;
        for ((i, n), step) in index.iter().zip(&x.shape).zip(&steps) {
            let i = if *i < 0 { i.saturating_add(*n as i64) } else { *i };
            match usize::try_from(i).ok().filter(|i| i < n) {
                Some(i) => start += i * step,
                None => return unsupported("scatters outside a constant"),
            }
        }
        for r in 0..run {
            from[start + r] = x.len() + k * run + r;
        }
    }
    if positions.len() / depth * run != updates.len() {
        return unsupported("scatters what does not fit");
    }
    let flat = |h: &Host| Host { shape: vec![h.len()], data: h.data.clone() };
    let all = joined(vec![x.len() + updates.len()], vec![flat(x), flat(updates)], x.ty());
    Ok(all.pick(x.shape.clone(), &from))
}

fn gather_elements(c: &Call<'_>, x: &Host, index: &Host) -> Lower<Host> {
    let at = axis(c.int_or("axis", 0), x.shape.len())?;
    let fits = index.shape.len() == x.shape.len()
        && index.shape.iter().zip(&x.shape).enumerate().all(|(a, (i, n))| a == at || i <= n);
    if !fits {
        return unsupported("picks elements by an index of another shape");
    }
    let (steps, n) = (strides(&x.shape), x.shape[at] as i64);
    let mut from = Vec::with_capacity(index.len());
    for (place, i) in indices(&index.shape).zip(index.i64s()?) {
        let i = if i < 0 { i.saturating_add(n) } else { i };
        let Some(i) = usize::try_from(i).ok().filter(|i| (*i as i64) < n) else {
            return unsupported("an index outside a constant");
        };
        from.push(place.iter().enumerate().map(|(a, p)| steps[a] * if a == at { i } else { *p }).sum());
    }
    Ok(x.pick(index.shape.clone(), &from))
}

fn nonzero(x: &Host) -> Lower<Host> {
    let values = x.f64s()?;
    let at: Vec<Vec<usize>> =
        indices(&x.shape).zip(&values).filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let rows = (0..x.shape.len()).flat_map(|a| at.iter().map(move |i| Dim::from(i[a])));
    Ok(Host::ints(vec![x.shape.len(), at.len()], rows.collect()))
}

fn reduce(ctx: &Context<'_>, c: &Call<'_>, x: &Host) -> Lower<Option<Vec<Host>>> {
    let (axes, keep) = args::reduced(ctx, c, x.shape.len())?;
    if axes.len() != x.shape.len() {
        return Ok(None);
    }
    let shape = if keep { vec![1; x.shape.len()] } else { Vec::new() };
    let f = match c.node.op.as_str() {
        "ReduceProd" => BinaryFn::Mul,
        "ReduceSum" => BinaryFn::Add,
        "ReduceMax" => BinaryFn::Max,
        "ReduceMin" => BinaryFn::Min,
        _ => return Ok(None),
    };
    let mut out: Option<Host> = None;
    for i in 0..x.len() {
        let one = x.pick(vec![], &[i]);
        out = Some(match out {
            Some(o) => binary(f, &o, &one)?,
            None => one,
        });
    }
    Ok(out.map(|o| vec![Host { shape, ..o }]))
}
