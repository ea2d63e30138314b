//! Where the transformed values of tiles lie.

use super::transform::PRODUCTS;
use crate::kernels::Room;
use crate::kernels::simd::Simd;
use crate::kernels::tiles::{lanes, tile_size};

/// Transformed values `[product][group of tiles][register of channels][tile][lane]`, as products read them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    start: *mut f32,
    /// Floats of a product's, and of a group's.
    pub plane: usize,
    pub group: usize,
}

// SAFETY: whoever made it holds the buffer and keeps tasks apart.
unsafe impl Send for Values {}
// SAFETY: as above.
unsafe impl Sync for Values {}

impl Values {
    /// Floats for so many tiles of so many channels, in groups of as many tiles as a product takes at a time.
    pub(super) fn floats(tiles: usize, channels: usize) -> usize {
        let (rows, lanes) = (tile_size().0, lanes());
        PRODUCTS * tiles.next_multiple_of(rows) * channels.next_multiple_of(lanes)
    }

    /// In a buffer of so many floats.
    pub(super) fn new(buffer: &mut [f32], tiles: usize, channels: usize) -> Self {
        assert!(buffer.len() >= Self::floats(tiles, channels), "a buffer for the tiles' values");
        let group = tile_size().0 * channels.next_multiple_of(lanes());
        Self { start: buffer.as_mut_ptr(), plane: tiles.div_ceil(tile_size().0) * group, group }
    }

    /// Floats of a tile that is a group of its own, of so many channels and as many more as products read: an odd number of cache
    /// lines, so that tiles do not drive each other out.
    pub(super) fn row(channels: usize) -> usize {
        const LINE: usize = 16;
        (channels.next_multiple_of(tile_size().1).div_ceil(LINE) | 1) * LINE
    }

    /// Tiles one behind the other, each a group of its own (`MR` is one), in a buffer, with room for the lanes that products read
    /// behind the last one. Where channels do not fill what products read, the rest is zeros.
    pub(super) fn rows(buffer: &mut Room, tiles: usize, channels: usize) -> Self {
        let (group, (rows, lanes)) = (Self::row(channels), tile_size());
        let buffer = buffer.hold(PRODUCTS * tiles * group + rows);
        if channels.is_multiple_of(lanes) {
            buffer[PRODUCTS * tiles * group..].fill(0.0);
        } else {
            buffer.fill(0.0);
        }
        Self { start: buffer.as_mut_ptr(), plane: tiles * group, group }
    }

    /// Where a register of a tile's channels lies for the first product; `channel` is the register's first.
    ///
    /// # Safety
    /// The tile and the channel are among those it was made for.
    #[inline(always)]
    pub(super) unsafe fn at<S: Simd, const MR: usize>(&self, tile: usize, channel: usize) -> *mut f32 {
        // SAFETY: as the caller vouches.
        unsafe { self.start.add(tile / MR * self.group + channel * MR + tile % MR * S::LANES) }
    }

    /// Zeros behind the last tile, for the rest of its group.
    ///
    /// # Safety
    /// As [`Values::at`], for the group of the last tile.
    #[inline(always)]
    pub(super) unsafe fn end<S: Simd, const MR: usize>(&self, tiles: usize, channels: usize) {
        for tile in tiles..tiles.next_multiple_of(MR) {
            for c in (0..channels).step_by(S::LANES) {
                for e in 0..PRODUCTS {
                    // SAFETY: as the caller vouches.
                    unsafe { S::store(self.at::<S, MR>(tile, c).add(e * self.plane), S::zero()) };
                }
            }
        }
    }
}
