//! Pomona: makes trained neural networks small and fast. Arguments, progress and exit codes; the work is in the libraries.

mod args;
mod commands;
mod context;
mod eval_args;
mod filter_args;
mod recipe;
mod train_args;
mod ui;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static MEMORY: pomona_exec::Memory = pomona_exec::Memory;

/// Exit codes: 0 done, 1 could not be done, 2 wrong use (clap's own).
fn main() -> ExitCode {
    pomona_models::tokenizer::silence_caught_panics();
    let cli = args::Cli::parse();
    if let Err(e) = pomona_exec::check_instructions() {
        ui::Ui::new(cli.quiet, cli.json).error(&anyhow::Error::msg(e));
        return ExitCode::FAILURE;
    }
    match cli.command.runs_networks() {
        true => {
            pomona_exec::keep_freed_memory();
            pomona_exec::among_workers(|| command(&cli)).unwrap_or_else(|e| {
                ui::Ui::new(cli.quiet, cli.json).error(&e.into());
                ExitCode::FAILURE
            })
        }
        false => command(&cli),
    }
}

fn command(cli: &args::Cli) -> ExitCode {
    let ui = ui::Ui::new(cli.quiet, cli.json);
    match commands::run(&cli.command, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if ui::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            ui.error(&e);
            ExitCode::from(if e.is::<args::Usage>() { 2 } else { 1 })
        }
    }
}
