//! Batches made on another thread while a step runs.

use std::sync::mpsc::{Receiver, sync_channel};

use super::{Batch, Order, Source};
use crate::error::Result;

/// Steps that wait ready.
const AHEAD: usize = 2;

/// The micro-batches of each step from `first` on, in order, to `f`. The thread ends when `f` does.
pub(crate) fn prefetched<R>(
    source: &dyn Source,
    seed: u64,
    (batch, accumulate): (usize, usize),
    first: u64,
    f: impl FnOnce(&Receiver<Result<Vec<Batch>>>) -> R,
) -> R {
    std::thread::scope(|scope| {
        let (give, take) = sync_channel(AHEAD);
        scope.spawn(move || {
            let mut order = Order::new(seed, source.samples());
            for step in first.. {
                let micro = (0..accumulate as u64).map(|i| step * accumulate as u64 + i);
                let made: Result<Vec<Batch>> =
                    micro.map(|n| source.batch(&order.batch(n, batch), n)).collect();
                let failed = made.is_err();
                if give.send(made).is_err() || failed {
                    break;
                }
            }
        });
        let out = f(&take);
        drop(take);
        out
    })
}
