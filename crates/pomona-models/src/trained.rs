//! Weights that training changed, beside the files that they began from: a component whose import reads both, so that
//! every exporter writes the trained model as it would write the source.

use std::collections::BTreeMap;
use std::path::Path;

use pomona_graph::{Expr, Term, is_plain_dtype};
use pomona_store::Checkpoint;

use crate::error::{Result, tensor_error};
use crate::model::Component;
use crate::recipe_exec::result_of;

/// What goes in front of the names of trained tensors, which may equal the source's.
const PREFIX: &str = "trained:";

/// How a trained tensor is made. Names are those of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A tensor of the file stands in its place.
    Replaced(String),
    /// `scale * up @ down` is added to what the source has: a merged adapter.
    LowRank {
        /// `[rank, in]`.
        down: String,
        /// `[out, rank]`.
        up: String,
        /// The factor.
        scale: f64,
    },
}

impl Component {
    /// From now on the tensors of `changes` are read from a safetensors file, or from it and the source. In `source_types`
    /// they keep the source's type where that is a plain one; otherwise they are f32.
    ///
    /// # Errors
    /// Where the file cannot be opened, or a tensor is not in it or has another shape.
    pub fn take_trained(
        &mut self,
        file: &Path,
        changes: &BTreeMap<String, Change>,
        source_types: bool,
    ) -> Result<()> {
        self.weights("training")?;
        let trained = Checkpoint::open(file)?;
        let own = self.checkpoint.as_mut();
        own.map(|c| c.add(trained, PREFIX)).transpose()?;
        let of = |name: &String| Expr::copy(format!("{PREFIX}{name}"));
        for output in &mut self.import.outputs {
            let Some(change) = changes.get(&output.name) else { continue };
            let source = result_of(&output.expr, self.checkpoint.as_ref())?.1;
            let made = match change {
                Change::Replaced(name) => of(name),
                Change::LowRank { down, up, scale } => {
                    let term = |weight, product| Term { weight, product };
                    let before = match is_plain_dtype(source.name()) {
                        true => output.expr.clone(),
                        false => Expr::Decode { of: Box::new(output.expr.clone()) },
                    };
                    Expr::WeightedSum {
                        terms: vec![term(1.0, vec![before]), term(*scale, vec![of(up), of(down)])],
                    }
                }
            };
            let (shape, encoding) = result_of(&made, self.checkpoint.as_ref())?;
            if shape != output.shape {
                let message = format!("has shape {shape:?} after training; {:?} was expected", output.shape);
                return Err(tensor_error(file, &output.name, message));
            }
            let keep = source_types && is_plain_dtype(source.name()) && source != encoding;
            output.expr = if keep { made.cast(source.name()) } else { made };
            let to = if keep { source } else { encoding };
            if let Some(id) = self.graph.find_tensor(&output.name) {
                to.name().clone_into(&mut self.graph.tensors[id.0 as usize].dtype);
            }
        }
        Ok(())
    }
}
