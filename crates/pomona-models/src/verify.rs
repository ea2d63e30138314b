//! What goes out comes back in: an output is opened again, as this program and as stock loaders read it.

use std::path::Path;

use pomona_store::{Checkpoint, Format};

use crate::config::{Fields, read_object};
use crate::error::{ModelError, Result};
use crate::families;
use crate::gguf;
use crate::manifest;
use crate::model::{Model, import_by_name};

/// Opens an output directory and checks every shape: the graph of `pomona.json` against the files, and, where a stock
/// loader is to read them, the graph that it would build from config.json or the GGUF metadata.
///
/// # Errors
/// [`ModelError::Verify`] where the stock graph differs; others as [`crate::open`].
pub fn verify_output(dir: impl AsRef<Path>) -> Result<Model> {
    let dir = dir.as_ref();
    let model = manifest::open(dir)?;
    let config_path = dir.join("config.json");
    let file: &Checkpoint = model.weights("verifying")?;
    let stock = if file.format() == Format::Gguf {
        Some(gguf::import(file)?.graph)
    } else if config_path.is_file() {
        let config = read_object(&config_path)?;
        match families::of_config(&config) {
            Some(family) => {
                let mut graph = family.graph(&Fields::new(&config_path, &config)?)?;
                import_by_name(dir, &mut graph, file, &str::to_owned)?;
                Some(graph)
            }
            None => None,
        }
    } else {
        None
    };
    let ours = model.graph()?;
    match stock {
        Some(stock) if stock.parameters() != ours.parameters() || stock.nodes.len() != ours.nodes.len() => {
            let message = format!(
                "stock loaders see {} parameters in {} operators; the graph has {} in {}",
                stock.parameters(),
                stock.nodes.len(),
                ours.parameters(),
                ours.nodes.len()
            );
            Err(ModelError::Verify { path: dir.to_owned(), message })
        }
        _ => Ok(model),
    }
}
