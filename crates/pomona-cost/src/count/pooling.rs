//! Pooling and resampling.

use pomona_graph::ResizeMode;

use super::{Count, OpCost, Shapes, elements, other, plus, times};

/// One operation an element of each window.
pub(super) fn pool(s: &Shapes, kernel: &[usize]) -> Count<OpCost> {
    let window = kernel.iter().try_fold(1_u64, |n, &k| times(&[n, k as u64]))?;
    Ok(other(times(&[elements(s.output()?)?, window])?))
}

/// Window i of n over a size m covers `floor(i*m/n) .. ceil((i+1)*m/n)`; windows may overlap.
pub(super) fn adaptive(s: &Shapes, size: &[usize]) -> Count<OpCost> {
    let input = s.input(0)?;
    let split = input.len().checked_sub(size.len()).ok_or("its input has fewer axes than its size")?;
    let mut total = elements(&input[..split])?;
    for (&m, &n) in input[split..].iter().zip(size) {
        let n = n as u64;
        let mut covered = 0;
        for i in 0..n {
            let end = times(&[i + 1, m])?.div_ceil(n);
            covered = plus(&[covered, end - times(&[i, m])? / n])?;
        }
        total = times(&[total, covered])?;
    }
    Ok(other(total))
}

/// Nearest moves elements; linear and cubic weigh and add 2 or 4 neighbours in each axis that changes.
pub(super) fn resize(s: &Shapes, mode: ResizeMode) -> Count<OpCost> {
    let taps: u64 = match mode {
        ResizeMode::Nearest => return Ok(OpCost::default()),
        ResizeMode::Linear => 2,
        ResizeMode::Cubic => 4,
    };
    let (input, out) = (s.input(0)?, s.output()?);
    let changed = input.iter().zip(out).filter(|(a, b)| a != b).count();
    let neighbours = (0..changed).try_fold(1_u64, |n, _| times(&[n, taps]))?;
    Ok(other(times(&[elements(out)?, 2 * neighbours - 1])?))
}
