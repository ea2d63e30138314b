//! Attention on flat heads, and rotary embedding.

use burn::tensor::Shape;
use pomona_graph::{AttentionAttrs, RopeAttrs, RopePairing, rope_frequencies};

use super::Call;
use crate::burn_types::{ActivationOps, B, D, FloatTensorOps};
use crate::error::Result;
use crate::kernels::{self, AttentionShape, Known, Mask, Slice, Turn};
use crate::tensor::Tensor;

/// Logits of keys that a query does not see: their exponential is zero beside any other, and no gradient becomes NaN.
const UNSEEN: f32 = -1e30;

fn shape_of(c: &Call<'_>, a: &AttentionAttrs) -> Result<AttentionShape> {
    let (q, k, v) = (c.input(0)?.shape(), c.input(1)?.shape(), c.input(2)?.shape());
    let divides = |width: usize, heads: usize| heads > 0 && width.is_multiple_of(heads);
    let fits = q.len() == 3 && k.len() == 3 && v.len() == 3 && k[..2] == v[..2] && q[0] == k[0];
    if !fits || !divides(q[2], a.heads) || !divides(k[2], a.kv_heads) || !divides(v[2], a.kv_heads) {
        return Err(
            c.fault(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit {} heads", a.heads))
        );
    }
    let s = AttentionShape {
        batch: q[0],
        queries: q[1],
        keys: k[1],
        heads: a.heads,
        kv_heads: a.kv_heads,
        dk: q[2] / a.heads,
        dv: v[2] / a.kv_heads,
        scale: a.scale as f32,
        causal: a.causal,
        window: a.window.unwrap_or(0),
        softcap: a.softcap.unwrap_or(0.0) as f32,
    };
    if k[2] / a.kv_heads != s.dk || !a.heads.is_multiple_of(a.kv_heads) {
        return Err(c.fault(format!("query heads have {} channels, key heads {}", s.dk, k[2] / a.kv_heads)));
    }
    if a.causal && s.keys < s.queries {
        return Err(c.fault(format!("is causal with {} queries and only {} keys", s.queries, s.keys)));
    }
    Ok(s)
}

/// The strides by which a mask is read for every sample, head, query and key; none where it does not fit them.
fn mask_strides(mask: &[usize], s: &AttentionShape) -> Option<[usize; 4]> {
    let sizes = [s.batch, s.heads, s.queries, s.keys];
    let lead = 4_usize.checked_sub(mask.len())?;
    let (mut strides, mut step) = ([0; 4], 1);
    for (d, &n) in mask.iter().enumerate().rev() {
        if n == sizes[lead + d] && n > 1 {
            strides[lead + d] = step;
        } else if n != 1 {
            return None;
        }
        step *= n;
    }
    Some(strides)
}

/// The attention on the CPU, with or without a mask that needs no gradient.
fn fused(c: &Call<'_>, s: AttentionShape) -> Result<Option<Tensor>> {
    let strides = match c.inputs.get(3) {
        None => None,
        Some(mask) if mask.is_taped() => return Ok(None),
        Some(mask) => match mask_strides(mask.shape(), &s) {
            Some(strides) => Some(strides),
            None => return Ok(None),
        },
    };
    let inputs: Vec<&Tensor> = c.inputs.iter().take(4).collect();
    kernels::record_sharing(&inputs, &[s.batch, s.queries, s.heads * s.dv], |t| {
        let t = t.to_vec();
        let (out, lse) = kernels::attention([&t[0], &t[1], &t[2]], mask_of(&t, strides), s);
        let back = move |out: Slice| {
            kernels::step(move |above, _| {
                let mask = mask_of(&t, strides);
                let known = Known { q: &t[0], k: &t[1], v: &t[2], mask, out: &out, lse: &lse };
                let mut found: Vec<_> = kernels::attention_back(known, above, s).map(Some).into();
                found.resize(t.len(), None);
                found
            })
        };
        (out, back)
    })
}

fn mask_of(inputs: &[Slice], strides: Option<[usize; 4]>) -> Option<Mask<'_>> {
    Some(Mask { values: inputs.get(3)?, strides: strides? })
}

pub(super) fn attention(c: &Call<'_>, a: &AttentionAttrs) -> Result<Tensor> {
    let s = shape_of(c, a)?;
    let device = c.input(0)?.device();
    if let Some(out) = fused(c, s)? {
        return Ok(out);
    }
    let (q, k, v) = (c.input(0)?.as_float()?, c.input(1)?.as_float()?, c.input(2)?.as_float()?);
    let shape = |d: &[usize]| Shape::from(d.to_vec());
    let group = s.heads / s.kv_heads;
    let heads = |t: D, n: usize, heads: usize, width: usize| {
        B::float_permute(B::float_reshape(t, shape(&[s.batch, n, heads, width])), &[0, 2, 1, 3])
    };
    // Query heads that share keys are stacked along the tokens, so that keys are never repeated.
    let q = heads(q, s.queries, s.heads, s.dk);
    let q = B::float_reshape(q, shape(&[s.batch, s.kv_heads, group * s.queries, s.dk]));
    let k = heads(k, s.keys, s.kv_heads, s.dk);
    let v = heads(v, s.keys, s.kv_heads, s.dv);
    let mut logits = B::float_mul_scalar(B::float_matmul(q, B::float_swap_dims(k, 2, 3)), s.scale.into());
    if s.softcap > 0.0 {
        let capped = B::float_tanh(B::float_div_scalar(logits, s.softcap.into()));
        logits = B::float_mul_scalar(capped, s.softcap.into());
    }
    logits = B::float_reshape(logits, shape(&[s.batch, s.heads, s.queries, s.keys]));
    if s.causal {
        let mut mask = vec![UNSEEN; s.queries * s.keys];
        for i in 0..s.queries {
            let row = &mut mask[i * s.keys..(i + 1) * s.keys];
            row[s.visible(i)].fill(0.0);
        }
        let mask = Tensor::from_f32(mask, &[1, 1, s.queries, s.keys], device)?;
        logits = B::float_add(logits, mask.as_float()?);
    }
    if c.inputs.len() > 3 {
        let mask = c.input(3)?;
        let lead = 4_usize.saturating_sub(mask.shape().len());
        let four: Vec<usize> = vec![1; lead].into_iter().chain(mask.shape().iter().copied()).collect();
        logits = B::float_add(logits, mask.reshape(&four)?.as_float()?);
    }
    let weights = B::softmax(logits, 3);
    let weights = B::float_reshape(weights, shape(&[s.batch, s.kv_heads, group * s.queries, s.keys]));
    let out = B::float_reshape(B::float_matmul(weights, v), shape(&[s.batch, s.heads, s.queries, s.dv]));
    let out = B::float_permute(out, &[0, 2, 1, 3]);
    Tensor::float(out, device).reshape(&[s.batch, s.queries, s.heads * s.dv])
}

pub(super) fn rope(c: &Call<'_>, a: &RopeAttrs) -> Result<Tensor> {
    let (x, positions) = (c.input(0)?, c.input(1)?);
    let [batch, tokens, width] = *x.shape() else {
        return Err(c.fault(format!("{x:?} was found; [batch, tokens, width] was expected")));
    };
    let (half, head) = (a.rotary / 2, width / a.heads.max(1));
    let found = positions.as_i64()?;
    let shared = found.len() == tokens;
    if !shared && found.len() != batch * tokens {
        return Err(c.fault(format!("{positions:?} does not give {batch} x {tokens} positions")));
    }
    let frequencies = rope_frequencies(a);
    let angles: Vec<f32> =
        found.iter().flat_map(|p| frequencies.iter().map(move |f| *p as f32 * f)).collect();
    let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
    let place = move |row: usize| if shared { row % tokens } else { row };
    let turn = Turn { width, head, rotary: a.rotary, pairing: a.pairing, back: false };
    let fused = kernels::record(&[x], x.shape(), |s| {
        let y = kernels::rotate(&s[0], turn, (&cos, &sin), place);
        let (cos, sin) = (cos.clone(), sin.clone());
        let turn = Turn { back: true, ..turn };
        (y, kernels::step(move |above, _| vec![Some(kernels::rotate(above, turn, (&cos, &sin), place))]))
    })?;
    if let Some(y) = fused {
        return Ok(y);
    }
    let table = |v: Vec<f32>| -> Result<D> {
        let lead = if shared { 1 } else { batch };
        let t = Tensor::from_f32(v, &[lead, tokens, 1, half], x.device())?;
        t.as_float()
    };
    let (cos, sin) = (table(cos)?, table(sin)?);
    let split = x.reshape(&[batch, tokens, a.heads, head])?;
    let turning = split.slice(3, 0..a.rotary)?;
    let (u, v) = match a.pairing {
        RopePairing::Halves => (turning.slice(3, 0..half)?, turning.slice(3, half..a.rotary)?),
        RopePairing::Interleaved => {
            let pairs = turning.reshape(&[batch, tokens, a.heads, half, 2])?;
            let pick =
                |i: usize| pairs.slice(4, i..i + 1).and_then(|t| t.reshape(&[batch, tokens, a.heads, half]));
            (pick(0)?, pick(1)?)
        }
    };
    let (u, v) = (u.as_float()?, v.as_float()?);
    let first = B::float_sub(B::float_mul(u.clone(), cos.clone()), B::float_mul(v.clone(), sin.clone()));
    let second = B::float_add(B::float_mul(v, cos), B::float_mul(u, sin));
    let (first, second) = (Tensor::float(first, x.device()), Tensor::float(second, x.device()));
    let turned = match a.pairing {
        RopePairing::Halves => Tensor::concat(&[first, second], 3)?,
        RopePairing::Interleaved => {
            let five = [batch, tokens, a.heads, half, 1];
            Tensor::concat(&[first.reshape(&five)?, second.reshape(&five)?], 4)?
                .reshape(&[batch, tokens, a.heads, a.rotary])?
        }
    };
    let whole = if a.rotary == head {
        turned
    } else {
        Tensor::concat(&[turned, split.slice(3, a.rotary..head)?], 3)?
    };
    whole.reshape(x.shape())
}
