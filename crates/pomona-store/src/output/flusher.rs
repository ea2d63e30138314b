//! A thread that flushes a file while it grows, so that the disk is busy while bytes are still being made.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// The thread only makes system calls.
const STACK: usize = 64 << 10;

pub(super) struct Flusher {
    thread: Option<(SyncSender<u64>, JoinHandle<io::Result<()>>)>,
    durable: Arc<AtomicU64>,
}

impl Flusher {
    /// Without a thread (the system may have none left) nothing is flushed before the end.
    pub(super) fn start(file: &File) -> Flusher {
        let durable = Arc::new(AtomicU64::new(0));
        let reached = Arc::clone(&durable);
        let thread = file.try_clone().ok().and_then(|file| {
            let (signal, signals) = sync_channel::<u64>(1);
            let run = move || {
                while let Ok(mark) = signals.recv() {
                    file.sync_data()?;
                    reached.fetch_max(mark, Ordering::Release);
                }
                Ok(())
            };
            let builder = std::thread::Builder::new().name("flusher".to_owned()).stack_size(STACK);
            Some((signal, builder.spawn(run).ok()?))
        });
        Flusher { thread, durable }
    }

    /// Flushes soon; afterwards everything before `mark`, which the system has, is on the disk.
    ///
    /// # Errors
    /// Those of an earlier flush: the system reports a failed write-back once, so it is not lost here.
    pub(super) fn signal(&mut self, mark: u64) -> io::Result<()> {
        match self.thread.as_ref().map(|(signal, _)| signal.try_send(mark)) {
            // A full channel means that a flush is waiting already; the next signal carries a later mark.
            None | Some(Ok(()) | Err(TrySendError::Full(_))) => Ok(()),
            Some(Err(TrySendError::Disconnected(_))) => self.stop(),
        }
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Waits for the thread.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        let Some((signal, thread)) = self.thread.take() else { return Ok(()) };
        drop(signal);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the flushing thread failed")))
    }
}
