//! A graph to GGUF: names, row order, rotary divisors.

use pomona_graph::RopeScaling;

/// Divisors of the rotary frequencies under Llama 3's rule; none for other rules.
pub(super) fn llama3_divisors(scaling: &RopeScaling, theta: f64, pairs: usize) -> Option<Vec<f32>> {
    let &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = scaling else {
        return None;
    };
    let original = original_context as f64;
    let (long, short) = (original / low_freq_factor, original / high_freq_factor);
    let divisor = |i: usize| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(i as f64 / pairs as f64);
        if wavelength < short {
            1.0
        } else if wavelength > long {
            factor
        } else {
            let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Some((0..pairs).map(|i| divisor(i) as f32).collect())
}
