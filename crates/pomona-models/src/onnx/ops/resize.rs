//! Resampling of the spatial axes.

use pomona_graph::{Dim, Op, ResizeCoordinates, ResizeMode, ValueId};
use pomona_store::onnx::OnnxValue;

use super::super::context::{Call, Context, Lower, axis, unsupported};
use super::super::host::{Host, number};

pub(super) fn resize(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let shape = ctx.shape(x);
    let rank = shape.len();
    let old = c.node.op == "Upsample" || ctx.opset < 11;
    let some = |h: Option<Host>| h.filter(|h| h.len() > 0);
    let (scales, sizes) =
        if old { (some(ctx.host(c, 1)), None) } else { (some(ctx.host(c, 2)), some(ctx.host(c, 3))) };
    let axes: Vec<usize> = match c.ints("axes") {
        Some(a) => a.iter().map(|a| axis(*a, rank)).collect::<Lower<_>>()?,
        None => (0..rank).collect(),
    };
    if matches!(c.text("keep_aspect_ratio_policy"), Some(p) if p != "stretch") {
        return unsupported("keeps the aspect ratio");
    }
    if c.int_or("antialias", 0) != 0 {
        return unsupported("filters before it samples (antialias)");
    }
    let mut target = shape.clone();
    let mut factors = vec![None; rank];
    match (sizes, scales, c.attribute("scales")) {
        (Some(s), ..) => {
            for (a, d) in axes.iter().zip(s.dims()?) {
                target[*a] = d.clone();
            }
        }
        (None, Some(s), _) => scale(&shape, &axes, &s.f64s()?, &mut target, &mut factors)?,
        (None, None, Some(OnnxValue::Floats(s))) => {
            let s: Vec<f64> = s.iter().map(|v| f64::from(*v)).collect();
            scale(&shape, &axes, &s, &mut target, &mut factors)?;
        }
        _ => return unsupported("has a size that is computed from data"),
    }
    if rank < 3 || target[..2] != shape[..2] {
        return unsupported("resamples batch or channels");
    }
    let mode = match c.text("mode").unwrap_or("nearest") {
        "nearest" => ResizeMode::Nearest,
        "linear" | "bilinear" => ResizeMode::Linear,
        "cubic" => ResizeMode::Cubic,
        other => return unsupported(format!("has the mode `{other}`")),
    };
    let coordinates = match c.text("coordinate_transformation_mode") {
        None if old => ResizeCoordinates::Asymmetric,
        None | Some("half_pixel" | "half_pixel_symmetric") => ResizeCoordinates::HalfPixel,
        Some("asymmetric") => ResizeCoordinates::Asymmetric,
        Some("align_corners") => ResizeCoordinates::AlignCorners,
        // Differs from half_pixel only where an axis becomes one element.
        Some("pytorch_half_pixel") if target[2..].iter().all(|d| d.as_int() != Some(1)) => {
            ResizeCoordinates::HalfPixel
        }
        Some(other) => return unsupported(format!("has coordinates `{other}`")),
    };
    check(c, mode, coordinates, old, &shape, &target, &factors)?;
    ctx.add(&c.path, Op::Resize { mode, coordinates, size: target[2..].to_vec() }, &[x], &[])
}

fn scale(
    shape: &[Dim],
    axes: &[usize],
    by: &[f64],
    target: &mut [Dim],
    factors: &mut [Option<f64>],
) -> Lower<()> {
    for (a, f) in axes.iter().zip(by) {
        factors[*a] = Some(*f);
        target[*a] = match (shape[*a].as_int(), f.fract() == 0.0) {
            (Some(n), _) => ((n as f64 * f).floor() as i64).into(),
            (None, true) => shape[*a].checked_mul(&Dim::from(*f as i64))?,
            (None, false) if (1.0 / f).fract() == 0.0 => shape[*a].floor_div(&((1.0 / f) as i64).into())?,
            (None, false) => ((number(&shape[*a])? as f64 * f).floor() as i64).into(),
        };
    }
    Ok(())
}

/// Variants of sampling that give other elements than the graph's operator.
fn check(
    c: &Call<'_>,
    mode: ResizeMode,
    coordinates: ResizeCoordinates,
    old: bool,
    shape: &[Dim],
    target: &[Dim],
    factors: &[Option<f64>],
) -> Lower<()> {
    let grows = |a: usize| {
        let ints = shape[a].as_int().zip(target[a].as_int());
        ints.is_none_or(|(n, m)| m % n.max(1) == 0)
    };
    let whole = (2..shape.len()).all(grows);
    if mode == ResizeMode::Nearest {
        let default = if old { "floor" } else { "round_prefer_floor" };
        let nearest = c.text("nearest_mode").unwrap_or(default);
        let wanted = match coordinates {
            ResizeCoordinates::Asymmetric => nearest == "floor",
            // With whole factors half-pixel centres never lie between two elements in the middle.
            _ => {
                nearest == "round_prefer_floor"
                    || (whole
                        && nearest == "round_prefer_ceil"
                        && coordinates == ResizeCoordinates::HalfPixel)
            }
        };
        if !wanted {
            return unsupported(format!("rounds coordinates by `{nearest}`"));
        }
    }
    if mode == ResizeMode::Cubic {
        let a = c.float_or("cubic_coeff_a", -0.75);
        if (a + 0.75).abs() > 1e-6 || c.int_or("exclude_outside", 0) != 0 {
            return unsupported("has another cubic kernel than the one with a = -0.75");
        }
    }
    // A scale that does not give whole elements also moves the coordinates.
    let uneven = factors.iter().enumerate().any(|(a, f)| match (f, shape[a].as_int(), target[a].as_int()) {
        (Some(f), Some(n), Some(m)) => (n as f64 * f - m as f64).abs() > 1e-4 * m as f64,
        _ => false,
    });
    if uneven && coordinates != ResizeCoordinates::AlignCorners {
        return unsupported("has a scale that does not give a whole number of elements");
    }
    Ok(())
}
