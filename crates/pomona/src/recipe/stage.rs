//! A stage: a command and its options.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use toml::{Table, Value};

use super::{expand, nearest, options};

/// A stage of a recipe.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The command.
    pub command: &'static str,
    /// Its name among the results.
    pub label: String,
    /// eval, verify, export: the stage whose output is meant, or `model`; the last model without it.
    pub of: Option<String>,
    /// Options and their values; none for a flag.
    pub given: Vec<(String, Option<String>)>,
}

impl Stage {
    /// Reads a table. Dashes and underscores in keys are one.
    pub(super) fn read(command: &'static str, label: String, table: &Table) -> Result<Stage> {
        let known = options(command);
        let mut stage = Stage { command, label, of: None, given: Vec::new() };
        for (key, value) in table {
            let name = key.replace('_', "-");
            if name == "of" && matches!(command, "eval" | "verify" | "export") {
                stage.of = Some(scalar(key, value)?);
                continue;
            }
            let Some(option) = known.iter().find(|k| k.name == name) else {
                let names: Vec<&str> = known.iter().map(|k| k.name.as_str()).collect();
                bail!("the key `{key}` is not known{}", nearest(&name, &names));
            };
            match value {
                Value::Boolean(on) if option.is_flag => {
                    stage.given.extend(on.then(|| (name.clone(), None)));
                }
                _ if option.is_flag => bail!("`{key}` is {value}; true or false was expected"),
                Value::Array(many) => {
                    for one in many {
                        stage.given.push((name.clone(), Some(scalar(key, one)?)));
                    }
                }
                one => stage.given.push((name.clone(), Some(scalar(key, one)?))),
            }
        }
        stage.check()?;
        Ok(stage)
    }

    /// Words of the command line for the options.
    pub fn words(&self) -> Vec<String> {
        let word = |(name, value): &(String, Option<String>)| match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        };
        self.given.iter().map(word).collect()
    }

    /// Refuses values that the command would not take, before any stage has begun. What the recipe fills in stands for
    /// itself.
    pub(super) fn check(&self) -> Result<()> {
        let mut words = vec!["pomona".to_owned(), self.command.to_owned(), "MODEL".to_owned()];
        let filled: &[&str] = match self.command {
            "apply" => &["--plan=PLAN", "--out=OUT"],
            "distill" if self.takes_model("teacher") => &["--teacher=MODEL", "--out=OUT"],
            "verify" | "eval" => &[],
            _ => &["--out=OUT"],
        };
        words.extend(filled.iter().map(|w| (*w).to_owned()));
        words.extend(self.words());
        match crate::args::Cli::try_parse_from(words) {
            Ok(_) => Ok(()),
            Err(e) => {
                // Its first paragraph; what follows is about the command line.
                let text = e.to_string();
                let said: Vec<&str> = text.lines().take_while(|l| !l.is_empty()).map(str::trim).collect();
                bail!("{}", said.join(" ").trim_start_matches("error: "))
            }
        }
    }

    /// Whether an option is given.
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(n, _)| n == name)
    }

    /// Options that name files or directories which are there, and those, line ranges left out.
    pub fn inputs(&self) -> Vec<(&str, PathBuf)> {
        let path = |v: &str| {
            let whole = PathBuf::from(v);
            let cut = v.rsplit_once(':').map(|(path, _)| PathBuf::from(path));
            if whole.exists() { Some(whole) } else { cut.filter(|p| p.exists()) }
        };
        self.given.iter().filter_map(|(name, v)| Some((name.as_str(), path(v.as_deref()?)?))).collect()
    }

    /// Whether the recipe's model stands for an option that is not given.
    pub fn takes_model(&self, option: &str) -> bool {
        self.command == "distill" && option == "teacher" && !self.has(option)
    }
}

fn scalar(key: &str, value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(s) => expand(s)?,
        Value::Integer(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Boolean(b) => b.to_string(),
        other => bail!("`{key}` is {other}; a text, a number or a list of them was expected"),
    })
}
