//! The options of a command, from the command line's own definition.

use clap::{Arg, ArgAction, CommandFactory};

use crate::args::Cli;

/// Options that a recipe sets itself, or that say how a program speaks.
const OWN: [&str; 9] = ["out", "json", "quiet", "help", "version", "force", "resume", "scores", "plan"];

/// An option.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name without dashes.
    pub name: String,
    /// Whether it takes no value.
    pub is_flag: bool,
    /// What it is without being given.
    pub default: Option<String>,
    /// A line about it.
    pub help: String,
}

/// What a stage of this command can set.
pub fn options(command: &str) -> Vec<Known> {
    let cli = Cli::command();
    let found = cli.find_subcommand(command);
    let args = found.into_iter().flat_map(clap::Command::get_arguments);
    let known = |a: &Arg| {
        let name = a.get_long()?.to_owned();
        let is_flag = matches!(a.get_action(), ArgAction::SetTrue);
        let defaults: Vec<String> =
            a.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
        let default = (!defaults.is_empty() && !is_flag).then(|| defaults.join(","));
        let help = a.get_help().map(|h| h.to_string()).unwrap_or_default();
        (!OWN.contains(&name.as_str())).then_some(Known { name, is_flag, default, help })
    };
    args.filter_map(known).collect()
}

/// `: did you mean ...` where a known name is near, else the list.
pub fn nearest(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (strsim::normalized_damerau_levenshtein(k, key), k));
    match near.filter(|(n, _)| *n > 0.5).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, k)) => format!(": `{k}` is"),
        None => format!("; there are {}", known.join(", ")),
    }
}
