//! Every operation against numbers worked out by hand, whole and by rows, materialised and written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use pomona_graph::{Distribution, Expr, Term};
use pomona_store::{
    Checkpoint, Encoding, GgufWriter, OutputDir, OutputOptions, SafetensorsWriter, TensorSpec,
};
use tempfile::TempDir;

use super::*;

fn literal(shape: &[usize]) -> Expr {
    let n: usize = shape.iter().product();
    Expr::Literal { values: (0..n).map(|i| i as f32).collect(), shape: shape.to_vec() }
}

/// A checkpoint of literals.
fn checkpoint(dir: &TempDir, tensors: &[(&str, &[usize], Encoding)]) -> Checkpoint {
    let items: Vec<WriteItem> = tensors
        .iter()
        .map(|(name, shape, encoding)| WriteItem {
            spec: TensorSpec { name: (*name).to_owned(), encoding: *encoding, shape: shape.to_vec() },
            expr: literal(shape).cast(encoding.name()),
        })
        .collect();
    write(&dir.path().join("source"), &items, None)
}

fn write(to: &std::path::Path, items: &[WriteItem], from: Option<&Checkpoint>) -> Checkpoint {
    let mut out = OutputDir::create(to, &OutputOptions::default()).unwrap();
    let specs = items.iter().map(|i| i.spec.clone()).collect();
    let mut sink = SafetensorsWriter::new(&mut out, "model", specs, u64::MAX, &BTreeMap::new()).unwrap();
    let mut last = (0, 0);
    write_recipe(items, from, &mut sink, &mut |a, b| last = (a, b)).unwrap();
    assert_eq!(last.0, last.1);
    drop(sink);
    Checkpoint::open(out.commit().unwrap()).unwrap()
}

#[test]
fn operations_give_these_numbers() {
    let split = |axis, start, len| Expr::Split { axis, start, len, of: Box::new(literal(&[3, 4])) };
    let sum = |terms: Vec<(f64, Vec<Expr>)>| Expr::WeightedSum {
        terms: terms.into_iter().map(|(weight, product)| Term { weight, product }).collect(),
    };
    let cases: Vec<(&str, Expr, Vec<usize>, Vec<f32>)> = vec![
        ("rows", literal(&[3, 2]).gather(0, vec![2, 0, 0]), vec![3, 2], vec![4., 5., 0., 1., 0., 1.]),
        ("columns", literal(&[2, 3]).gather(1, vec![2, 0]), vec![2, 2], vec![2., 0., 5., 3.]),
        ("row range", split(0, 1, 2), vec![2, 4], (4..12).map(|v| v as f32).collect()),
        ("column range", split(1, 1, 2), vec![3, 2], vec![1., 2., 5., 6., 9., 10.]),
        (
            "join rows",
            Expr::Concat { axis: 0, of: vec![literal(&[1, 2]), literal(&[2, 2])] },
            vec![3, 2],
            vec![0., 1., 0., 1., 2., 3.],
        ),
        (
            "join columns",
            Expr::Concat { axis: 1, of: vec![literal(&[2, 1]), literal(&[2, 2])] },
            vec![2, 3],
            vec![0., 0., 1., 1., 2., 3.],
        ),
        (
            "transpose",
            Expr::Transpose { axes: vec![1, 0], of: Box::new(literal(&[2, 3])) },
            vec![3, 2],
            vec![0., 3., 1., 4., 2., 5.],
        ),
        (
            "transpose of three",
            Expr::Transpose { axes: vec![2, 0, 1], of: Box::new(literal(&[2, 3, 2])) },
            vec![2, 2, 3],
            vec![0., 2., 4., 6., 8., 10., 1., 3., 5., 7., 9., 11.],
        ),
        (
            "transpose that keeps the last",
            Expr::Transpose { axes: vec![1, 0, 2], of: Box::new(literal(&[2, 2, 2])) },
            vec![2, 2, 2],
            vec![0., 1., 4., 5., 2., 3., 6., 7.],
        ),
        (
            "transpose that keeps the first",
            Expr::Transpose { axes: vec![0, 2, 1], of: Box::new(literal(&[2, 2, 2])) },
            vec![2, 2, 2],
            vec![0., 2., 1., 3., 4., 6., 5., 7.],
        ),
        (
            "reshape",
            Expr::Reshape { shape: vec![3, 2], of: Box::new(literal(&[2, 3])) },
            vec![3, 2],
            vec![0., 1., 2., 3., 4., 5.],
        ),
        (
            "tile",
            Expr::Tile { repeats: vec![2, 2], of: Box::new(literal(&[2, 1])) },
            vec![4, 2],
            vec![0., 0., 1., 1., 0., 0., 1., 1.],
        ),
        (
            "tile columns",
            Expr::Tile { repeats: vec![1, 2], of: Box::new(literal(&[2, 2])) },
            vec![2, 4],
            vec![0., 1., 0., 1., 2., 3., 2., 3.],
        ),
        (
            "sum with a product",
            sum(vec![(1.0, vec![literal(&[2, 2])]), (0.5, vec![literal(&[2, 1]), literal(&[1, 2])])]),
            vec![2, 2],
            vec![0., 1., 2., 3.5],
        ),
        ("cast", literal(&[2, 2]).cast("bf16"), vec![2, 2], vec![0., 1., 2., 3.]),
        ("scalar", Expr::Literal { values: vec![7.0], shape: vec![] }.cast("f16"), vec![], vec![7.0]),
        (
            "fill",
            Expr::Initialise {
                distribution: Distribution::Fill(1.5),
                seed: 0,
                name: "x".to_owned(),
                shape: vec![2, 2],
                dtype: "f16".to_owned(),
            },
            vec![2, 2],
            vec![1.5; 4],
        ),
    ];
    for (name, expr, shape, values) in cases {
        assert_eq!(result_of(&expr, None).unwrap().0, shape, "{name}");
        assert_eq!(materialise(&expr, None).unwrap(), values, "{name}");
        let rows = shape.first().copied().unwrap_or(1);
        let width = values.len() / rows;
        for r in 0..rows {
            let part = materialise_rows(&expr, None, r..r + 1).unwrap();
            assert_eq!(part, values[r * width..(r + 1) * width], "{name}, row {r}");
        }
        let dir = TempDir::new().unwrap();
        let encoding = result_of(&expr, None).unwrap().1;
        let spec = TensorSpec { name: "t".to_owned(), encoding, shape };
        let file = write(&dir.path().join("out"), &[WriteItem { spec, expr }], None);
        assert_eq!(file.decode(file.info("t").unwrap()).unwrap(), values, "{name}");
    }
}

#[test]
fn sources_are_copied_cut_and_joined() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(&dir, &[("a", &[4, 3], Encoding::Bf16), ("b", &[2, 3], Encoding::Bf16)]);
    let a = || Expr::copy("a");
    let joined = Expr::Concat { axis: 0, of: vec![a().gather(0, vec![3, 1]), Expr::copy("b")] };
    let items: Vec<WriteItem> = [("copy", a()), ("joined", joined), ("wide", a().cast("f32"))]
        .into_iter()
        .map(|(name, expr)| {
            let (shape, encoding) = result_of(&expr, Some(&source)).unwrap();
            WriteItem { spec: TensorSpec { name: name.to_owned(), encoding, shape }, expr }
        })
        .collect();
    let out = write(&dir.path().join("out"), &items, Some(&source));
    let bytes = |c: &Checkpoint, n: &str| c.bytes(c.info(n).unwrap()).unwrap().to_vec();
    assert_eq!(bytes(&out, "copy"), bytes(&source, "a"));
    let values = out.decode(out.info("joined").unwrap()).unwrap();
    assert_eq!(values, [9., 10., 11., 3., 4., 5., 0., 1., 2., 3., 4., 5.]);
    assert_eq!(out.info("wide").unwrap().encoding, Encoding::F32);
}

#[test]
fn quantised_rows_move_as_they_are() {
    let dir = TempDir::new().unwrap();
    let spec = TensorSpec { name: "q".to_owned(), encoding: Encoding::Q8_0, shape: vec![4, 64] };
    let mut out = OutputDir::create(dir.path().join("q"), &OutputOptions::default()).unwrap();
    let mut sink = GgufWriter::new(&mut out, "model.gguf", &[], vec![spec]).unwrap();
    use pomona_store::TensorSink;
    sink.begin(0).unwrap();
    let data: Vec<u8> = (0..4 * 68).map(|i| (i % 61) as u8).collect();
    sink.write(&data).unwrap();
    sink.end().unwrap();
    sink.finish().unwrap();
    drop(sink);
    let source = Checkpoint::open(out.commit().unwrap()).unwrap();
    let expr = Expr::copy("q").gather(0, vec![2, 3, 0]);
    let tree = prepare(&expr, Some(&source)).unwrap();
    let moved = rows::raw(&tree, 0..3).unwrap();
    assert_eq!(tree.encoding, Encoding::Q8_0);
    assert_eq!(moved.as_ref(), [&data[136..272], &data[..68]].concat());
    let whole = source.decode(source.info("q").unwrap()).unwrap();
    assert_eq!(materialise(&expr, Some(&source)).unwrap(), [&whole[128..], &whole[..64]].concat());
    let columns = Expr::copy("q").gather(1, vec![0]);
    let message = materialise(&columns, Some(&source)).unwrap_err().to_string();
    assert!(message.contains("decode it first"), "{message}");
}

#[test]
fn a_wrong_plan_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut out = OutputDir::create(dir.path().join("out"), &OutputOptions::default()).unwrap();
    let spec = TensorSpec { name: "t".to_owned(), encoding: Encoding::F32, shape: vec![5] };
    let mut sink =
        SafetensorsWriter::new(&mut out, "model", vec![spec.clone()], u64::MAX, &BTreeMap::new()).unwrap();
    let items = [WriteItem { spec, expr: literal(&[4]) }];
    let message = write_recipe(&items, None, &mut sink, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("f32 [4]; f32 [5] was planned"), "{message}");
    let missing = materialise(&Expr::copy("none"), None).unwrap_err().to_string();
    assert!(missing.contains("there is no source tensor `none`"), "{missing}");
}
