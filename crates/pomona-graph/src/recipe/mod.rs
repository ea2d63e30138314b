//! Weight recipes: how each tensor of an output is made from tensors of a source. Data only; `pomona-models` executes them.
//!
//! Importers, plans and exporters each give a recipe; recipes compose by substitution, and what an importer did and an
//! exporter undoes cancels out, so that untouched tensors are copied byte for byte whatever their encoding.

mod compose;
mod shape;
mod simplify;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use compose::compose;
use shape::widens_exactly;
pub use shape::{SourceTensor, Sources, is_plain_dtype};
use simplify::simplify_expr;

/// How the tensors of an output are made, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// One entry an output tensor.
    pub outputs: Vec<RecipeOutput>,
}

/// One output tensor and the expression that makes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeOutput {
    /// Name in the output.
    pub name: String,
    /// Shape in the output's layout.
    pub shape: Vec<usize>,
    /// How it is made.
    pub expr: Expr,
}

/// An expression over source tensors. Every operation works on any encoding that it can keep; `Cast` decodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Expr {
    /// A tensor of the source, byte for byte.
    Copy {
        /// Its name there.
        name: String,
    },
    /// Slices `indices` of an axis, in that order.
    Gather {
        /// Axis, from 0.
        axis: usize,
        /// Which slices.
        indices: Vec<u32>,
        /// Of what.
        of: Box<Expr>,
    },
    /// Joined along an axis.
    Concat {
        /// Axis, from 0.
        axis: usize,
        /// The parts.
        of: Vec<Expr>,
    },
    /// The contiguous part `start .. start + len` of an axis.
    Split {
        /// Axis, from 0.
        axis: usize,
        /// First index.
        start: usize,
        /// How many.
        len: usize,
        /// Of what.
        of: Box<Expr>,
    },
    /// Axes in a new order.
    Transpose {
        /// Output axis i is input axis `axes[i]`.
        axes: Vec<usize>,
        /// Of what.
        of: Box<Expr>,
    },
    /// The same elements in a new shape.
    Reshape {
        /// The shape.
        shape: Vec<usize>,
        /// Of what.
        of: Box<Expr>,
    },
    /// Converted to a plain type (`f32`, `f16`, `bf16`), rounding to nearest even.
    Cast {
        /// The type.
        dtype: String,
        /// Of what.
        of: Box<Expr>,
    },
    /// Quantised blocks to f32.
    Decode {
        /// Of what.
        of: Box<Expr>,
    },
    /// Repeated `repeats[axis]` times along each axis.
    Tile {
        /// How often.
        repeats: Vec<usize>,
        /// Of what.
        of: Box<Expr>,
    },
    /// `sum of weight * term`, computed in f32; terms of rank 2 may be products (LoRA).
    WeightedSum {
        /// Terms.
        terms: Vec<Term>,
    },
    /// Seeded random numbers or a constant: a function of seed and name alone.
    Initialise {
        /// The distribution.
        distribution: Distribution,
        /// The run's seed.
        seed: u64,
        /// Name that goes into the stream.
        name: String,
        /// Shape.
        shape: Vec<usize>,
        /// Type.
        dtype: String,
    },
    /// Numbers as they stand.
    Literal {
        /// Values, row-major.
        values: Vec<f32>,
        /// Shape.
        shape: Vec<usize>,
    },
}

/// A term of [`Expr::WeightedSum`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// The factor.
    pub weight: f64,
    /// One expression, or the factors of a matrix product from left to right.
    pub product: Vec<Expr>,
}

/// Distributions of [`Expr::Initialise`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Normal with this standard deviation, mean 0.
    Normal(f64),
    /// Uniform on `[-bound, bound]`.
    Uniform(f64),
    /// One number everywhere.
    Fill(f64),
}

impl Expr {
    /// A source tensor as it is.
    pub fn copy(name: impl Into<String>) -> Expr {
        Expr::Copy { name: name.into() }
    }

    /// `Gather` of this.
    pub fn gather(self, axis: usize, indices: Vec<u32>) -> Expr {
        Expr::Gather { axis, indices, of: Box::new(self) }
    }

    /// `Cast` of this.
    pub fn cast(self, dtype: impl Into<String>) -> Expr {
        Expr::Cast { dtype: dtype.into(), of: Box::new(self) }
    }
}
