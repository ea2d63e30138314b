//! `pomona init`.

use anyhow::Result;
use pomona_models::{InitOptions, init};

use crate::args::Init;
use crate::ui::Ui;

pub fn run(a: &Init, ui: &Ui) -> Result<()> {
    let bar = ui.byte_bar("writing");
    let options = InitOptions {
        seed: a.seed,
        dtype: super::encoding(a.dtype),
        force: a.force,
        ..InitOptions::default()
    };
    let path = init(&a.config, &options, &a.out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let path = path?;
    ui.result(&serde_json::json!({"path": path}), || format!("wrote {}", path.display()))
}
