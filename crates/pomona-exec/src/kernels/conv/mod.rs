//! Convolutions in one and two dimensions, and those through which a gradient or a transposed convolution goes back.
//!
//! All are products whose right factor is read through windows over planes that were laid out with their borders; windows
//! are read in place or packed by the tasks that need them, as a whole only where there are few pixels. Dense ones of 3 x 3 taps take a
//! quarter of the products (`winograd`). One window a channel (depthwise) has no product in it: loops of its own.

mod depthwise;
mod framed;
mod padded;
mod product;
#[cfg(test)]
mod tests;
mod windows;
mod winograd;

use super::uninit;

pub(crate) use product::channel_sums;

/// Sizes of a convolution from `[batch, inputs, size]` to `[batch, outputs, out]`, the weight `[outputs, inputs / groups,
/// kernel]`. One dimension has a height of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub batch: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub groups: usize,
    pub size: [usize; 2],
    pub out: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Zeros before the first row and column; those behind the last follow from `out`.
    pub before: [usize; 2],
    pub dilation: [usize; 2],
}

impl Geometry {
    fn in_plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    fn out_plane(&self) -> usize {
        self.out[0] * self.out[1]
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn is_depthwise(&self) -> bool {
        self.groups == self.inputs && self.groups > 1
    }

    /// Elements of the input, the weight and the output.
    pub(crate) fn elements(&self) -> [usize; 3] {
        [
            self.batch * self.inputs * self.in_plane(),
            self.outputs * (self.inputs / self.groups) * self.taps(),
            self.batch * self.outputs * self.out_plane(),
        ]
    }
}

/// The convolution's values.
pub(crate) fn conv(x: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry) -> Vec<f32> {
    let mut y = uninit(g.elements()[2]);
    if g.is_depthwise() {
        depthwise::forward(x, weight, bias, g, &mut y);
    } else {
        product::forward(x, weight, bias, g, &mut y);
    }
    y
}

/// The input's gradient from that of the values; also a transposed convolution from its input, with a bias a channel.
pub(crate) fn conv_input(above: &[f32], weight: &[f32], bias: Option<&[f32]>, g: &Geometry) -> Vec<f32> {
    let mut dx = uninit(g.elements()[0]);
    if g.is_depthwise() {
        depthwise::input(above, weight, bias, g, &mut dx);
    } else {
        product::input(above, weight, bias, g, &mut dx);
    }
    dx
}

/// The weight's gradient.
pub(crate) fn conv_weight(x: &[f32], above: &[f32], g: &Geometry) -> Vec<f32> {
    let mut dw = uninit(g.elements()[1]);
    if g.is_depthwise() {
        depthwise::weight(x, above, g, &mut dw);
    } else {
        product::weight(x, above, g, &mut dw);
    }
    dw
}
