//! Random expressions mean the same before and after simplification and composition.

use proptest::prelude::*;

use super::super::{Expr, Recipe, RecipeOutput, SourceTensor, Term, compose, is_plain_dtype, simplify_expr};
use super::interpreter::{Array, evaluate, source};

fn sources(name: &str) -> Option<SourceTensor> {
    match name {
        "a" => Some(SourceTensor::new(vec![4, 3], "f32")),
        "b" => Some(SourceTensor::new(vec![2, 2, 3], "f16")),
        "c" => Some(SourceTensor::new(vec![4, 3], "bf16")),
        "d" => Some(SourceTensor::new(vec![12], "f32")),
        "q" => Some(SourceTensor::new(vec![4, 3], "q8_0")),
        _ => None,
    }
}

fn read(name: &str) -> Array {
    source(name, &sources(name).expect("a source"))
}

/// Applies the step that `choice` picks where it fits the expression, else leaves it.
fn grow(expr: Expr, choice: u8, random: &[u8; 6], known: &dyn Fn(&str) -> Option<SourceTensor>) -> Expr {
    let Ok(t) = expr.infer(known) else { return expr };
    let rank = t.shape.len().max(1);
    let axis = random[0] as usize % rank;
    let len = t.shape.get(axis).copied().unwrap_or(1);
    let of = Box::new(expr.clone());
    let grown = match choice {
        0 | 1 => {
            let n = random[1] as usize % (len + 2) + 1;
            let at = |k: usize| (random[k % 6] as usize * (k + 1) + k) as u32 % len.max(1) as u32;
            Expr::Gather { axis, indices: (0..n).map(at).collect(), of }
        }
        2 => {
            let reversed = (0..len as u32).rev().collect();
            Expr::Gather { axis, indices: reversed, of }
        }
        3 => {
            let start = random[1] as usize % len.max(1);
            Expr::Split { axis, start, len: random[2] as usize % (len - start) + 1, of }
        }
        4 => {
            let cut = random[1] as usize % (len + 1);
            let part = |start, len| Expr::Split { axis, start, len, of: of.clone() };
            Expr::Concat { axis, of: vec![part(0, cut), part(cut, len - cut)] }
        }
        5 => Expr::Concat { axis, of: vec![*of.clone(), *of] },
        6 => {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.rotate_left(random[1] as usize % rank);
            Expr::Transpose { axes, of }
        }
        7 => {
            let n: usize = t.shape.iter().product();
            let first = (1..=n.max(1))
                .rev()
                .find(|d| n.is_multiple_of(*d) && *d <= 2 + random[1] as usize % 8)
                .unwrap_or(1);
            Expr::Reshape { shape: vec![first, n / first], of }
        }
        8 => Expr::Reshape { shape: t.shape.iter().copied().chain([1]).collect(), of },
        9 => Expr::Cast { dtype: ["f32", "f16", "bf16"][random[1] as usize % 3].into(), of },
        10 => Expr::Decode { of },
        11 => {
            let mut repeats = vec![1; t.shape.len()];
            repeats[axis] += random[1] as usize % 2;
            Expr::Tile { repeats, of }
        }
        _ => Expr::WeightedSum { terms: vec![Term { weight: 2.0, product: vec![*of] }] },
    };
    let small = |t: &SourceTensor| t.shape.iter().product::<usize>() <= 200;
    if grown.infer(known).as_ref().is_ok_and(small) { grown } else { expr }
}

fn steps() -> impl Strategy<Value = Vec<(u8, [u8; 6])>> {
    prop::collection::vec((0_u8..13, any::<[u8; 6]>()), 0..9)
}

fn expression(start: usize, steps: &[(u8, [u8; 6])]) -> Expr {
    let start = Expr::copy(["a", "b", "c", "d", "q"][start]);
    steps.iter().fold(start, |e, (choice, random)| grow(e, *choice, random, &sources))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn simplification_keeps_value_shape_and_encoding(start in 0_usize..5, steps in steps()) {
        let expr = expression(start, &steps);
        let simple = simplify_expr(expr.clone(), &sources);
        prop_assert_eq!(evaluate(&simple, &read), evaluate(&expr, &read), "{:?}", &simple);
        prop_assert_eq!(simple.infer(&sources), expr.infer(&sources), "{:?}", &simple);
        prop_assert_eq!(simplify_expr(simple.clone(), &sources), simple);
    }

    #[test]
    fn simplification_without_shapes_keeps_the_value(start in 0_usize..5, steps in steps()) {
        let expr = expression(start, &steps);
        let simple = simplify_expr(expr.clone(), &|_| None);
        prop_assert_eq!(evaluate(&simple, &read), evaluate(&expr, &read), "{:?}", &simple);
        prop_assert_eq!(simple.infer(&sources), expr.infer(&sources), "{:?}", &simple);
    }

    #[test]
    fn composition_is_evaluation_in_sequence(start in 0_usize..5, first in steps(), second in steps()) {
        let inner = expression(start, &first);
        let made = inner.infer(&sources).expect("grown to fit");
        let dtype = made.dtype.clone();
        let middle = |name: &str| (name == "w").then(|| made.clone());
        let outer = second.iter().fold(Expr::copy("w"), |e, (c, r)| grow(e, *c, r, &middle));
        let out = outer.infer(&middle).expect("grown to fit");
        let one = |name: &str, shape: &[usize], expr: &Expr| Recipe {
            outputs: vec![RecipeOutput { name: name.into(), shape: shape.to_vec(), expr: expr.clone() }],
        };
        let both = compose(&one("out", &out.shape, &outer), &one("w", &made.shape, &inner)).expect("compose");
        let between = evaluate(&inner, &read);
        prop_assert_eq!(evaluate(&both.outputs[0].expr, &read), evaluate(&outer, &|_| between.clone()));
        let simple = both.simplified(&sources);
        prop_assert_eq!(evaluate(&simple.outputs[0].expr, &read), evaluate(&outer, &|_| between.clone()));
        prop_assert_eq!(simple.check(&sources).expect("checks"), vec![out.dtype]);
        prop_assert!(dtype.is_some_and(|d| is_plain_dtype(&d) || d == "q8_0"));
    }
}
