//! QuantizeLinear and DequantizeLinear: pairs become annotations, constants become numbers again.

use pomona_graph::{Annotation, QuantTarget};

use super::super::context::{Call, Context, Entry, Lower, axis, unsupported};
use super::super::host::{Data, Host, LIMIT};

/// How numbers are rounded: the annotation of a value without its target.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Rounding {
    pub bits: u8,
    pub signed: bool,
    pub axis: Option<usize>,
    pub scales: Vec<f32>,
    pub zero_points: Vec<i32>,
}

impl Rounding {
    pub(in super::super) fn annotation(&self, target: QuantTarget) -> Annotation {
        let symmetric = self.zero_points.iter().all(|z| *z == 0);
        Annotation::Quantisation {
            target,
            bits: self.bits,
            signed: self.signed,
            axis: self.axis,
            block: None,
            scales: self.scales.clone(),
            zero_points: if symmetric { Vec::new() } else { self.zero_points.clone() },
        }
    }
}

fn rounding(ctx: &Context<'_>, c: &Call<'_>, stored: Option<pomona_store::Encoding>) -> Lower<Rounding> {
    use pomona_store::Encoding as E;
    if c.int_or("block_size", 0) != 0 {
        return unsupported("rounds in blocks");
    }
    let Some(scales) = ctx.host(c, 1) else { return unsupported("has a scale that is computed from data") };
    if scales.len() == 0 {
        return unsupported("has no scale");
    }
    let zero = ctx.name(c, 2).and_then(|n| ctx.encoding_of(n)).or(stored);
    let (bits, signed) = match zero.unwrap_or(E::U8) {
        E::I8 => (8, true),
        E::U8 => (8, false),
        E::I16 => (16, true),
        E::U16 => (16, false),
        E::I32 => (32, true),
        other => return unsupported(format!("rounds to {other}")),
    };
    let zero_points = match ctx.host(c, 2) {
        Some(z) => z.i64s()?.into_iter().map(|v| v as i32).collect(),
        None => Vec::new(),
    };
    let rank = ctx.shape_of(&c.node.inputs[0])?.len();
    let at = if scales.len() == 1 { None } else { Some(axis(c.int_or("axis", 1), rank)?) };
    let scales = scales.f64s()?.into_iter().map(|v| v as f32).collect();
    Ok(Rounding { bits, signed, axis: at, scales, zero_points })
}

pub(super) fn quantize(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let how = rounding(ctx, c, None)?;
    let name = c.node.inputs[0].clone();
    let entry = ctx.entry(&name)?.clone();
    if let Some(out) = c.node.outputs.first() {
        ctx.quantized.insert(out.clone(), how);
    }
    Ok(vec![entry])
}

pub(super) fn dequantize(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let name = c.node.inputs[0].clone();
    let out = c.node.outputs.first().cloned().unwrap_or_default();
    // The second half of a pair: the value itself, and its readers know how it is rounded.
    if let Some(how) = ctx.quantized.get(&name).cloned() {
        let entry = ctx.entry(&name)?.clone();
        if !matches!(entry, Entry::Value(_)) {
            // Biases and factors; larger constants stay where they lie.
            if let Some(h) = ctx.host(c, 0).filter(|h| h.shape.len() < 2) {
                let values = h.f64s()?.into_iter().map(|v| v as f32).collect::<Vec<_>>();
                let values = through(&values, &h.shape, &how).into_iter().map(f64::from).collect();
                return Ok(vec![Entry::Host(Host { shape: h.shape.clone(), data: Data::Floats(values) })]);
            }
            ctx.unrounded.insert(out.clone());
        }
        ctx.rounded.insert(out, how);
        return Ok(vec![entry]);
    }
    let Entry::Weight(w) = ctx.entry(&name)?.clone() else {
        return match ctx.host(c, 0) {
            Some(h) => constant(ctx, c, &h),
            None => unsupported("reads integers that no QuantizeLinear made"),
        };
    };
    let how = rounding(ctx, c, Some(w.encoding))?;
    let Some(values) = ctx.floats(&w) else { return unsupported("reads a tensor that cannot be decoded") };
    let values = widened(&values, &w.shape, &how);
    let tensor = ctx.computed_floats(&w.name, &w.shape, &values)?;
    ctx.rounded.insert(out, how);
    Ok(vec![Entry::Weight(tensor)])
}

fn constant(ctx: &mut Context<'_>, c: &Call<'_>, h: &Host) -> Lower<Vec<Entry>> {
    let how = rounding(ctx, c, None)?;
    if h.len() > LIMIT {
        return unsupported("reads a constant that is too large");
    }
    let values: Vec<f32> = h.f64s()?.into_iter().map(|v| v as f32).collect();
    let values = widened(&values, &h.shape, &how).into_iter().map(f64::from).collect();
    Ok(vec![Entry::Host(Host { shape: h.shape.clone(), data: Data::Floats(values) })])
}

impl Rounding {
    /// Scale and zero point of each element.
    fn steps(&self, shape: &[usize]) -> impl Fn(usize) -> (f32, f32) {
        let inner: usize = self.axis.map_or(1, |a| shape[a + 1..].iter().product::<usize>().max(1));
        let count = self.scales.len().max(1);
        move |i| {
            let k = if self.axis.is_some() { i / inner % count } else { 0 };
            let zero = self.zero_points.get(k).or(self.zero_points.first()).copied().unwrap_or(0);
            (self.scales[k], zero as f32)
        }
    }
}

/// `(q - zero) * scale`.
fn widened(values: &[f32], shape: &[usize], how: &Rounding) -> Vec<f32> {
    let steps = how.steps(shape);
    let one = |(i, q): (usize, &f32)| {
        let (scale, zero) = steps(i);
        (q - zero) * scale
    };
    values.iter().enumerate().map(one).collect()
}

/// Numbers after both halves of a pair.
fn through(values: &[f32], shape: &[usize], how: &Rounding) -> Vec<f32> {
    let steps = how.steps(shape);
    let levels = 2_f32.powi(i32::from(how.bits));
    let (low, high) = if how.signed { (-levels / 2.0, levels / 2.0 - 1.0) } else { (0.0, levels - 1.0) };
    let one = |(i, v): (usize, &f32)| {
        let (scale, zero) = steps(i);
        (((v / scale).round_ties_even() + zero).clamp(low, high) - zero) * scale
    };
    values.iter().enumerate().map(one).collect()
}
