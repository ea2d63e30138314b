//! Rooflines: by hand on a toy, and against published timings of LLaMA.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Build, LLAMA_7B, LLAMA_13B, Llama, llama};
use pomona_cost::*;
use pomona_graph::{Graph, Op, ValueType};

fn count(graph: &Graph) -> CostReport {
    cost(graph, &CostOptions::default()).unwrap()
}

/// 1 kFLOP/s, 100 B/s, 2 s a launch.
fn toy_device(dispatch: Dispatch, launch_seconds: Option<f64>) -> Device {
    Device {
        name: "toy".to_owned(),
        title: "A toy".to_owned(),
        peak_flops: [("f32".to_owned(), 1000.0)].into(),
        memory_bandwidth: 100.0,
        cache_bytes: None,
        launch_seconds,
        dispatch,
        source: "made up".to_owned(),
    }
}

/// `batch` rows through Linear 10 -> 5, then a view, then Linear 5 -> 100.
fn two_layers(batch: usize) -> CostReport {
    let mut b = Build::new("f32");
    let x = b.input("x", &[batch, 10], ValueType::Float);
    let y = b.layer("narrow", Op::Linear {}, x, &[5, 10], &[batch, 5]);
    let y = b.node("view", Op::Reshape { shape: vec![batch.into(), 5.into()] }, &[y], &[], &[batch, 5]);
    let y = b.layer("wide", Op::Linear {}, y, &[100, 5], &[batch, 100]);
    b.output("y", y);
    count(&b.graph)
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn a_processor_adds_launching_to_working() {
    // One row. narrow: 100 FLOP 0.1 s, 4 * (50 + 10 + 5) B 2.6 s. wide: 1000 FLOP 1 s, 4 * (500 + 5 + 100) B 24.2 s.
    let t = roofline(&two_layers(1), &toy_device(Dispatch::Blocking, Some(2.0))).unwrap();
    near(t.seconds, 2.0 + 2.6 + 2.0 + 24.2);
    assert_eq!(t.launches, 2, "a view launches nothing");
    near(t.launch_seconds, 4.0);
    near(t.memory_seconds, 26.8);
    assert_eq!(t.operators.iter().map(|o| o.bound).collect::<Vec<_>>(), [Bound::Memory, Bound::Memory]);
    assert!(!t.lower_bound);
}

#[test]
fn a_queue_hides_the_faster_of_launching_and_working() {
    let r = two_layers(1);
    // The second launch (at 4 s) ends before the first operator does (at 4.6 s).
    near(roofline(&r, &toy_device(Dispatch::Queued, Some(2.0))).unwrap().seconds, 2.0 + 2.6 + 24.2);
    // At 10 s a launch the first operator is long done when the second starts.
    let t = roofline(&r, &toy_device(Dispatch::Queued, Some(10.0))).unwrap();
    near(t.seconds, 20.0 + 24.2);
    assert_eq!(t.operators[0].bound, Bound::Launch);
    near(t.operators.iter().map(|o| o.seconds).sum(), t.seconds);
    near(t.launch_seconds + t.memory_seconds + t.compute_seconds, t.seconds);
}

#[test]
fn many_rows_are_bound_by_arithmetic_and_an_unknown_launch_gives_a_lower_bound() {
    let t = roofline(&two_layers(1000), &toy_device(Dispatch::Blocking, None)).unwrap();
    // 1000 rows. narrow: 100 kFLOP 100 s, 4 * 15,050 B 602 s. wide: 1 MFLOP 1000 s, 4 * 105,500 B 4220 s.
    near(t.seconds, 602.0 + 4220.0);
    assert!(t.lower_bound);
    let mut cached = toy_device(Dispatch::Blocking, None);
    cached.cache_bytes = Some(1 << 20);
    // Activations in the cache: only the weights move.
    let t = roofline(&two_layers(1000), &cached).unwrap();
    near(t.seconds, 100.0 + 1000.0);
    assert_eq!(t.operators[1].bound, Bound::Compute);
}

#[test]
fn a_device_without_a_rate_for_the_type_is_refused() {
    let npu = find_device("imx93-ethos-u65", &[]).unwrap();
    let message = roofline(&two_layers(1), &npu).unwrap_err().to_string();
    assert_eq!(
        message,
        "device `imx93-ethos-u65` has no rate for f32 (it has i8): quantise the model first, or choose another device"
    );
    let pi = find_device("raspberry-pi-4", &[]).unwrap();
    assert_eq!(pi.rate("bf16").unwrap(), pi.rate("f32").unwrap());
}

/// Tokens a second when decoding one token behind 76 (12 of the prompt and half of 128 new ones).
fn decoding(config: Llama, device: &str) -> f64 {
    let t = roofline(&count(&llama(config, 1, 76)), &find_device(device, &[]).unwrap()).unwrap();
    1.0 / t.seconds
}

#[test]
fn decoding_matches_the_published_rates() {
    let layers = |c: Llama, layers| Llama { layers, ..c };
    // arXiv 2402.02834, table 2, one token at a time. The first two of each device set its launch time; the others
    // were not used for anything.
    let table = [
        ("h100-sxm", LLAMA_7B, 53.7),
        ("h100-sxm", layers(LLAMA_7B, 21), 80.1),
        ("h100-sxm", layers(LLAMA_7B, 26), 66.0),
        ("h100-sxm", LLAMA_13B, 45.5),
        ("h100-sxm", layers(LLAMA_13B, 32), 55.7),
        ("h100-sxm", layers(LLAMA_13B, 25), 69.7),
        ("rtx-3090", LLAMA_7B, 25.0),
        ("rtx-3090", layers(LLAMA_7B, 21), 37.8),
        ("rtx-3090", layers(LLAMA_7B, 26), 28.4),
        ("rtx-3090", layers(LLAMA_13B, 32), 23.9),
    ];
    for (device, config, published) in table {
        let predicted = decoding(config, device);
        let ratio = predicted / published;
        assert!(
            (0.9..1.12).contains(&ratio),
            "{device} {} blocks: {predicted} for {published}",
            config.layers
        );
    }
}

#[test]
fn depth_pays_at_batch_1_and_width_does_not_where_launches_bind() {
    let dense = decoding(LLAMA_7B, "h100-sxm");
    let shallow = decoding(Llama { layers: 26, ..LLAMA_7B }, "h100-sxm");
    assert!((shallow / dense - 32.0 / 26.0).abs() < 0.02, "{}", shallow / dense);
    let narrow = decoding(Llama { ff: 8192, ..LLAMA_7B }, "h100-sxm");
    assert!(narrow / dense < 1.03, "{}", narrow / dense);
    // A small board is bound by memory: there bytes count.
    let bytes =
        decoding(Llama { ff: 8192, ..LLAMA_7B }, "raspberry-pi-4") / decoding(LLAMA_7B, "raspberry-pi-4");
    assert!(bytes > 1.15, "{bytes}");
}
