//! The teacher's distribution.

use pomona_exec::Tensor;
use rayon::prelude::*;

use super::task::unfit;
use crate::data::Batch;
use crate::error::Result;
use crate::rows::rows;

/// `T^2 KL(teacher || student)` at a temperature, as the mean over predicted rows, and the gradient of `scale` times it.
pub(super) fn kl(
    student: &Tensor,
    teacher: &Tensor,
    batch: &Batch,
    temperature: f64,
    scale: f64,
) -> Result<(f64, Vec<f32>)> {
    if student.shape() != teacher.shape() {
        return Err(unfit(format!(
            "the student gives {student:?} and the teacher {teacher:?}: kl needs one vocabulary"
        )));
    }
    let rows = rows(student, batch);
    let count = rows.count.max(1) as f64;
    let cold = (1.0 / temperature) as f32;
    let factor = (scale * temperature / count) as f32;
    let mut values = student.to_f32()?;
    let losses: Vec<f64> = teacher.with_f32(|t| {
        let row = |(i, (s, t)): (usize, (&mut [f32], &[f32]))| {
            if rows.is_live(i) {
                divergence(s, t, cold, factor)
            } else {
                s.fill(0.0);
                0.0
            }
        };
        values.par_chunks_mut(rows.width).zip(t.par_chunks(rows.width)).enumerate().map(row).collect()
    })?;
    Ok((temperature * temperature * losses.iter().sum::<f64>() / count, values))
}

/// KL of one row; the student's logits become `factor * (q - p)`.
fn divergence(student: &mut [f32], teacher: &[f32], cold: f32, factor: f32) -> f64 {
    let peak = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (s_max, t_max) = (peak(student), peak(teacher));
    let (mut s_sum, mut t_sum) = (0.0_f64, 0.0_f64);
    for (s, t) in student.chunks(256).zip(teacher.chunks(256)) {
        s_sum += f64::from(s.iter().map(|s| ((s - s_max) * cold).exp()).sum::<f32>());
        t_sum += f64::from(t.iter().map(|t| ((t - t_max) * cold).exp()).sum::<f32>());
    }
    let (s_log, t_log) = (s_sum.ln() as f32, t_sum.ln() as f32);
    let mut loss = 0.0_f64;
    for (s, t) in student.chunks_mut(256).zip(teacher.chunks(256)) {
        let mut part = 0.0_f32;
        for (s, t) in s.iter_mut().zip(t) {
            let (log_q, log_p) = ((*s - s_max) * cold - s_log, (t - t_max) * cold - t_log);
            let p = log_p.exp();
            part += p * (log_p - log_q);
            *s = factor * (log_q.exp() - p);
        }
        loss += f64::from(part);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_its_definition_and_its_gradient() {
        let t: Vec<f32> = (0..700).map(|i| (i as f32 * 0.37).sin() * 4.0).collect();
        let s: Vec<f32> = (0..700).map(|i| (i as f32 * 0.91).cos() * 3.0).collect();
        let temperature = 2.0_f64;
        let log_softmax = |x: &[f64]| -> Vec<f64> {
            let sum: f64 = x.iter().map(|v| (v / temperature).exp()).sum();
            x.iter().map(|v| v / temperature - sum.ln()).collect()
        };
        let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let kl = |s: &[f64]| {
            let (p, q) = (log_softmax(&wide(&t)), log_softmax(s));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() * temperature * temperature
        };
        let mut gradient = s.clone();
        let loss = divergence(&mut gradient, &t, 0.5, temperature as f32) * temperature * temperature;
        let whole = kl(&wide(&s));
        assert!((loss - whole).abs() < 1e-5 * whole, "{loss} {whole}");
        for i in [0, 13, 699] {
            let (mut up, mut down) = (wide(&s), wide(&s));
            up[i] += 1e-4;
            down[i] -= 1e-4;
            let slope = (kl(&up) - kl(&down)) / 2e-4;
            assert!((f64::from(gradient[i]) - slope).abs() < 1e-5, "{i}: {} {slope}", gradient[i]);
        }
    }
}
