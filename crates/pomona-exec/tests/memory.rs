//! A run holds what is still needed and no more: counted by the allocator, so alone in its binary and in one test.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pomona_exec::{Device, Feeds, Loaded, Options, Tensor, evaluate};
use pomona_graph::{Activation, GraphBuilder, ValueType};

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
}
