//! Pictures are decoded and resampled as Pillow does, prepared as transformers and timm do, and labelled by folder or table.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use pomona_exec::{Device, Feeds, Tensor};
use pomona_models::open;
use pomona_task::Objective;
use pomona_task::images::{Classification, Filter, Picture, Preprocessing, resample};
use pomona_task::{LabelledFiles, Media};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Expected {
    width: usize,
    height: usize,
    pixels: String,
    files: Vec<File>,
    resized: Vec<Resized>,
    prepared: Vec<Prepared>,
}

#[derive(Deserialize)]
struct File {
    name: String,
    bytes: String,
    pixels: String,
}

#[derive(Deserialize)]
struct Resized {
    filter: String,
    size: [usize; 2],
    pixels: String,
}

#[derive(Deserialize)]
struct Prepared {
    preprocessor: Option<Value>,
    config: Value,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn expected() -> Expected {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn picture(e: &Expected) -> Picture {
    Picture { width: e.width, height: e.height, pixels: bytes(&e.pixels) }
}

fn largest_gap(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| x.abs_diff(*y)).max().unwrap()
}

#[test]
fn files_are_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let e = expected();
    for f in &e.files {
        let path = dir.path().join(&f.name);
        std::fs::write(&path, bytes(&f.bytes)).unwrap();
        let read = Picture::read(&path).unwrap();
        assert_eq!((read.width, read.height), (e.width, e.height), "{}", f.name);
        // Decoders of JPEG may round differently.
        let allowed = if f.name.ends_with("jpg") { 3 } else { 0 };
        assert!(largest_gap(&read.pixels, &bytes(&f.pixels)) <= allowed, "{}", f.name);
    }
}

#[test]
fn damaged_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for f in expected().files {
        let whole = bytes(&f.bytes);
        let path = dir.path().join(&f.name);
        for length in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..length]).unwrap();
            // A JPEG that lacks its end may still give a picture.
            if let Ok(p) = Picture::read(&path) {
                assert_eq!(p.pixels.len(), p.width * p.height * 3);
            }
        }
        let mut turned = whole.clone();
        for i in (0..whole.len()).step_by(3) {
            turned[i] ^= 0x55;
            std::fs::write(&path, &turned).unwrap();
            let _ = Picture::read(&path);
            turned[i] = whole[i];
        }
    }
    let path = dir.path().join("text.png");
    std::fs::write(&path, "not a picture").unwrap();
    let message = Picture::read(&path).unwrap_err().to_string();
    assert!(message.ends_with("is neither a JPEG nor a PNG file"), "{message}");
}

#[test]
fn resampling_is_pillows() {
    let e = expected();
    let whole = picture(&e);
    for r in &e.resized {
        let filter = match r.filter.as_str() {
            "nearest" => Filter::Nearest,
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Lanczos,
        };
        let got = resample(&whole, r.size[0], r.size[1], filter);
        assert_eq!(largest_gap(&got.pixels, &bytes(&r.pixels)), 0, "{} {:?}", r.filter, r.size);
    }
}

/// A classifier's directory without weights.
fn classifier(dir: &Path, more: &Value) -> pomona_models::Model {
    let mut config = json!({"architecture": "resnet20", "layers": [1], "width": 4, "num_classes": 3});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    open(dir.join("config.json")).unwrap()
}

#[test]
fn preparation_is_that_of_the_libraries() {
    let e = expected();
    for p in &e.prepared {
        let dir = tempfile::tempdir().unwrap();
        if let Some(settings) = &p.preprocessor {
            let path = dir.path().join("preprocessor_config.json");
            std::fs::write(path, settings.to_string()).unwrap();
        }
        let model = classifier(dir.path(), &p.config);
        let (values, sides) = Preprocessing::of(model.only().unwrap()).unwrap().apply(&picture(&e)).unwrap();
        assert_eq!(vec![3, sides[0], sides[1]], p.shape);
        let gap = values.iter().zip(&p.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap < 1e-5, "largest gap {gap} of {:?}", p.config);
    }
}

/// Pictures of three classes in folders.
fn folders(dir: &Path) {
    let e = expected();
    for (class, count) in [("cat", 2), ("ant", 3), ("bee", 1)] {
        std::fs::create_dir_all(dir.join(class)).unwrap();
        for i in 0..count {
            std::fs::write(dir.join(class).join(format!("{i}.png")), bytes(&e.files[0].bytes)).unwrap();
        }
        std::fs::write(dir.join(class).join("notes.txt"), "x").unwrap();
    }
}

#[test]
fn labels_come_from_folders_and_tables() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    let set = LabelledFiles::open(dir.path(), &json!({}), Media::Pictures).unwrap();
    assert_eq!(set.labels, [0, 0, 0, 1, 2, 2]);
    let named = json!({"label2id": {"Cat": 0, "Bee": 1, "Ant": 2}});
    assert_eq!(LabelledFiles::open(dir.path(), &named, Media::Pictures).unwrap().labels, [2, 2, 2, 1, 0, 0]);
    assert_eq!(set.even(3).labels, [0, 0, 2]);
    let drawn = set.drawn(4, 1);
    assert_eq!(drawn, set.drawn(4, 1));
    assert!(drawn.fingerprint() != set.fingerprint() && drawn.len() == 4);
    let table = dir.path().join("labels.csv");
    std::fs::write(&table, "file,label\nbee/0.png,1\ncat/1.png,ant\n").unwrap();
    assert_eq!(LabelledFiles::open(dir.path(), &named, Media::Pictures).unwrap().labels, [1, 2]);
    let message = LabelledFiles::open(&table, &json!({}), Media::Pictures).unwrap_err().to_string();
    assert!(message.contains("line 3: label \"ant\" is not a number"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    let message = LabelledFiles::open(empty.path(), &json!({}), Media::Pictures).unwrap_err().to_string();
    assert!(message.contains("has no pictures in its folders"), "{message}");
}

#[test]
fn the_gradient_of_the_loss_is_its_slope() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    let model = classifier(dir.path(), &json!({}));
    let set = LabelledFiles::open(dir.path(), &json!({}), Media::Pictures).unwrap();
    let on = Classification::new(set, Preprocessing::of(model.only().unwrap()).unwrap());
    let device = Device::cpu();
    let feeds: Feeds = on.feeds(model.graph().unwrap(), 1..4, &device).unwrap();
    assert_eq!(feeds.values().next().unwrap().shape(), [3, 3, 32, 32]);
    let logits: Vec<f32> = (0..9).map(|i| (i * 7 % 5) as f32 / 3.0).collect();
    let tensor = |v: &[f32]| Tensor::from_f32(v.to_vec(), &[3, 3], &device).unwrap();
    let loss = |v: &[f32]| on.losses(1..4, &tensor(v)).unwrap().iter().map(|l| l.sum).sum::<f64>() / 6.0;
    let gradient = on.gradient(1..4, tensor(&logits)).unwrap().to_f32().unwrap();
    for (k, g) in gradient.iter().enumerate() {
        let moved = |d: f32| {
            let mut v = logits.clone();
            v[k] += d;
            loss(&v)
        };
        let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((slope - f64::from(*g)).abs() < 1e-4, "{k}: {slope} {g}");
    }
    let narrow = Tensor::from_f32(vec![0.0; 6], &[3, 2], &device).unwrap();
    let message = on.losses(3..6, &narrow).unwrap_err().to_string();
    assert!(message.contains("has label 2, and the model tells 2 classes apart"), "{message}");
}
