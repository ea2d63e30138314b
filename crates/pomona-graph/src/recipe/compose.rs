//! Composition of recipes by substitution.

use std::collections::HashMap;

use super::{Expr, Recipe, RecipeOutput, SourceTensor, Sources, Term, simplify_expr};
use crate::error::{GraphError, Result};

/// The recipe that does `inner` and then `outer`: what `outer` copies is what `inner` makes.
///
/// The result is simplified as far as it can be without the source's shapes; [`Recipe::simplified`] with them does the
/// rest (an identity gather is only known as one beside the length of its axis).
///
/// # Errors
/// [`GraphError::Recipe`] where `outer` reads a tensor that `inner` does not make, or with another shape.
pub fn compose(outer: &Recipe, inner: &Recipe) -> Result<Recipe> {
    let made: HashMap<&str, &RecipeOutput> = inner.outputs.iter().map(|o| (o.name.as_str(), o)).collect();
    let shapes = |name: &str| made.get(name).map(|o| SourceTensor::of_shape(o.shape.clone()));
    outer.check(&shapes)?;
    let mut outputs = Vec::with_capacity(outer.outputs.len());
    for o in &outer.outputs {
        let substitute = |name: &str| {
            made.get(name).map(|m| m.expr.clone()).ok_or_else(|| GraphError::Recipe {
                output: o.name.clone(),
                message: format!("there is no source tensor `{name}`"),
            })
        };
        let expr = o.expr.substitute(&substitute)?;
        outputs.push(RecipeOutput {
            name: o.name.clone(),
            shape: o.shape.clone(),
            expr: simplify_expr(expr, &|_| None),
        });
    }
    Ok(Recipe { outputs })
}

impl Recipe {
    /// Copies of these tensors under their own names.
    pub fn identity<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Recipe {
        let copy = |(name, shape): (&str, &[usize])| RecipeOutput {
            name: name.to_owned(),
            shape: shape.to_vec(),
            expr: Expr::copy(name),
        };
        Recipe { outputs: tensors.into_iter().map(copy).collect() }
    }

    /// The output of a name.
    pub fn output(&self, name: &str) -> Option<&RecipeOutput> {
        self.outputs.iter().find(|o| o.name == name)
    }

    /// The recipe with everything that cancels out removed; the same tensors come out, bit for bit.
    pub fn simplified(&self, sources: &Sources<'_>) -> Recipe {
        let one = |o: &RecipeOutput| RecipeOutput {
            name: o.name.clone(),
            shape: o.shape.clone(),
            expr: simplify_expr(o.expr.clone(), sources),
        };
        Recipe { outputs: self.outputs.iter().map(one).collect() }
    }
}

impl Expr {
    /// The expression with each `Copy` replaced.
    pub(crate) fn substitute(&self, by: &dyn Fn(&str) -> Result<Expr>) -> Result<Expr> {
        let boxed = |e: &Expr| e.substitute(by).map(Box::new);
        let each = |of: &[Expr]| of.iter().map(|e| e.substitute(by)).collect::<Result<Vec<_>>>();
        Ok(match self {
            Expr::Copy { name } => by(name)?,
            Expr::Gather { axis, indices, of } => {
                Expr::Gather { axis: *axis, indices: indices.clone(), of: boxed(of)? }
            }
            Expr::Concat { axis, of } => Expr::Concat { axis: *axis, of: each(of)? },
            Expr::Split { axis, start, len, of } => {
                Expr::Split { axis: *axis, start: *start, len: *len, of: boxed(of)? }
            }
            Expr::Transpose { axes, of } => Expr::Transpose { axes: axes.clone(), of: boxed(of)? },
            Expr::Reshape { shape, of } => Expr::Reshape { shape: shape.clone(), of: boxed(of)? },
            Expr::Cast { dtype, of } => Expr::Cast { dtype: dtype.clone(), of: boxed(of)? },
            Expr::Decode { of } => Expr::Decode { of: boxed(of)? },
            Expr::Tile { repeats, of } => Expr::Tile { repeats: repeats.clone(), of: boxed(of)? },
            Expr::WeightedSum { terms } => {
                let term = |t: &Term| Ok(Term { weight: t.weight, product: each(&t.product)? });
                Expr::WeightedSum { terms: terms.iter().map(term).collect::<Result<_>>()? }
            }
            Expr::Initialise { .. } | Expr::Literal { .. } => self.clone(),
        })
    }

    /// Calls `see` with the name of each source tensor that the expression reads, left to right, repeats included.
    pub fn visit_sources<'a>(&'a self, see: &mut dyn FnMut(&'a str)) {
        match self {
            Expr::Copy { name } => see(name),
            Expr::Gather { of, .. }
            | Expr::Split { of, .. }
            | Expr::Transpose { of, .. }
            | Expr::Reshape { of, .. }
            | Expr::Cast { of, .. }
            | Expr::Decode { of }
            | Expr::Tile { of, .. } => of.visit_sources(see),
            Expr::Concat { of, .. } => of.iter().for_each(|e| e.visit_sources(see)),
            Expr::WeightedSum { terms } => {
                terms.iter().flat_map(|t| &t.product).for_each(|e| e.visit_sources(see));
            }
            Expr::Initialise { .. } | Expr::Literal { .. } => {}
        }
    }
}
