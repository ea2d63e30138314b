//! The `tokenizers` crate panics on some definitions that it should refuse. Here such a panic becomes an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether a panic of this thread will be caught.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Makes panics that become errors say nothing on stderr. For `main`: the hook is the process's.
pub fn silence_caught_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !CAUGHT.get() {
            usual(info);
        }
    }));
}

/// Runs the `tokenizers` crate.
pub(super) fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    CAUGHT.set(true);
    let done = catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(false);
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("the definition is inconsistent: the tokenizer failed on it".to_owned()),
    }
}
