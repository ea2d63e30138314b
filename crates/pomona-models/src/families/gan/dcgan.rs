//! DCGAN: a generator of transposed convolutions from a vector to a picture, and the discriminator that mirrors it.
//!
//! Source: Radford et al., arXiv:1511.06434; module names (`main.N`), widths and the missing biases are those of the usual PyTorch
//! example. Sides other than 64 add or take stages at the narrow end, each twice as wide as the one outside it. Generator: input
//! `input` `[batch, nz, 1, 1]`, output `output`, -1 to 1. Discriminator: input `input`, a picture, output `output` `[batch]`,
//! the probability that it is real.

use pomona_graph::{Activation, BatchStatistics, Dim, Graph, GraphBuilder, Op, ValueId, ValueType};

use super::parts::{self, Kernel};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;

pub(super) const GENERATOR: &[&str] = &["dcgan_generator"];
pub(super) const DISCRIMINATOR: &[&str] = &["dcgan_discriminator"];

/// PyTorch's.
const EPS: f64 = 1e-5;

struct Settings {
    /// Doublings between the 4 x 4 picture and the whole one, without the outermost.
    stages: usize,
    /// Width of the outermost stage.
    width: usize,
    side: usize,
    colours: usize,
    statistics: BatchStatistics,
}

impl Settings {
    fn read(c: &Fields<'_>, width: &str) -> Result<Settings> {
        let side = c.size_or("image_size", 64)?;
        if !side.is_power_of_two() || !(8..=4096).contains(&side) {
            return Err(
                c.fault("image_size", format!("is {side}; a power of two from 8 to 4096 was expected"))
            );
        }
        Ok(Settings {
            stages: side.ilog2() as usize - 3,
            width: c.size_or(width, 64)?,
            side,
            colours: c.size_or("nc", 3)?,
            statistics: parts::statistics(c, "running")?,
        })
    }

    /// Width of a stage, 0 being the outermost.
    fn width(&self, stage: usize) -> usize {
        self.width.saturating_mul(1 << stage)
    }
}

/// Paths of a `Sequential` called `main`, in order.
fn numbered() -> impl FnMut() -> String {
    let mut next = 0;
    move || {
        next += 1;
        format!("main.{}", next - 1)
    }
}

pub(super) fn generator(c: &Fields<'_>) -> Result<Graph> {
    let s = Settings::read(c, "ngf")?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let shape = vec![Dim::symbol("batch"), c.size_or("nz", 100)?.into(), 1.into(), 1.into()];
    let mut x = b.input("input", shape, ValueType::Float);
    let mut at = numbered();
    for stage in (0..=s.stages).rev() {
        let kernel =
            if stage == s.stages { Kernel::square(4, 1, 0, false) } else { Kernel::square(4, 2, 1, false) };
        x = parts::up(&mut b, &at(), x, s.width(stage), (kernel, 0))?;
        x = parts::norm(&mut b, &at(), x, (EPS, s.statistics))?;
        x = b.activation(&at(), Activation::Relu, x)?;
    }
    x = parts::up(&mut b, &at(), x, s.colours, (Kernel::square(4, 2, 1, false), 0))?;
    x = b.activation(&at(), Activation::Tanh, x)?;
    b.output("output", x);
    Ok(b.finish()?)
}

pub(super) fn discriminator(c: &Fields<'_>) -> Result<Graph> {
    let s = Settings::read(c, "ndf")?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let shape = vec![Dim::symbol("batch"), s.colours.into(), s.side.into(), s.side.into()];
    let mut x: ValueId = b.input("input", shape, ValueType::Float);
    let mut at = numbered();
    for stage in 0..=s.stages {
        x = parts::conv(&mut b, &at(), x, s.width(stage), Kernel::square(4, 2, 1, false))?;
        if stage > 0 {
            x = parts::norm(&mut b, &at(), x, (EPS, s.statistics))?;
        }
        x = b.activation(&at(), Activation::LeakyRelu(0.2), x)?;
    }
    x = parts::conv(&mut b, &at(), x, 1, Kernel::square(4, 1, 0, false))?;
    x = b.activation(&at(), Activation::Sigmoid, x)?;
    x = b.node("flatten", Op::Reshape { shape: vec![Dim::symbol("batch")] }, &[x], &[])?;
    b.output("output", x);
    Ok(b.finish()?)
}
