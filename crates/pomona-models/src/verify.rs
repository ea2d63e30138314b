//! What goes out comes back in: an output is opened again, as this program and as stock loaders read it.

use std::path::Path;

use pomona_graph::Graph;
use pomona_store::{Checkpoint, Format};

use crate::config::{Fields, read_object};
use crate::error::{ModelError, Result};
use crate::families;
use crate::manifest;
use crate::model::{Component, Model, import_by_name};
use crate::{gguf, onnx};

/// Opens an output directory and checks every shape: the graph of `pomona.json` against the files, and, where a stock
/// loader is to read them, the graph that it would build from config.json or the GGUF metadata.
///
/// # Errors
/// [`ModelError::Verify`] where the stock graph differs; others as [`crate::open`].
pub fn verify_output(dir: impl AsRef<Path>) -> Result<Model> {
    let model = manifest::open(dir.as_ref())?;
    for component in &model.components {
        let stock = stock_graph(component)?;
        let ours = &component.graph;
        let Some(stock) = stock else { continue };
        if stock.parameters() != ours.parameters() || stock.nodes.len() != ours.nodes.len() {
            let message = format!(
                "stock loaders see {} parameters in {} operators; the graph has {} in {}",
                stock.parameters(),
                stock.nodes.len(),
                ours.parameters(),
                ours.nodes.len()
            );
            return Err(ModelError::Verify { path: component.path.clone(), message });
        }
    }
    Ok(model)
}

/// The graph that a stock loader builds from what is in a component's directory; none where there is no config for one.
fn stock_graph(component: &Component) -> Result<Option<Graph>> {
    let file: &Checkpoint = component.weights("verifying")?;
    let dir = &component.path;
    let config_path = dir.join("config.json");
    if file.format() == Format::Gguf {
        return Ok(Some(gguf::import(file)?.graph));
    }
    if file.format() == Format::Onnx {
        let mut again = Checkpoint::open(file.path())?;
        let found = onnx::import(&mut again)?.graph;
        if found.outputs.len() != component.graph.outputs.len() + component.graph.states.len() {
            let message = "does not give the outputs that the graph has".to_owned();
            return Err(ModelError::Verify { path: file.path().to_owned(), message });
        }
        return Ok(None);
    }
    if !config_path.is_file() {
        return Ok(None);
    }
    let config = read_object(&config_path)?;
    let Some((known, _)) = families::of_config(&config) else { return Ok(None) };
    let mut graph = known.graph(&Fields::new(&config_path, &config)?)?;
    import_by_name(dir, &mut graph, file, &|_| Vec::new(), &|n| known.transposed(n))?;
    Ok(Some(graph))
}
