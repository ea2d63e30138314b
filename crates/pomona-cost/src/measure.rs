//! Measuring the machine at hand. The arithmetic probes are the caller's, so that they time the kernels that will run.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use crate::device::{Device, Dispatch};
use crate::error::{CostError, Result};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct MeasureOptions {
    /// Threads of the bandwidth test.
    pub threads: usize,
    /// f32 elements of each of its three arrays and threads: far more than the caches hold.
    pub elements: usize,
    /// Times that each probe runs; the fastest counts.
    pub repeats: usize,
}

impl Default for MeasureOptions {
    /// All processors, 64 MiB an array, ten times.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self { threads, elements: 16 << 20, repeats: 10 }
    }
}

/// Work of the caller's kernels.
pub struct Probes<'a> {
    /// A large f32 matrix product.
    pub product: &'a mut dyn FnMut(),
    /// Its floating-point operations: `2 * m * n * k`.
    pub product_flops: f64,
    /// The smallest operator that there is, for the time of a launch.
    pub small: &'a mut dyn FnMut(),
}

/// Measures a device of this name.
pub fn measure_device(
    name: &str,
    title: &str,
    options: &MeasureOptions,
    probes: Probes<'_>,
) -> Result<Device> {
    let bandwidth = triad_bandwidth(options)?;
    let product = fastest(options.repeats, probes.product);
    // One call is shorter than the clock's steps.
    const CALLS: u32 = 100;
    let small =
        fastest(options.repeats, &mut || (0..CALLS).for_each(|_| (probes.small)())) / f64::from(CALLS);
    let device = Device {
        name: name.to_owned(),
        title: title.to_owned(),
        peak_flops: BTreeMap::from([("f32".to_owned(), probes.product_flops / product)]),
        memory_bandwidth: bandwidth,
        cache_bytes: None,
        launch_seconds: Some(small),
        dispatch: Dispatch::Blocking,
        source: format!(
            "measured here by {} {}: f32 matrix product, triad on {} threads, smallest operator; best of {}",
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            options.threads,
            options.repeats
        ),
    };
    device.check()?;
    Ok(device)
}

/// Bytes a second of `a = b + q*c` over arrays of f32, two reads and a write an element, on all threads at once.
pub fn triad_bandwidth(options: &MeasureOptions) -> Result<f64> {
    let (threads, n) = (options.threads.max(1), options.elements.max(1));
    let total =
        threads.checked_mul(n).and_then(|e| e.checked_mul(3 * size_of::<f32>())).ok_or_else(|| {
            CostError::BadDevice {
                device: "this machine".to_owned(),
                message: format!("{threads} threads x {n} elements do not fit memory: measure with fewer"),
            }
        })?;
    let mut arrays: Vec<[Vec<f32>; 3]> =
        (0..threads).map(|t| [vec![0.0; n], vec![t as f32 + 1.0; n], vec![0.5; n]]).collect();
    let seconds = fastest(options.repeats, &mut || {
        std::thread::scope(|scope| {
            for [a, b, c] in &mut arrays {
                scope.spawn(move || triad(a, b, c));
            }
        });
    });
    Ok(total as f64 / seconds)
}

fn triad(a: &mut [f32], b: &[f32], c: &[f32]) {
    let q = black_box(3.0);
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        *a = b + q * c;
    }
    black_box(a);
}

/// Seconds of the fastest of `repeats` runs, after one that is not counted; above 0 also where the clock stands.
fn fastest(repeats: usize, run: &mut dyn FnMut()) -> f64 {
    run();
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..repeats.max(1)).map(once).fold(f64::INFINITY, f64::min).max(1e-9)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_measured_device_is_sound() {
        let options = MeasureOptions { threads: 2, elements: 1 << 16, repeats: 3 };
        let mut sum = 0.0_f32;
        let mut product = || (0..10_000).for_each(|i| sum = black_box(sum + i as f32));
        let (mut calls, mut small) = (0_u64, 0_u64);
        let mut tiny = || small += black_box(1);
        let device = measure_device(
            "this-machine",
            "a machine",
            &options,
            Probes {
                product: &mut || {
                    calls += 1;
                    product()
                },
                product_flops: 10_000.0,
                small: &mut tiny,
            },
        )
        .unwrap();
        device.check().unwrap();
        assert_eq!(calls, 4, "one warming run and three measured ones");
        assert_eq!(small, 400);
        assert!(device.memory_bandwidth > 1e8, "{device:?}");
        assert!(device.launch_seconds.unwrap() < 1e-3);
    }
}
