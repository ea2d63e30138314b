//! Which convolutions are done by tiles. What is compared are products: what transforms take beside them was measured.

use super::transform::{OUT, PRODUCTS};
use crate::kernels::conv::Geometry;

/// Lanes that a product's last columns fill up, with the widest registers; for narrower ones too, so that all go the same way.
const LANES: usize = 32;
/// What the transforms of a tile take for each of its channels, of values or of sums.
const CHANNEL: usize = 500;
/// What a filter takes for each of its input channels, forward and back.
const FILTER: usize = 400;
const FILTER_BACK: usize = 800;

/// Whether a convolution's values can be had this way, and are worth it.
pub(in super::super) fn fits(g: &Geometry) -> bool {
    is_plain(g) && is_worth(g, g.out, g.inputs * g.outputs.next_multiple_of(LANES), FILTER)
}

/// Whether its input's gradient can and is.
pub(in super::super) fn fits_input(g: &Geometry) -> bool {
    is_plain(g) && is_worth(g, g.size, g.outputs * g.inputs.next_multiple_of(LANES), FILTER)
}

/// Whether its weight's gradient can and is.
pub(in super::super) fn fits_weight(g: &Geometry) -> bool {
    is_plain(g) && is_worth(g, g.out, g.outputs * g.inputs.next_multiple_of(LANES), FILTER_BACK)
}

fn is_plain(g: &Geometry) -> bool {
    let plain = g.groups == 1 && g.kernel == [3, 3] && g.stride == [1, 1] && g.dilation == [1, 1];
    plain && g.before.iter().all(|b| *b <= 2)
}

/// `out` is what is cut into tiles; `filters` is how many there are, with those that fill up lanes.
fn is_worth(g: &Geometry, out: [usize; 2], filters: usize, filter: usize) -> bool {
    let tiles = g.batch * out[0].div_ceil(OUT) * out[1].div_ceil(OUT);
    let direct = 9 * g.inputs * g.outputs * g.batch * out[0] * out[1];
    let by_tiles = tiles * (PRODUCTS * filters + CHANNEL * (g.inputs + g.outputs)) + filter * filters;
    by_tiles + by_tiles / 4 < direct
}
