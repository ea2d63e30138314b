//! Weights of an edited graph, made from the original's in memory: a cut is tried without writing it.

use std::collections::HashMap;
use std::sync::Mutex;

use pomona_exec::{Device, ExecError, Tensor, WeightProvider};
use pomona_graph::{Expr, Graph, Recipe, TensorId};

use crate::objective::Weights;

/// Weights of `edited` by the recipe that `pomona_graph::apply` gave with it; each tensor is made once.
pub struct EditedWeights<'a> {
    graph: &'a Graph,
    edited: &'a Graph,
    recipe: &'a Recipe,
    base: &'a dyn Weights,
    device: Device,
    made: Mutex<HashMap<TensorId, Tensor>>,
}

impl<'a> EditedWeights<'a> {
    /// `graph` and `base` are the original, `edited` and `recipe` what the edits made of it.
    pub fn new(
        graph: &'a Graph,
        base: &'a dyn Weights,
        (edited, recipe): (&'a Graph, &'a Recipe),
        device: &Device,
    ) -> Self {
        Self { graph, edited, recipe, base, device: device.clone(), made: Mutex::default() }
    }

    fn make(&self, expr: &Expr) -> Result<Tensor, String> {
        let text = |e: ExecError| e.to_string();
        match expr {
            Expr::Copy { name } => {
                let id =
                    self.graph.find_tensor(name).ok_or_else(|| format!("there is no tensor `{name}`"))?;
                self.base.get(id).map_err(text)
            }
            Expr::Gather { axis, indices, of } => gather(&self.make(of)?, *axis, indices, &self.device),
            Expr::Split { axis, start, len, of } => {
                let end = start.checked_add(*len).ok_or("a split ends beyond any axis")?;
                self.make(of)?.slice(*axis, *start..end).map_err(text)
            }
            Expr::Concat { axis, of } => {
                let parts: Vec<Tensor> = of.iter().map(|e| self.make(e)).collect::<Result<_, _>>()?;
                Tensor::concat(&parts, *axis).map_err(text)
            }
            Expr::Transpose { axes, of } => self.make(of)?.transpose(axes).map_err(text),
            Expr::Reshape { shape, of } => self.make(of)?.reshape(shape).map_err(text),
            // Everything is f32 here already; the rounding of a narrower type is the writer's.
            Expr::Decode { of } => self.make(of),
            Expr::Literal { values, shape } => {
                Tensor::from_f32(values.clone(), shape, &self.device).map_err(text)
            }
            _ => {
                Err("is made by a step that needs the files: apply the plan, then run its output".to_owned())
            }
        }
    }
}

fn gather(t: &Tensor, axis: usize, indices: &[u32], device: &Device) -> Result<Tensor, String> {
    let mut shape = t.shape().to_vec();
    let Some(count) = shape.get(axis).copied() else { return Err(format!("has no axis {axis}")) };
    if indices.iter().any(|i| *i as usize >= count) {
        return Err(format!("axis {axis} has {count} indices, and one beyond them is gathered"));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    shape[axis] = indices.len();
    let size = count * inner;
    let values = t
        .with_f32(|v| {
            let mut out = Vec::with_capacity(shape.iter().product());
            for outer in v.chunks_exact(size.max(1)) {
                for i in indices {
                    let at = *i as usize * inner;
                    out.extend_from_slice(&outer[at..at + inner]);
                }
            }
            out
        })
        .map_err(|e| e.to_string())?;
    Tensor::from_f32(values, &shape, device).map_err(|e| e.to_string())
}

impl WeightProvider for EditedWeights<'_> {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        let lock = || self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(t) = lock().get(&id) {
            return Ok(t.clone());
        }
        let name = &self.edited.tensor(id).name;
        let fault = |message: String| ExecError::Weight { tensor: name.clone(), message };
        let made = self.recipe.output(name).ok_or_else(|| fault("is not in the recipe".to_owned()))?;
        let tensor = self.make(&made.expr).map_err(fault)?;
        lock().insert(id, tensor.clone());
        Ok(tensor)
    }
}

impl Weights for EditedWeights<'_> {
    fn release(&self) {
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        self.base.release();
    }
}
