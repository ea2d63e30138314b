//! A run holds what is still needed and no more: counted by the allocator, so alone in its binary and in one test.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pomona_exec::{Device, Feeds, Loaded, Options, Tensor, Wrt, evaluate, gradients_of_loss};
use pomona_graph::{Activation, GraphBuilder, TensorId, ValueId, ValueType};

struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; the counters are beside it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's block, which `alloc` took from the system.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// Elements of a value: 4 MB.
const SIZE: usize = 1 << 20;

#[test]
fn values_go_at_their_last_use() {
    let mut b = GraphBuilder::new("chain", "f32");
    let x = b.input("x", vec![SIZE.into()], ValueType::Float);
    let (mut y, mut middle) = (x, None);
    for i in 0..20 {
        // A sum reads the value before and its activation: two are alive while it makes a third.
        let a = b.activation(&format!("act.{i}"), Activation::Tanh, y).unwrap();
        y = b.add(&format!("sum.{i}"), &[y, a]).unwrap();
        if i == 10 {
            middle = Some(y);
        }
    }
    b.output("y", y);
    let graph = b.finish().unwrap();
    let values: Vec<f32> = (0..SIZE).map(|i| i as f32 / SIZE as f32).collect();
    let feeds: Feeds = [(x, Tensor::from_f32(values, &[SIZE], &Device::cpu()).unwrap())].into();
    let measure = |wanted: &[_]| {
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let out = evaluate(&graph, &Loaded::default(), &feeds, wanted, &Options::default()).unwrap();
        let held = NOW.load(Relaxed) - before;
        drop(out);
        ((PEAK.load(Relaxed) - before) as f64 / (4 * SIZE) as f64, held as f64 / (4 * SIZE) as f64)
    };
    let end = graph.output("y").unwrap();
    let (peak, held) = measure(&[end]);
    // Forty values are made; the fed one is the caller's.
    assert!(peak < 4.1, "{peak} values at a time");
    assert!((0.9..1.1).contains(&held), "{held} values are left");
    // A tapped value stays.
    let (peak, held) = measure(&[middle.unwrap(), end]);
    assert!(peak < 5.1, "{peak} values at a time with one tapped");
    assert!((1.9..2.1).contains(&held), "{held} values are left with one tapped");
    drop(feeds);
    backward_runs_hold_what_they_must();
}

/// Rows and width of the values of a backward run: 1 MB each, beside weights of 64 kB.
const ROWS: usize = 2048;
const WIDTH: usize = 128;

/// In the same test, as the counter counts the whole process.
fn backward_runs_hold_what_they_must() {
    let mut b = GraphBuilder::new("deep", "f32");
    let x = b.input("x", vec![ROWS.into(), WIDTH.into()], ValueType::Float);
    let (mut y, mut ends) = (x, Vec::new());
    for i in 0..24 {
        y = b.linear(&format!("linear.{i}"), y, WIDTH, false).unwrap();
        y = b.activation(&format!("act.{i}"), Activation::Tanh, y).unwrap();
        if i % 6 == 5 {
            ends.push(y);
        }
    }
    b.output("y", y);
    let graph = b.finish().unwrap();
    let floats =
        |n: usize, scale: f32| (0..n).map(|i| scale * ((i * 37 % 101) as f32 / 50.5 - 1.0)).collect();
    let tensor = |shape: &[usize], scale| {
        Tensor::from_f32(floats(shape.iter().product(), scale), shape, &Device::cpu()).unwrap()
    };
    let weights = Loaded(graph.iter_tensors().map(|(id, t)| (id, tensor(&t.shape, 0.1))).collect());
    let feeds: Feeds = [(x, tensor(&[ROWS, WIDTH], 1.0))].into();
    let measure = |learned: &[TensorId], checkpoints: &[ValueId]| {
        let options = Options { checkpoints: checkpoints.to_vec(), ..Options::default() };
        let wrt = Wrt { values: &[], weights: learned };
        let run =
            || gradients_of_loss(&graph, &weights, &feeds, &[y], wrt, &options, |o| Ok(o.to_vec())).unwrap();
        // Once before, so that what threads keep for themselves is there.
        drop(run());
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        drop(run());
        assert_eq!(NOW.load(Relaxed), before, "a step leaves nothing behind");
        (PEAK.load(Relaxed) - before) as f64 / (4 * ROWS * WIDTH) as f64
    };
    let ids: Vec<TensorId> = graph.iter_tensors().map(|(id, _)| id).collect();
    // Each of 24 layers keeps its input and what its activation read; 24 gradients of weights are 1.5 values.
    let whole = measure(&ids, &[]);
    assert!((47.0..60.0).contains(&whole), "{whole} values with one tape");
    // Three parts are kept as a value each, one of six layers as twelve.
    let parts = measure(&ids, &ends);
    assert!(parts < 24.0, "{parts} values part by part");
    // Where only the last three layers learn, the others keep nothing.
    let late: Vec<TensorId> =
        graph.iter_tensors().filter(|(_, t)| t.name.starts_with("linear.2")).map(|(id, _)| id).collect();
    let last: Vec<TensorId> = late
        .iter()
        .filter(|id| !["linear.2.weight"].contains(&graph.tensor(**id).name.as_str()))
        .copied()
        .collect();
    assert_eq!(last.len(), 4);
    let frozen = measure(&last, &[]);
    assert!(frozen < 15.0, "{frozen} values with a tape of four layers");
}
