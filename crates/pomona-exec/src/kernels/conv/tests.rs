#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::{Geometry, channel_sums, conv, conv_input, conv_weight, product, winograd};
use crate::kernels::simd::{Level, with};
use crate::kernels::tests::noise;

/// Every product of an input, a weight and an output element, by the definition.
fn visit(g: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    let (ci, co) = (g.inputs / g.groups, g.outputs / g.groups);
    for n in 0..g.batch {
        for o in 0..g.outputs {
            for oy in 0..g.out[0] {
                for ox in 0..g.out[1] {
                    for c in 0..ci {
                        for ky in 0..g.kernel[0] {
                            for kx in 0..g.kernel[1] {
                                let iy = (oy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.before[0]);
                                let ix = (ox * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.before[1]);
                                if iy >= g.size[0] || ix >= g.size[1] {
                                    continue;
                                }
                                let x = ((n * g.inputs + o / co * ci + c) * g.size[0] + iy) * g.size[1] + ix;
                                let w = ((o * ci + c) * g.kernel[0] + ky) * g.kernel[1] + kx;
                                let y = ((n * g.outputs + o) * g.out[0] + oy) * g.out[1] + ox;
                                f(x, w, y);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= 2e-5 * scale, "{what}[{i}]: {g}, by definition {w}");
    }
}

fn check(g: Geometry) {
    let [nx, nw, ny] = g.elements();
    let (x, w, up, bias) = (noise(1, nx), noise(2, nw), noise(3, ny), noise(4, g.outputs));
    let plane = g.out[0] * g.out[1];
    let mut y: Vec<f64> = (0..ny).map(|i| f64::from(bias[i / plane % g.outputs])).collect();
    let (mut dx, mut dw) = (vec![0.0; nx], vec![0.0; nw]);
    visit(&g, |i, j, k| {
        y[k] += f64::from(x[i]) * f64::from(w[j]);
        dx[i] += f64::from(up[k]) * f64::from(w[j]);
        dw[j] += f64::from(up[k]) * f64::from(x[i]);
    });
    let mut db = vec![0.0; g.outputs];
    up.iter().enumerate().for_each(|(i, v)| db[i / plane % g.outputs] += f64::from(*v));
    for level in Level::all() {
        let run = || {
            (
                conv(&x, &w, Some(&bias), &g),
                conv_input(&up, &w, None, &g),
                conv_weight(&x, &up, &g),
                channel_sums(&up, g.batch, g.outputs, plane),
            )
        };
        let one = with(level, 1, run);
        // To the bit, whatever the number of threads.
        assert_eq!(one, with(level, 3, run), "{level:?} {g:?}");
        close(&one.0, &y, "values");
        close(&one.1, &dx, "input");
        close(&one.2, &dw, "weight");
        close(&one.3, &db, "bias");
    }
}

fn fits(mut g: Geometry, after: [usize; 2]) -> Option<Geometry> {
    for d in 0..2 {
        let reach = g.dilation[d] * (g.kernel[d] - 1) + 1;
        g.out[d] = (g.size[d] + g.before[d] + after[d]).checked_sub(reach)? / g.stride[d] + 1;
    }
    Some(g)
}

fn dense(
    batch: usize,
    inputs: usize,
    outputs: usize,
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    pad: usize,
) -> Geometry {
    let g = Geometry {
        batch,
        inputs,
        outputs,
        groups: 1,
        size,
        out: [0; 2],
        kernel: [kernel; 2],
        stride: [stride; 2],
        before: [pad; 2],
        dilation: [1; 2],
    };
    fits(g, [pad; 2]).unwrap()
}

#[test]
fn sizes_of_networks() {
    check(dense(2, 19, 37, [17, 33], 3, 1, 1));
    check(dense(1, 33, 13, [16, 16], 3, 2, 1));
    check(dense(3, 8, 70, [7, 7], 1, 1, 0));
    check(dense(2, 5, 3, [12, 9], 4, 2, 1));
    // A stride beyond the kernel leaves pixels that nothing reads.
    check(dense(1, 4, 6, [11, 10], 2, 3, 0));
    check(dense(0, 4, 6, [11, 10], 3, 1, 1));
    // Planes of nothing, which windows see the borders of.
    check(Geometry { out: [1, 1], kernel: [1, 2], before: [0, 1], ..dense(1, 1, 1, [1, 0], 1, 1, 1) });
    check(Geometry { out: [3, 1], kernel: [1, 2], before: [0, 1], ..dense(2, 32, 5, [3, 0], 1, 1, 1) });
    // Rows and channels of whole registers are read in place; the output's last channels are part of a tile.
    check(dense(2, 32, 40, [16, 32], 5, 1, 2));
    check(dense(1, 16, 28, [18, 64], 4, 2, 1));
    check(Geometry { groups: 2, ..dense(2, 64, 24, [9, 48], 3, 1, 1) });
    let depthwise = Geometry { groups: 6, outputs: 12, ..dense(2, 6, 12, [9, 21], 3, 1, 1) };
    check(depthwise);
    check(Geometry { groups: 6, outputs: 6, ..dense(2, 6, 6, [9, 20], 5, 2, 2) });
}

#[test]
fn tiles_of_four_by_four() {
    let check = |g: Geometry| {
        assert!(winograd::fits(&g) && winograd::fits_input(&g) && winograd::fits_weight(&g), "{g:?}");
        check(g);
    };
    // Tiles that the border cuts, channels that do not fill registers, tasks of several samples.
    check(dense(2, 60, 57, [23, 33], 3, 1, 1));
    check(dense(9, 64, 60, [8, 7], 3, 1, 1));
    check(dense(2, 61, 62, [26, 30], 3, 1, 0));
    check(dense(1, 60, 64, [26, 23], 3, 1, 2));
    check(fits(Geometry { before: [0, 2], ..dense(2, 61, 64, [26, 30], 3, 1, 0) }, [1, 0]).unwrap());
    // Rows of more tiles than a task has.
    check(dense(1, 31, 61, [8, 270], 3, 1, 1));
    // Tasks of filters, whose channels come in parts.
    check(dense(2, 157, 160, [16, 16], 3, 1, 1));
}

/// By tiles and by windows alike where tasks and what is held come in several parts.
#[test]
fn tiles_in_parts() {
    for g in [
        // Tasks with sums of their own over several pieces of tiles.
        dense(4, 64, 64, [32, 64], 3, 1, 1),
        // Tasks of filters, in blocks of tiles; the weight's gradient in parts of the output channels, too.
        dense(1, 1024, 256, [36, 64], 3, 1, 1),
    ] {
        assert!(winograd::fits(&g) && winograd::fits_input(&g) && winograd::fits_weight(&g), "{g:?}");
        let [nx, nw, ny] = g.elements();
        let (x, w, up) = (noise(1, nx), noise(2, nw), noise(3, ny));
        let (mut y, mut dx, mut dw) = (vec![0.0; ny], vec![0.0; nx], vec![0.0; nw]);
        product::by_windows(&x, &w, None, &g, &mut y);
        product::input_by_windows(&up, &w, None, &g, &mut dx);
        product::weight_by_windows(&x, &up, &g, &mut dw);
        let want = [y, dx, dw].map(|v| v.into_iter().map(f64::from).collect::<Vec<f64>>());
        for level in Level::all() {
            let run = || [conv(&x, &w, None, &g), conv_input(&up, &w, None, &g), conv_weight(&x, &up, &g)];
            for ((got, want), what) in
                with(level, 2, run).iter().zip(&want).zip(["values", "input", "weight"])
            {
                close(got, want, what);
            }
        }
    }
}

/// A quarter of the products costs two bits of the sums: 1.5e-6 of the values for 0.4e-6 of fused products, over 256 channels.
#[test]
fn tiles_are_about_as_exact() {
    let g = dense(1, 256, 24, [16, 16], 3, 1, 1);
    assert!(winograd::fits(&g));
    let [nx, nw, ny] = g.elements();
    let (x, w) = (noise(1, nx), noise(2, nw));
    let mut want = vec![0.0_f64; ny];
    visit(&g, |i, j, k| want[k] += f64::from(x[i]) * f64::from(w[j]));
    let error = |y: &[f32]| {
        let squares = y.iter().zip(&want).map(|(y, w)| (f64::from(*y) - w).powi(2)).sum::<f64>();
        (squares / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
    };
    let mut all = vec![0.0; ny];
    product::by_windows(&x, &w, None, &g, &mut all);
    let (tiles, all) = (error(&conv(&x, &w, None, &g)), error(&all));
    assert!(tiles < 2e-6 && all < 1e-6, "relative error {tiles:.1e} by tiles, {all:.1e} of all products");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn any_geometry(
        (batch, groups, ci, co) in (1_usize..3, 1_usize..4, 1_usize..6, 1_usize..6),
        size in (1_usize..14, 1_usize..20),
        kernel in (1_usize..5, 1_usize..5),
        stride in (1_usize..4, 1_usize..4),
        before in (0_usize..4, 0_usize..4),
        after in (0_usize..4, 0_usize..4),
        dilation in (1_usize..3, 1_usize..3),
    ) {
        let g = Geometry {
            batch,
            inputs: groups * ci,
            outputs: groups * co,
            groups,
            size: size.into(),
            out: [0; 2],
            kernel: kernel.into(),
            stride: stride.into(),
            before: before.into(),
            dilation: dilation.into(),
        };
        if let Some(g) = fits(g, after.into()) {
            check(g);
        }
    }
}
