#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use super::super::simd::{Level, with};
use super::super::tests::noise;
use super::*;

fn naive(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let at =
        |i: usize, j: usize| (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[j * k + p])).sum::<f64>();
    (0..m * n).map(|e| at(e / n, e % n) as f32).collect()
}

fn transposed(v: &[f32], rows: usize, width: usize) -> Vec<f32> {
    (0..rows * width).map(|e| v[e % rows * width + e / rows]).collect()
}

/// All four orders of the factors, with a bias.
fn products(m: usize, n: usize, k: usize) -> Vec<Vec<f32>> {
    let (a, b) = (noise(1, m * k), noise(2, n * k));
    let (at, bt) = (transposed(&a, m, k), transposed(&b, n, k));
    let (row, column) = (noise(3, m), noise(4, n));
    let mut out = Vec::new();
    for (left, right) in [
        (Matrix::rows(&a, k), Matrix::rows(&b, k)),
        (Matrix::columns(&at, m), Matrix::rows(&b, k)),
        (Matrix::rows(&a, k), Matrix::columns(&bt, n)),
    ] {
        for start in [Start::Zero, Start::Row(&row), Start::Column(&column), Start::Add] {
            let mut c = vec![0.25; m * n];
            Product {
                rows: m,
                columns: n,
                depth: k,
                a: &left,
                b: &right,
                row_stride: n,
                column: |j| j,
                start,
            }
            .run(&mut c);
            out.push(c);
        }
    }
    out
}

fn check(m: usize, n: usize, k: usize) {
    let want = naive(&noise(1, m * k), &noise(2, n * k), m, n, k);
    let (row, column) = (noise(3, m), noise(4, n));
    for level in Level::all() {
        let one = with(level, 1, || products(m, n, k));
        let three = with(level, 3, || products(m, n, k));
        // To the bit: neither threads nor runs change the order of sums.
        assert_eq!(one, three, "{level:?} {m} {n} {k}");
        for (v, c) in one.iter().enumerate() {
            for (e, x) in c.iter().enumerate() {
                let start = [0.0, row[e / n], column[e % n], 0.25][v % 4];
                let gap = (x - want[e] - start).abs();
                assert!(gap <= 2e-6 * (k as f32).sqrt() + 1e-6, "{level:?} {m}x{n}x{k} variant {v}: {gap}");
            }
        }
    }
}

#[test]
fn blocks_and_shares_meet() {
    for (m, n, k) in
        [(1, 1, 1), (6, 16, 8), (7, 17, 257), (150, 300, 40), (300, 33, 520), (0, 3, 2), (3, 0, 2), (3, 2, 0)]
    {
        check(m, n, k);
    }
    // Taller than wide, wider than tall with halved rows, few of both.
    for (m, n, k) in [(613, 257, 70), (200, 310, 300), (288, 288, 20), (100, 90, 700)] {
        check(m, n, k);
    }
}

#[test]
fn shares_of_rows_end_together() {
    let cases = [(1024, 2), (4096, 2), (288, 2), (300, 4), (5000, 3), (1 << 16, 16)];
    for (mr, (rows, threads)) in [6, 8, 12].into_iter().flat_map(|mr| cases.map(|c| (mr, c))) {
        let share = share_of(rows, mr, threads);
        assert!((36..=96).contains(&share) && share.is_multiple_of(mr), "{rows} {threads}: {share}");
        let longest = |share: usize| {
            let mut ends = vec![0; threads];
            for t in 0..rows.div_ceil(share) {
                *ends.iter_mut().min().unwrap() += share.min(rows - t * share);
            }
            ends.into_iter().max().unwrap()
        };
        let shares = (36..=96).filter(|share: &usize| share.is_multiple_of(mr));
        let best = shares.map(longest).min().unwrap();
        assert!(longest(share) * 100 <= best * 105, "{rows} rows, {threads} threads: {share}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn products_equal_their_definition(m in 1_usize..40, n in 1_usize..70, k in 1_usize..60) {
        check(m, n, k);
    }
}
