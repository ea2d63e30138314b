//! Buffers that begin on a cache line: a register of 64 bytes that lies across two costs two reads.

use std::ops::{Deref, DerefMut};

use super::uninit;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Floats that kernels write before they read them, the first one on a cache line.
#[derive(Debug, Default)]
pub(crate) struct Room {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Room {
    /// For `n` floats, which are still to be written.
    pub(crate) fn new(n: usize) -> Self {
        let mut room = Self::default();
        room.hold(n);
        room
    }

    /// `n` zeros.
    pub(crate) fn zeros(n: usize) -> Self {
        let mut room = Self::new(n);
        room.fill(0.0);
        room
    }

    /// Makes it `n` long. What was in it is lost where it grows, and what it grows by is still to be written.
    pub(crate) fn hold(&mut self, n: usize) -> &mut [f32] {
        const MORE: usize = LINE / size_of::<f32>();
        if self.values.len() < n + MORE {
            self.values = uninit(n + MORE);
            self.start = self.values.as_ptr().align_offset(LINE).min(MORE);
        }
        self.len = n;
        self
    }
}

impl Deref for Room {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_begin_on_a_line_and_have_their_length() {
        let mut room = Room::default();
        assert!(room.is_empty());
        for n in [1, 7, 100, 3, 4096] {
            assert_eq!(room.hold(n).len(), n);
            assert_eq!(room.as_ptr().addr() % LINE, 0, "{n}");
        }
        assert_eq!(&*Room::zeros(3), [0.0; 3]);
    }
}
