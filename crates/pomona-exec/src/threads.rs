//! The threads that kernels share their work among.

use std::cell::Cell;
use std::error::Error;
use std::hint::spin_loop;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Stack of a thread: a whole command runs on one of them.
const STACK: usize = 4 << 20;
/// How long a thread without work stays awake.
const AWAKE: Duration = Duration::from_millis(2);
/// How long at all until it is asked again. It may have been asked while it waited for the rest of a loop, and sees the end of that only
/// after.
const AT_MOST: Duration = Duration::from_millis(20);
/// Tensors from this size on are worth other threads' time.
const WORTH: usize = 1 << 14;

/// The thread that a command runs on; none yet.
static COMMAND: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Threads that are awake without work, or soon will be.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// How many callers run several networks beside each other: then every thread has work of its own.
static BESIDE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Undoes what a scope did, however it ends.
struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs a whole command on one of the threads that kernels share their work among. From outside each shared loop would put the
/// caller to sleep and wake the others, and then the caller again: tens of microseconds a loop, thousands of times a step. A
/// thread of theirs begins with its own part at once, and does all of it where the others are late. A process that runs networks
/// calls this once, around everything.
///
/// With one thread the caller runs `f` itself: what a thread beside it (a reader of data) shares must find that one free. While the
/// command waits for the rest of a loop it does parts of others' loops; these may hold no lock that the command may hold around a loop.
///
/// # Errors
/// Where the system does not give the threads.
pub fn among_workers<R: Send>(f: impl FnOnce() -> R + Send) -> io::Result<R> {
    if let Err(e) = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global()
        && e.source().is_some()
    {
        return Err(io::Error::other(format!("threads cannot be started: {e}")));
    }
    // A pool that was there already stays.
    Ok(match rayon::current_num_threads() {
        1 => f(),
        _ => rayon::scope(|_| {
            COMMAND.store(rayon::current_thread_index().unwrap_or(usize::MAX), Ordering::Relaxed);
            let _finally = Finally(|| COMMAND.store(usize::MAX, Ordering::Relaxed));
            f()
        }),
    })
}

/// Runs networks beside each other, each on a thread: none is kept awake for another's loops.
pub fn side_by_side<R>(f: impl FnOnce() -> R) -> R {
    BESIDE.fetch_add(1, Ordering::Relaxed);
    let _finally = Finally(|| {
        BESIDE.fetch_sub(1, Ordering::Relaxed);
    });
    f()
}

/// Keeps the other threads awake for loops over `elements` numbers. A thread that sleeps is woken through the kernel, and on a virtual
/// machine its processor through the host: up to milliseconds where a loop takes one. OpenMP's threads wait awake too.
///
/// Does nothing outside a command's own thread, and where there are few numbers.
pub(crate) fn stay_awake(elements: usize) {
    let others = rayon::current_num_threads() - 1;
    if elements < WORTH
        || WAITING.load(Ordering::Relaxed) >= others
        || BESIDE.load(Ordering::Relaxed) > 0
        || rayon::current_thread_index() != Some(COMMAND.load(Ordering::Relaxed))
    {
        return;
    }
    for _ in WAITING.fetch_max(others, Ordering::Relaxed)..others {
        rayon::spawn(wait);
    }
}

/// Looks for work until there was none for a while.
fn wait() {
    let _finally = Finally(|| {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    });
    // The command's own thread has better things to do, and one loop a thread is enough.
    if rayon::current_thread_index() == Some(COMMAND.load(Ordering::Relaxed)) || WAITS.replace(true) {
        return;
    }
    let _waits = Finally(|| WAITS.set(false));
    let began = Instant::now();
    let mut idle = (began, 0_u32);
    while BESIDE.load(Ordering::Relaxed) == 0 {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => idle = (Instant::now(), 0),
            _ => {
                idle.1 += 1;
                // Whoever is not of this pool (a reader of data) gets a processor too.
                if idle.1.is_multiple_of(64) {
                    std::thread::yield_now();
                }
                (0..16).for_each(|_| spin_loop());
            }
        }
        if idle.0.elapsed() > AWAKE || began.elapsed() > AT_MOST {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rayon::prelude::*;

    use super::*;

    /// One test, because the pool and the command are the process's.
    #[test]
    fn a_command_shares_its_loops_and_threads_fall_asleep_again() {
        let sum = |n: u64| (0..n).into_par_iter().map(|x| x % 7).sum::<u64>();
        let want: u64 = (0..100_000).map(|x| x % 7).sum();
        let ran = among_workers(|| {
            let found: Vec<u64> = (0..50)
                .map(|_| {
                    stay_awake(100_000);
                    sum(100_000)
                })
                .collect();
            let beside: Vec<u64> = side_by_side(|| {
                stay_awake(100_000);
                (0..8).into_par_iter().map(|_| sum(100_000)).collect()
            });
            (rayon::current_thread_index().is_some(), [found, beside].concat())
        });
        let (inside, found) = ran.unwrap();
        assert_eq!(inside, rayon::current_num_threads() > 1);
        assert!(found.iter().all(|s| *s == want));
        // What waits ends by itself, also where nothing comes any more, and other callers find the threads free.
        let began = Instant::now();
        while WAITING.load(Ordering::Relaxed) > 0 && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(AWAKE);
        }
        assert_eq!(WAITING.load(Ordering::Relaxed), 0);
        assert_eq!(sum(100_000), want);
    }
}
