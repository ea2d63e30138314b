//! SiLU, GELU in its forms, Mish, hard swish.

use pomona_graph::{Activation, BinaryFn, Op, ValueId};

use super::{Work, near};

fn activated(w: &Work, v: ValueId) -> Option<(Activation, ValueId)> {
    let node = w.node(w.maker(v)?);
    match node.op {
        Op::Activation { function } => Some((function, node.inputs[0])),
        _ => None,
    }
}

pub(super) fn fuse(w: &mut Work, at: usize) -> bool {
    let Some((function, x)) = find(w, at) else { return false };
    w.replace(at, Op::Activation { function }, vec![x], vec![]);
    true
}

fn find(w: &Work, at: usize) -> Option<(Activation, ValueId)> {
    let node = w.node(at);
    let out = *node.outputs.first()?;
    if let Some((a, b)) = w.binary(out, BinaryFn::Mul) {
        return gated(w, a, b)
            .or_else(|| gated(w, b, a))
            .or_else(|| halved(w, a, b))
            .or_else(|| halved(w, b, a));
    }
    // 0.5 * (x * (1 + erf(x / sqrt 2)))
    let (y, half) = w.scalar(out, BinaryFn::Mul)?;
    if !near(half, 0.5) {
        // x * clip(x / 6 + 0.5, 0, 1), as x * clip(x + 3, 0, 6) / 6
        return near(half, 1.0 / 6.0).then(|| hard_swish(w, y)).flatten();
    }
    let (a, b) = w.binary(y, BinaryFn::Mul)?;
    shifted(w, a, b).or_else(|| shifted(w, b, a))
}

/// `x * gate(x)`
fn gated(w: &Work, x: ValueId, gate: ValueId) -> Option<(Activation, ValueId)> {
    match activated(w, gate)? {
        (Activation::Sigmoid, y) if y == x => Some((Activation::Silu, x)),
        (Activation::Sigmoid, y) => {
            let (inner, factor) = w.scalar(y, BinaryFn::Mul)?;
            (inner == x && near(factor, 1.702)).then_some((Activation::QuickGelu, x))
        }
        (Activation::Tanh, y) => match activated(w, y)? {
            (Activation::Softplus, z) if z == x => Some((Activation::Mish, x)),
            _ => None,
        },
        (Activation::HardSigmoid(a, b), y) if y == x && near(a, 1.0 / 6.0) && near(b, 0.5) => {
            Some((Activation::HardSwish, x))
        }
        _ => None,
    }
}

/// `(0.5 * x) * (1 + f(x))`
fn halved(w: &Work, a: ValueId, b: ValueId) -> Option<(Activation, ValueId)> {
    let (x, half) = w.scalar(a, BinaryFn::Mul)?;
    if !near(half, 0.5) {
        return None;
    }
    shifted(w, x, b)
}

/// `x * (1 + f(x))`, f the error function or the tanh that stands for it.
fn shifted(w: &Work, x: ValueId, gate: ValueId) -> Option<(Activation, ValueId)> {
    let (f, one) = w.scalar(gate, BinaryFn::Add)?;
    if !near(one, 1.0) {
        return None;
    }
    match activated(w, f)? {
        (Activation::Erf, y) => {
            let divided = w.scalar(y, BinaryFn::Div).filter(|(_, d)| near(*d, std::f64::consts::SQRT_2));
            let scaled =
                w.scalar(y, BinaryFn::Mul).filter(|(_, f)| near(*f, std::f64::consts::FRAC_1_SQRT_2));
            let (inner, _) = divided.or(scaled)?;
            (inner == x).then_some((Activation::Gelu, x))
        }
        (Activation::Tanh, y) => {
            let (sum, factor) = w.scalar(y, BinaryFn::Mul)?;
            if !near(factor, (2.0 / std::f64::consts::PI).sqrt()) {
                return None;
            }
            let (a, b) = w.binary(sum, BinaryFn::Add)?;
            let cubic = |c: ValueId| {
                let (p, f) = w.scalar(c, BinaryFn::Mul)?;
                (near(f, 0.044_715) && is_cube(w, p, x)).then_some(())
            };
            let fits = (a == x && cubic(b).is_some()) || (b == x && cubic(a).is_some());
            fits.then_some((Activation::GeluTanh, x))
        }
        _ => None,
    }
}

fn is_cube(w: &Work, v: ValueId, x: ValueId) -> bool {
    if let Some((base, power)) = w.scalar(v, BinaryFn::Pow) {
        return base == x && power == 3.0;
    }
    let square = |v: ValueId| {
        w.binary(v, BinaryFn::Mul) == Some((x, x)) || w.scalar(v, BinaryFn::Pow) == Some((x, 2.0))
    };
    w.binary(v, BinaryFn::Mul).is_some_and(|(a, b)| (a == x && square(b)) || (b == x && square(a)))
}

fn hard_swish(w: &Work, y: ValueId) -> Option<(Activation, ValueId)> {
    let (a, b) = w.binary(y, BinaryFn::Mul)?;
    let gate = |x: ValueId, g: ValueId| {
        let node = w.node(w.maker(g)?);
        let clipped = match node.op {
            Op::Clip { min: Some(low), max: Some(high) } if low == 0.0 && high == 6.0 => node.inputs[0],
            Op::Activation { function: Activation::Relu6 } => node.inputs[0],
            _ => return None,
        };
        let (inner, three) = w.scalar(clipped, BinaryFn::Add)?;
        (inner == x && three == 3.0).then_some((Activation::HardSwish, x))
    };
    gate(a, b).or_else(|| gate(b, a))
}
