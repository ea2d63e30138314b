//! `pomona export`.

use anyhow::{Result, bail};
use pomona_graph::Recipe;
use pomona_models::save;

use crate::args::Export;
use crate::context::open_model;
use crate::ui::Ui;

pub fn run(a: &Export, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    // Of a pipeline every component is written; which one is named makes no difference where nothing changes.
    let Some(graph) = model.components.first().map(|c| &c.graph) else { bail!("the model has no component") };
    let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    let options = super::apply::options(&a.write, None);
    let bar = ui.byte_bar("writing");
    let saved = save(&model, graph, &recipe, &options, &a.write.out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let saved = saved?;
    ui.result(&super::apply::document(&saved), || super::apply::describe(&saved))
}
