#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod interpreter;
mod random;

use super::*;

fn sources(name: &str) -> Option<SourceTensor> {
    match name {
        "a" => Some(SourceTensor::new(vec![6, 4], "f32")),
        "h" => Some(SourceTensor::new(vec![6, 4], "f16")),
        "b" => Some(SourceTensor::new(vec![2, 3, 4], "bf16")),
        "w" => Some(SourceTensor::new(vec![6, 5], "f32")),
        "q" => Some(SourceTensor::new(vec![6, 64], "q4_1")),
        _ => None,
    }
}

fn split(axis: usize, start: usize, len: usize, of: Expr) -> Expr {
    Expr::Split { axis, start, len, of: Box::new(of) }
}

fn transpose(axes: &[usize], of: Expr) -> Expr {
    Expr::Transpose { axes: axes.to_vec(), of: Box::new(of) }
}

fn reshape(shape: &[usize], of: Expr) -> Expr {
    Expr::Reshape { shape: shape.to_vec(), of: Box::new(of) }
}

fn concat(axis: usize, of: Vec<Expr>) -> Expr {
    Expr::Concat { axis, of }
}

fn a() -> Expr {
    Expr::copy("a")
}

fn check(expr: Expr, expect: Expr) {
    assert_eq!(simplify_expr(expr.clone(), &sources), expect, "{expr:?}");
}

#[test]
fn a_permutation_and_its_inverse_cancel_to_a_copy() {
    // GGUF's row order of two heads of width 6 for halves of a head interleaved, and back.
    let (heads, width) = (2_u32, 6_u32);
    let at = |h: u32, half: u32, i: u32| h * width + half * (width / 2) + i;
    let interleave: Vec<u32> =
        (0..heads).flat_map(|h| (0..3).flat_map(move |i| (0..2).map(move |half| at(h, half, i)))).collect();
    let mut back = vec![0; interleave.len()];
    interleave.iter().enumerate().for_each(|(to, from)| back[*from as usize] = to as u32);
    assert_ne!(interleave, back);
    let gguf = |name: &str| (name == "q").then(|| SourceTensor::new(vec![12, 64], "q4_1"));
    let import = Recipe {
        outputs: vec![RecipeOutput {
            name: "weight".into(),
            shape: vec![12, 64],
            expr: Expr::copy("q").gather(0, back),
        }],
    };
    let export = Recipe {
        outputs: vec![RecipeOutput {
            name: "out".into(),
            shape: vec![12, 64],
            expr: Expr::copy("weight").gather(0, interleave),
        }],
    };
    let both = compose(&export, &import).unwrap().simplified(&gguf);
    assert_eq!(both.outputs[0].expr, Expr::copy("q"));
    assert_eq!(both.check(&gguf).unwrap(), [Some("q4_1".to_owned())]);
}

#[test]
fn gathers_on_one_axis_compose_and_identity_vanishes() {
    check(a().gather(0, vec![5, 3, 1]).gather(0, vec![2, 0]), a().gather(0, vec![1, 5]));
    check(a().gather(0, vec![5, 4, 3, 2, 1, 0]).gather(0, vec![5, 4, 3, 2, 1, 0]), a());
    check(a().gather(0, vec![0, 1, 2]), split(0, 0, 3, a()));
    check(split(0, 1, 2, a().gather(0, vec![5, 3, 1])), a().gather(0, vec![3, 1]));
    check(split(0, 1, 2, split(0, 2, 4, a())), split(0, 3, 2, a()));
    // The same length from the start is the identity only where the axis is no longer.
    let unknown = Expr::copy("?").gather(0, vec![1, 0]).gather(0, vec![1, 0]);
    assert_eq!(simplify_expr(unknown, &sources), split(0, 0, 2, Expr::copy("?")));
}

#[test]
fn selections_on_different_axes_take_one_order() {
    let both = split(1, 0, 2, a().gather(0, vec![4, 2]));
    check(split(1, 0, 2, a()).gather(0, vec![4, 2]), both.clone());
    check(both.clone(), both);
    let again = split(1, 0, 2, a().gather(0, vec![4, 2])).gather(0, vec![1, 0]);
    check(again, split(1, 0, 2, a().gather(0, vec![2, 4])));
}

#[test]
fn transposes_and_reshapes_compose() {
    let b = || Expr::copy("b");
    check(transpose(&[1, 0], transpose(&[1, 0], a())), a());
    check(transpose(&[2, 0, 1], transpose(&[1, 2, 0], b())), b());
    check(transpose(&[1, 2, 0], transpose(&[1, 2, 0], b())), transpose(&[2, 0, 1], b()));
    check(reshape(&[24], reshape(&[4, 6], a())), reshape(&[24], a()));
    check(reshape(&[6, 4], reshape(&[24], a())), a());
    check(transpose(&[1, 0], transpose(&[1, 0], a()).gather(1, vec![3, 0])), a().gather(0, vec![3, 0]));
}

#[test]
fn a_gather_passes_a_reshape_only_where_the_leading_axes_stay() {
    let kept = reshape(&[6, 2, 2], a()).gather(0, vec![4, 1]);
    check(kept, reshape(&[2, 2, 2], a().gather(0, vec![4, 1])));
    let changed = reshape(&[4, 6], a()).gather(0, vec![3, 1]);
    check(changed.clone(), changed);
}

#[test]
fn casts_of_equal_type_or_lossless_widening_vanish() {
    let h = || Expr::copy("h");
    check(a().cast("f32"), a());
    check(a().cast("f16").cast("f16"), a().cast("f16"));
    check(h().cast("f32").cast("bf16"), h().cast("bf16"));
    check(h().cast("f32").cast("f16"), h());
    // Narrowing loses: both stay.
    check(a().cast("f16").cast("f32"), a().cast("f16").cast("f32"));
    check(a().cast("bf16").cast("f16"), a().cast("bf16").cast("f16"));
    let q = || Expr::copy("q");
    check(Expr::Decode { of: Box::new(q()) }.cast("f16"), q().cast("f16"));
    check(q().gather(0, vec![2, 1]).cast("f16").gather(0, vec![1, 0]), split(0, 1, 2, q()).cast("f16"));
}

#[test]
fn adjacent_splits_join_to_the_tensor() {
    check(concat(0, vec![split(0, 0, 2, a()), split(0, 2, 4, a())]), a());
    check(concat(0, vec![split(0, 0, 2, a()), split(0, 3, 3, a())]), a().gather(0, vec![0, 1, 3, 4, 5]));
    check(concat(1, vec![a()]), a());
    check(split(0, 6, 6, concat(0, vec![a(), a()])), a());
    check(
        concat(0, vec![a(), concat(0, vec![a(), Expr::copy("h").cast("f32")])]),
        concat(0, vec![a(), a(), Expr::copy("h").cast("f32")]),
    );
    let qkv = concat(0, vec![a(), Expr::copy("h").cast("f32"), a()]);
    check(split(0, 6, 6, qkv.clone()), Expr::copy("h").cast("f32"));
    check(
        split(0, 4, 4, qkv),
        concat(0, vec![split(0, 4, 2, a()), split(0, 0, 2, Expr::copy("h").cast("f32"))]),
    );
}

#[test]
fn shapes_and_encodings_are_checked() {
    let refuse = |expr: Expr, words: &str| {
        let recipe = Recipe { outputs: vec![RecipeOutput { name: "out".into(), shape: vec![], expr }] };
        let message = recipe.check(&sources).unwrap_err().to_string();
        assert!(message.contains("recipe for `out`") && message.contains(words), "{message}");
    };
    let q = || Expr::copy("q");
    refuse(Expr::copy("nothing"), "no source tensor `nothing`");
    refuse(a().gather(0, vec![6]), "gather index 6 on axis 0 of [6, 4]");
    refuse(a().gather(2, vec![0]), "no such axis");
    refuse(split(1, usize::MAX, 2, a()), "it has 4");
    refuse(concat(0, vec![a(), Expr::copy("b")]), "concat along axis 0 of [6, 4] and [2, 3, 4]");
    refuse(concat(0, vec![a(), Expr::copy("h")]), "concat of `f32` and `f16`");
    refuse(transpose(&[0, 0], a()), "not an order of the axes");
    refuse(reshape(&[5, 5], a()), "numbers of elements differ");
    refuse(q().gather(1, vec![0]), "decode it first");
    refuse(transpose(&[1, 0], q()), "decode it first");
    refuse(reshape(&[384], q()), "decode it first");
    refuse(a().cast("q4_0"), "only f32, f16");
    refuse(a(), "states []");
    let tile = Expr::Tile { repeats: vec![usize::MAX, 1], of: Box::new(a()) };
    refuse(tile, "does not fit");
    refuse(Expr::Literal { values: vec![1.0], shape: vec![2] }, "has 1 values");
    let lora = |b: &str, a: &str| Expr::WeightedSum {
        terms: vec![Term { weight: 0.5, product: vec![Expr::copy(b), transpose(&[1, 0], Expr::copy(a))] }],
    };
    assert_eq!(lora("a", "a").infer(&sources).unwrap(), SourceTensor::new(vec![6, 6], "f32"));
    refuse(lora("a", "w"), "matrix product of [6, 4] and [5, 6]");
}

#[test]
fn composition_names_what_is_missing_or_has_another_shape() {
    let one = |name: &str, shape: Vec<usize>, expr: Expr| Recipe {
        outputs: vec![RecipeOutput { name: name.into(), shape, expr }],
    };
    let inner = one("w", vec![6, 4], a());
    let missing = compose(&one("out", vec![6, 4], Expr::copy("v")), &inner).unwrap_err().to_string();
    assert_eq!(missing, "recipe for `out`: there is no source tensor `v`");
    let shape = compose(&one("out", vec![4, 6], Expr::copy("w")), &inner).unwrap_err().to_string();
    assert!(shape.contains("gives shape [6, 4], the recipe states [4, 6]"), "{shape}");
}
