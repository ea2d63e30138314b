//! Frequencies of rotary embeddings.

use crate::op::{RopeAttrs, RopeScaling};

/// Angles a position turns by, one for each pair of channels.
pub fn rope_frequencies(a: &RopeAttrs) -> Vec<f32> {
    let half = a.rotary / 2;
    let base = |i: usize| (1.0 / (a.theta as f32).powf(2.0 * i as f32 / a.rotary as f32)) as f64;
    (0..half)
        .map(|i| {
            let f = base(i);
            let scaled = match &a.scaling {
                RopeScaling::None => f,
                RopeScaling::Linear { factor } => f / factor,
                RopeScaling::Divisors { divisors } => f / divisors.get(i).copied().unwrap_or(1.0),
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                    let original = *original_context as f64;
                    let wavelength = 2.0 * std::f64::consts::PI / f;
                    if wavelength < original / high_freq_factor {
                        f
                    } else if wavelength > original / low_freq_factor {
                        f / factor
                    } else {
                        let smooth =
                            (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                }
            };
            scaled as f32
        })
        .collect()
}
