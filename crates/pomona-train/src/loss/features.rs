//! Differences of values of student and teacher, through a projection where their widths differ.

use pomona_exec::Tensor;
use rayon::prelude::*;

use super::task::unfit;
use super::{Kind, Normalise, Term};
use crate::data::Batch;
use crate::error::Result;
use crate::rows::rows;

/// Of one tap.
pub(super) struct Measured {
    pub loss: f64,
    pub gradient: Vec<f32>,
    pub projection: Option<(usize, Tensor)>,
}

/// Mean square (or absolute value) of `P student - teacher` over the elements that count, and gradients of `scale` times it.
/// `P` `[teacher's width, student's]` acts on the last axis, or on the channels of pictures (axis 1 of rank 4), as a 1x1
/// convolution.
pub(super) fn difference(
    term: &Term,
    student: &Tensor,
    teacher: &Tensor,
    projection: Option<(usize, &Tensor)>,
    batch: &Batch,
    scale: f64,
) -> Result<Measured> {
    let flat = |t: &Tensor| -> Result<Tensor> {
        let s = t.shape();
        let moved = if s.len() == 4 { t.transpose(&[0, 2, 3, 1])? } else { t.clone() };
        let width = moved.shape().last().copied().unwrap_or(1);
        Ok(moved.reshape(&[t.elements() / width.max(1), width])?)
    };
    let Some((number, matrix)) = projection else {
        let (loss, gradient) = plain(term, student, teacher, batch, scale)?;
        return Ok(Measured { loss, gradient, projection: None });
    };
    let (s, t) = (flat(student)?, flat(teacher)?);
    let seen = s.matmul(&matrix.transpose(&[1, 0])?)?;
    let (loss, above) = plain(term, &seen, &t, batch, scale)?;
    let above = Tensor::from_f32(above, seen.shape(), seen.device())?;
    let of_matrix = above.transpose(&[1, 0])?.matmul(&s)?;
    let back = above.matmul(matrix)?;
    let back = match student.shape() {
        [n, c, h, w] => back.reshape(&[*n, *h, *w, *c])?.transpose(&[0, 3, 1, 2])?,
        shape => back.reshape(shape)?,
    };
    Ok(Measured { loss, gradient: back.to_f32()?, projection: Some((number, of_matrix)) })
}

fn plain(
    term: &Term,
    student: &Tensor,
    teacher: &Tensor,
    batch: &Batch,
    scale: f64,
) -> Result<(f64, Vec<f32>)> {
    if student.shape() != teacher.shape() {
        return Err(unfit(format!(
            "{} compares {student:?} of the student with {teacher:?} of the teacher: shapes must agree but for the width",
            term.kind.name()
        )));
    }
    let rows = rows(student, batch);
    let n = (rows.count * rows.width).max(1) as f64;
    let absolute = term.kind == Kind::OutputL1;
    let mut values = student.to_f32()?;
    let loss = teacher.with_f32(|t| {
        let parts: Vec<(f64, f64)> = values
            .par_chunks(rows.width)
            .zip(t.par_chunks(rows.width))
            .enumerate()
            .filter(|(i, _)| rows.is_live(*i))
            .map(|(_, (s, t))| {
                let one = |(s, t): (&f32, &f32)| if absolute { (s - t).abs() } else { (s - t) * (s - t) };
                let off = s.iter().zip(t).map(one).sum::<f32>();
                let whole = |t: &f32| if absolute { t.abs() } else { t * t };
                (f64::from(off), f64::from(t.iter().map(whole).sum::<f32>()))
            })
            .collect();
        let (off, whole) = parts.iter().fold((0.0, 0.0), |a, p| (a.0 + p.0, a.1 + p.1));
        let over = match term.normalise {
            Normalise::Mean => n,
            Normalise::Relative => whole.max(f64::MIN_POSITIVE),
        };
        let factor = (scale / over) as f32;
        let row = |(i, (s, t)): (usize, (&mut [f32], &[f32]))| {
            let live = rows.is_live(i);
            for (s, t) in s.iter_mut().zip(t) {
                let d = *s - t;
                let slope = match absolute {
                    true if d == 0.0 => 0.0,
                    true => d.signum(),
                    false => 2.0 * d,
                };
                *s = if live { factor * slope } else { 0.0 };
            }
        };
        values.par_chunks_mut(rows.width).zip(t.par_chunks(rows.width)).enumerate().for_each(row);
        off / over
    })?;
    Ok((loss, values))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::data::Target;
    use pomona_exec::Device;

    fn wave(n: usize, by: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * by + 0.3).sin() * 2.0).collect()
    }

    /// Gradients of values and projection against differences of the loss.
    fn check(shape: &[usize], width: usize, normalise: Normalise, target: Target) {
        let cpu = Device::cpu();
        let (axis, own) =
            if shape.len() == 4 { (1, shape[1]) } else { (shape.len() - 1, shape[shape.len() - 1]) };
        let mut other = shape.to_vec();
        other[axis] = width;
        let (n, m) = (shape.iter().product::<usize>(), other.iter().product::<usize>());
        let term = Term { kind: Kind::Features { taps: Vec::new() }, weight: 1.0, normalise };
        let batch = Batch { inputs: vec![], target, samples: 2, units: 4, from: String::new() };
        let t = Tensor::from_f32(wave(m, 0.71), &other, &cpu).unwrap();
        let measure = |s: &[f32], p: &[f32]| {
            let s = Tensor::from_f32(s.to_vec(), shape, &cpu).unwrap();
            let p = Tensor::from_f32(p.to_vec(), &[width, own], &cpu).unwrap();
            let projection = (own != width).then_some((3, &p));
            difference(&term, &s, &t, projection, &batch, 0.5).unwrap()
        };
        let (s, p) = (wave(n, 0.37), wave(width * own, 0.53));
        let found = measure(&s, &p);
        for i in [0, n / 2, n - 1] {
            let mut moved = s.clone();
            moved[i] += 1e-2;
            let up = measure(&moved, &p).loss;
            moved[i] -= 2e-2;
            let slope = 0.5 * (up - measure(&moved, &p).loss) / 2e-2;
            assert!(
                (f64::from(found.gradient[i]) - slope).abs() < 1e-4,
                "{i}: {} {slope}",
                found.gradient[i]
            );
        }
        let Some((number, of_matrix)) = found.projection else {
            assert_eq!(own, width);
            return;
        };
        assert_eq!(number, 3);
        let of_matrix = of_matrix.to_f32().unwrap();
        for i in [0, width * own - 1] {
            let mut moved = p.clone();
            moved[i] += 1e-2;
            let up = measure(&s, &moved).loss;
            moved[i] -= 2e-2;
            let slope = 0.5 * (up - measure(&s, &moved).loss) / 2e-2;
            assert!((f64::from(of_matrix[i]) - slope).abs() < 1e-3, "{i}: {} {slope}", of_matrix[i]);
        }
    }

    #[test]
    fn gradients_are_slopes() {
        let masked = || Target::Tokens(vec![crate::data::IGNORED, 1, 2, 3, 4, crate::data::IGNORED]);
        check(&[2, 3, 5], 5, Normalise::Mean, masked());
        check(&[2, 3, 5], 5, Normalise::Relative, masked());
        check(&[2, 3, 5], 7, Normalise::Mean, masked());
        check(&[2, 3, 2, 2], 4, Normalise::Relative, Target::None);
    }
}
