//! Convolutions and transposed convolutions.

use pomona_graph::{ConvAttrs, Slot};

use super::product::bias;
use super::{Count, OpCost, Shapes, elements, times};

/// Weight `[out, in/groups, k...]`: every output element takes `in/groups * k...` products.
pub(super) fn conv(s: &Shapes) -> Count<OpCost> {
    let out = elements(s.output()?)?;
    let macs = times(&[out, elements(kernel(s)?)?])?;
    Ok(OpCost { macs_full: macs, macs_thop: macs, ..bias(s, out) })
}

/// Weight `[in, out/groups, k...]`. Every input element is spread over `out/groups * k...` outputs: that is the work.
/// `thop` takes the formula of a convolution at the output's positions instead, which is larger by the strides.
pub(super) fn transposed(s: &Shapes, attrs: &ConvAttrs) -> Count<OpCost> {
    let input = s.input(0)?;
    let out = elements(s.output()?)?;
    let kernel = kernel(s)?;
    let channels = input.get(1).copied().ok_or("its input has no channel axis")?;
    let full = times(&[elements(input)?, elements(kernel)?])?;
    let groups = (attrs.groups as u64).max(1);
    let thop = times(&[out, channels / groups, elements(kernel.get(1..).unwrap_or_default())?])?;
    Ok(OpCost { macs_full: full, macs_thop: thop, ..bias(s, out) })
}

/// The weight's axes behind the first.
fn kernel(s: &Shapes) -> Count<&[u64]> {
    let weight = s.weight(Slot::Weight)?;
    match weight.len() {
        3.. => Ok(&weight[1..]),
        n => Err(format!("its weight {weight:?} has {n} axes; a convolution's has 3 or more")),
    }
}
