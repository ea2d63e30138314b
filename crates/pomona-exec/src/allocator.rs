//! What becomes of memory that values leave behind, where values lie, and how much there was.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks from this size on begin on a cache line, if they ask for less than that: kernels read whole lines at a time, and every read of two costs twice.
const VALUE: usize = 4 << 10;
/// Bytes of a cache line, and what every system's blocks begin on a multiple of.
const LINE: usize = 64;
const WORD: usize = 16;
/// Blocks from this size on are kept here. glibc maps them one by one and gives them back to the kernel, which clears them page by
/// page for the next value: that took three quarters of the time of a softmax over 32 MB.
const LARGE: usize = 32 << 20;
/// Large blocks that are kept at most, and their bytes.
const BLOCKS: usize = 16;
const KEPT: usize = 256 << 20;

/// The system's allocator for programs that run networks: values begin on cache lines, and the largest blocks are used again. Where
/// memory runs out what is kept is given back first.
///
/// ```
/// #[global_allocator]
/// static MEMORY: pomona_exec::Memory = pomona_exec::Memory;
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

/// Freed large blocks, the oldest first.
struct Freed {
    blocks: [(*mut u8, usize); BLOCKS],
    count: usize,
}

// SAFETY: a freed block belongs to whoever holds the list.
unsafe impl Send for Freed {}

static FREED: Mutex<Freed> = Mutex::new(Freed { blocks: [(null_mut(), 0); BLOCKS], count: 0 });

fn freed() -> MutexGuard<'static, Freed> {
    FREED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Freed {
    fn remove(&mut self, at: usize) -> (*mut u8, usize) {
        let found = self.blocks[at];
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
        found
    }

    /// A block of exactly this size, the last that was freed.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let at = self.blocks[..self.count].iter().rposition(|b| b.1 == size)?;
        Some(self.remove(at).0)
    }

    /// Keeps a block. What there is no room for any more goes back to the system: the oldest.
    fn keep(&mut self, block: *mut u8, size: usize) {
        if size > KEPT {
            // SAFETY: the block was made with this layout, and nobody has it any more.
            return unsafe { System.dealloc(block, words(size)) };
        }
        let held = |f: &Self| f.blocks[..f.count].iter().map(|b| b.1).sum::<usize>();
        while self.count == BLOCKS || held(self) + size > KEPT {
            self.give_back(0);
        }
        self.blocks[self.count] = (block, size);
        self.count += 1;
    }

    fn give_back(&mut self, at: usize) {
        let (block, size) = self.remove(at);
        // SAFETY: the block was made with this layout, and nobody has it any more.
        unsafe { System.dealloc(block, words(size)) };
    }
}

/// Layout of a block of some bytes.
fn words(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two; `around` leaves sizes below what a layout may have.
    unsafe { Layout::from_size_align_unchecked(size, WORD) }
}

/// Size of the block in which a value begins on a cache line; none for what is no value. Asked for as such, glibc would cut it out of a
/// larger block and leave pieces behind, and could not let it grow. Of large ones there are the eighths of each power of two, so that
/// values of about one size share blocks.
fn around(layout: Layout) -> Option<usize> {
    if layout.size() < VALUE || layout.align() > WORD {
        return None;
    }
    let eighth = if layout.size() < LARGE { 1 } else { layout.size().checked_next_power_of_two()? >> 4 };
    let size = layout.size().checked_next_multiple_of(eighth)?.checked_add(LINE)?;
    Layout::from_size_align(size, WORD).is_ok().then_some(size)
}

/// The cache line in a block, behind a word that says how far in it is.
///
/// # Safety
/// The block has a line more than is asked for, and begins on a multiple of [`WORD`].
unsafe fn line_in(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        return block;
    }
    // SAFETY: the next line is one to four words on, within the block as the caller vouches.
    unsafe {
        let line = block.add(to_line(block));
        line.cast::<usize>().sub(1).write(to_line(block));
        line
    }
}

/// How far the next line is from a block's begin: there is always a word before it.
fn to_line(block: *mut u8) -> usize {
    LINE - block.addr() % LINE
}

/// How far in a block its line is.
///
/// # Safety
/// The line is one that [`line_in`] found.
unsafe fn far(line: *mut u8) -> usize {
    // SAFETY: as the caller vouches.
    unsafe { line.cast::<usize>().sub(1).read() }
}

/// What `make` makes, if need be with what is kept given back first.
fn or_give_back(make: impl Fn() -> *mut u8) -> *mut u8 {
    let block = make();
    if !block.is_null() {
        return block;
    }
    let mut freed = freed();
    while freed.count > 0 {
        freed.give_back(0);
    }
    drop(freed);
    make()
}

// SAFETY: every block comes from the system's allocator with a layout that holds the one asked for, and goes back to it with the same
// one, which follows from the one asked for alone; a kept block is nobody else's.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout has a size, and so have those made of it.
        unsafe {
            let Some(size) = around(layout) else { return or_give_back(|| System.alloc(layout)) };
            let kept = if layout.size() < LARGE { None } else { freed().take(size) };
            line_in(kept.unwrap_or_else(|| or_give_back(|| System.alloc(words(size)))))
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above; a kept block holds a line and what is asked for.
        unsafe {
            let Some(size) = around(layout) else { return or_give_back(|| System.alloc_zeroed(layout)) };
            let kept = if layout.size() < LARGE { None } else { freed().take(size) };
            if let Some(block) = kept {
                let line = line_in(block);
                line.write_bytes(0, layout.size());
                return line;
            }
            line_in(or_give_back(|| System.alloc_zeroed(words(size))))
        }
    }

    unsafe fn dealloc(&self, value: *mut u8, layout: Layout) {
        // SAFETY: the value was made with this layout, and its block with the one around it.
        unsafe {
            match around(layout) {
                None => System.dealloc(value, layout),
                Some(size) if layout.size() < LARGE => System.dealloc(value.sub(far(value)), words(size)),
                Some(size) => freed().keep(value.sub(far(value)), size),
            }
        }
    }

    unsafe fn realloc(&self, value: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's new size, rounded up to the alignment, is a layout's; blocks hold the bytes that are moved.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            let bytes = layout.size().min(size);
            match (around(layout), around(new)) {
                (Some(a), Some(b)) if a == b => value,
                // The system's may move pages instead of bytes, and needs no second block then.
                (Some(a), Some(b)) => {
                    let before = far(value);
                    let moved = or_give_back(|| System.realloc(value.sub(before), words(a), b));
                    if !moved.is_null() && to_line(moved) != before {
                        moved.add(to_line(moved)).copy_from(moved.add(before), bytes);
                    }
                    line_in(moved)
                }
                (None, None) => or_give_back(|| System.realloc(value, layout, size)),
                _ => {
                    let to = self.alloc(new);
                    if !to.is_null() {
                        to.copy_from_nonoverlapping(value, bytes);
                        self.dealloc(value, layout);
                    }
                    to
                }
            }
        }
    }
}

/// Makes the allocator keep freed memory for the next value, where it is glibc's. By default it gives every large buffer
/// back to the kernel, which clears it again page by page for the next one: in networks of many large values more than half
/// of the time went there. A process that runs networks calls this once, before it starts threads; [`Memory`] does the same for the
/// largest values.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest that glibc takes on 64 bits.
        const MAPPED_FROM: i32 = 32 << 20;
        for (option, value) in [
            (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
            (libc::M_TRIM_THRESHOLD, i32::MAX),
            (libc::M_TOP_PAD, MAPPED_FROM),
            // A thread's own heap is made of pieces of 64 MB, which go back to the kernel one by one as they empty.
            (libc::M_ARENA_MAX, 1),
        ] {
            // SAFETY: `mallopt` takes two integers, may be called at any time, and leaves a setting that it refuses as it is.
            unsafe { libc::mallopt(option, value) };
        }
    }
}

/// The most memory that this process has held at a time, in bytes, files that it maps among it; none where the system does not
/// say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Sizes on both sides of each border, and some within.
    const SIZES: [usize; 12] = [
        1,
        100,
        VALUE - 1,
        VALUE,
        VALUE + 1,
        70_000,
        1 << 20,
        LARGE - 1,
        LARGE,
        LARGE + 5,
        36 << 20,
        300 << 20,
    ];

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 4).unwrap()
    }

    /// Bytes that tell where they belong: some at the begin, some at the end.
    fn places(size: usize) -> impl Iterator<Item = usize> {
        (0..size.min(200)).chain(size.saturating_sub(200)..size)
    }

    fn write(block: *mut u8, size: usize) {
        // SAFETY: the block has `size` bytes.
        places(size).for_each(|i| unsafe { block.add(i).write((i * 7 + 3) as u8) });
    }

    fn check(block: *mut u8, written: usize, kept: usize) {
        for i in places(written).filter(|i| *i < kept) {
            // SAFETY: the block has at least `kept` bytes, of which these were written.
            assert_eq!(unsafe { block.add(i).read() }, (i * 7 + 3) as u8, "byte {i} of {written}");
        }
    }

    #[test]
    fn blocks_keep_their_bytes_and_begin_on_lines() {
        for from in SIZES {
            for to in SIZES {
                // SAFETY: the layouts are those that the blocks were made with.
                unsafe {
                    let block = Memory.alloc(layout(from));
                    assert!(
                        !block.is_null() && (from < VALUE || block.addr().is_multiple_of(LINE)),
                        "{from}"
                    );
                    write(block, from);
                    let block = Memory.realloc(block, layout(from), to);
                    assert!(
                        !block.is_null() && (to < VALUE || block.addr().is_multiple_of(LINE)),
                        "{from} {to}"
                    );
                    check(block, from, from.min(to));
                    Memory.dealloc(block, layout(to));
                }
            }
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_where_a_block_is_used_again() {
        for size in SIZES {
            // SAFETY: as above.
            unsafe {
                let block = Memory.alloc(layout(size));
                write(block, size);
                Memory.dealloc(block, layout(size));
                let block = Memory.alloc_zeroed(layout(size));
                assert!(places(size).all(|i| block.add(i).read() == 0), "{size}");
                Memory.dealloc(block, layout(size));
            }
        }
    }

    #[test]
    fn what_no_system_has_is_refused() {
        for size in [isize::MAX as usize - 3, isize::MAX as usize - 200, isize::MAX as usize / 2] {
            // SAFETY: nothing is read, and nothing was made.
            unsafe { assert!(Memory.alloc(layout(size)).is_null(), "{size}") };
        }
    }

    #[test]
    fn the_oldest_goes_and_no_more_is_kept_than_said() {
        let mut list = Freed { blocks: [(null_mut(), 0); BLOCKS], count: 0 };
        // SAFETY: the size is not zero.
        let make = |size| unsafe { System.alloc(words(size)) };
        let size = LARGE + (1 << 20);
        let blocks: Vec<*mut u8> = (0..12).map(|_| make(size)).collect();
        blocks.iter().for_each(|b| list.keep(*b, size));
        assert_eq!(list.count, KEPT / size);
        assert_eq!(list.take(size), blocks.last().copied());
        assert_eq!(list.take(size + 1), None);
        let before = list.count;
        list.keep(make(KEPT + LARGE), KEPT + LARGE);
        assert_eq!(list.count, before, "a block larger than all that is kept is not kept");
        while list.count > 0 {
            list.give_back(0);
        }
    }
}
