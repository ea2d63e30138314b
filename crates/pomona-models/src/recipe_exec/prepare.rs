//! An expression with the shape and encoding of every step, checked before anything is read.

use pomona_graph::{Distribution, Expr, GraphError};
use pomona_store::{Checkpoint, Encoding, TensorInfo};

use crate::error::{ModelError, Result};

/// An expression whose operations are known to fit their operands.
pub(super) struct Tree<'a> {
    pub shape: Vec<usize>,
    pub encoding: Encoding,
    pub step: Step<'a>,
}

/// What a step does; see [`Expr`].
pub(super) enum Step<'a> {
    Copy {
        file: &'a Checkpoint,
        info: &'a TensorInfo,
    },
    Gather {
        axis: usize,
        indices: &'a [u32],
        of: Box<Tree<'a>>,
    },
    Split {
        axis: usize,
        start: usize,
        of: Box<Tree<'a>>,
    },
    Concat {
        axis: usize,
        of: Vec<Tree<'a>>,
    },
    Transpose {
        axes: &'a [usize],
        of: Box<Tree<'a>>,
    },
    Reshape {
        of: Box<Tree<'a>>,
    },
    /// To the tree's own encoding, through f32.
    Convert {
        of: Box<Tree<'a>>,
    },
    Tile {
        repeats: &'a [usize],
        of: Box<Tree<'a>>,
    },
    WeightedSum {
        terms: Vec<(f32, Vec<Tree<'a>>)>,
    },
    Initialise {
        distribution: Distribution,
        key: [u8; 32],
    },
    Literal {
        values: &'a [f32],
    },
}

impl Tree<'_> {
    /// Slices of the first axis; a scalar counts as one.
    pub(super) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements of a slice of the first axis.
    pub(super) fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Bytes of a slice of the first axis; none where blocks cross slices.
    pub(super) fn row_bytes(&self) -> Option<usize> {
        let len = if self.shape.is_empty() { 1 } else { self.row_len() };
        let last = if self.shape.len() > 1 { self.shape.last().copied().unwrap_or(1) } else { 1 };
        let (block, bytes) = (self.encoding.block_len(), self.encoding.block_bytes());
        // Only the last axis, or the whole row for formats that pack over it, holds whole blocks.
        (last % block == 0 && len % block == 0).then(|| len / block * bytes)
    }

    /// An error about this step.
    pub(super) fn fault(&self, message: String) -> ModelError {
        let output = match &self.step {
            Step::Copy { info, .. } => info.name.clone(),
            _ => format!("a step of shape {:?}", self.shape),
        };
        ModelError::Graph(GraphError::Recipe { output, message })
    }
}

/// Checks an expression and resolves its sources.
pub(super) fn prepare<'a>(expr: &'a Expr, file: Option<&'a Checkpoint>) -> Result<Tree<'a>> {
    let sources = super::sources(file);
    let fault = |message: String| {
        let mut names = Vec::new();
        expr.visit_sources(&mut |n| names.push(n));
        let output = names.first().map_or("an expression", |n| *n).to_owned();
        ModelError::Graph(GraphError::Recipe { output, message })
    };
    let found = expr.infer(&sources).map_err(fault)?;
    let dtype = found.dtype.unwrap_or_default();
    let encoding =
        Encoding::from_name(&dtype).ok_or_else(|| fault(format!("has the unknown encoding `{dtype}`")))?;
    let sub = |of: &'a Expr| prepare(of, file).map(Box::new);
    let step = match expr {
        Expr::Copy { name } => {
            let file = file.ok_or_else(|| fault(format!("there is no source tensor `{name}`")))?;
            Step::Copy { file, info: file.info(name)? }
        }
        Expr::Gather { axis, indices, of } => Step::Gather { axis: *axis, indices, of: sub(of)? },
        Expr::Split { axis, start, of, .. } => Step::Split { axis: *axis, start: *start, of: sub(of)? },
        Expr::Concat { axis, of } => {
            Step::Concat { axis: *axis, of: of.iter().map(|e| prepare(e, file)).collect::<Result<_>>()? }
        }
        Expr::Transpose { axes, of } => Step::Transpose { axes, of: sub(of)? },
        Expr::Reshape { of, .. } => Step::Reshape { of: sub(of)? },
        Expr::Cast { of, .. } | Expr::Decode { of } => convert(encoding, sub(of)?, &fault)?,
        Expr::Tile { repeats, of } => Step::Tile { repeats, of: sub(of)? },
        Expr::WeightedSum { terms } => {
            let product = |p: &'a [Expr]| p.iter().map(|e| prepare(e, file)).collect::<Result<Vec<_>>>();
            let terms = terms.iter().map(|t| Ok((t.weight as f32, product(&t.product)?)));
            Step::WeightedSum { terms: terms.collect::<Result<_>>()? }
        }
        Expr::Initialise { distribution, seed, name, .. } => {
            if !matches!(encoding, Encoding::F32 | Encoding::F16 | Encoding::Bf16) {
                return Err(fault(format!("initialises as `{dtype}`; f32, f16 or bf16 was expected")));
            }
            Step::Initialise { distribution: *distribution, key: super::initialise::key(*seed, name) }
        }
        Expr::Literal { values, .. } => Step::Literal { values },
    };
    Ok(Tree { shape: found.shape, encoding, step })
}

fn convert<'a>(to: Encoding, of: Box<Tree<'a>>, fault: &dyn Fn(String) -> ModelError) -> Result<Step<'a>> {
    if !pomona_store::can_decode(of.encoding) {
        return Err(fault(format!("is stored as {}, which can be copied but not decoded", of.encoding)));
    }
    if to != of.encoding && !matches!(to, Encoding::F32 | Encoding::F16 | Encoding::Bf16) {
        return Err(fault(format!("cannot be cast to {to}: f32, f16 and bf16 are written")));
    }
    Ok(Step::Convert { of })
}
