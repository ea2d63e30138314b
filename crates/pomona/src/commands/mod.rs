//! One file a command.

mod apply;
mod compact;
mod compress;
mod devices;
mod eval;
mod eval_choice;
mod eval_images;
mod eval_repetition;
mod explain;
mod export;
mod filters;
mod generate;
mod init;
mod inspect;
mod pictures;
mod plan;
mod run;
mod score;
mod train;
mod verify;
mod written;

use anyhow::Result;
use pomona_models::OutputFormat;
use pomona_store::Encoding;

use crate::args::{Command, Dtype, Format};
use crate::ui::Ui;

/// Runs a command.
pub fn run(command: &Command, ui: &Ui) -> Result<()> {
    match command {
        Command::Inspect(a) => inspect::run(a, ui),
        Command::Init(a) => init::run(a, ui),
        Command::Score(a) => score::run(a, ui),
        Command::Plan(a) => plan::run(a, ui),
        Command::Apply(a) => apply::run(a, ui),
        Command::Verify(a) => verify::run(a, ui),
        Command::Compress(a) => compress::run(a, ui),
        Command::Export(a) => export::run(a, ui),
        Command::Finetune(a) => train::finetune(a, ui),
        Command::Distill(a) => train::distill(a, ui),
        Command::Run(a) => run::run(a, ui),
        Command::Recipe(a) => run::recipe(a, ui),
        Command::Eval(a) => eval::run(a, ui),
        Command::Generate(a) => generate::run(a, ui),
        Command::Devices(a) => devices::run(a, ui),
        Command::Explain(a) => explain::run(a, ui),
    }
}

fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::F32 => Encoding::F32,
        Dtype::F16 => Encoding::F16,
        Dtype::Bf16 => Encoding::Bf16,
    }
}

fn output_format(format: Option<Format>) -> OutputFormat {
    match format {
        None => OutputFormat::Auto,
        Some(Format::Hf) => OutputFormat::Hf,
        Some(Format::Gguf) => OutputFormat::Gguf,
        Some(Format::Onnx) => OutputFormat::Onnx,
        Some(Format::Pomona) => OutputFormat::Pomona,
    }
}
