//! Recipes: a pipeline in TOML. A stage is a table whose keys are the options of the command of its name, so that a recipe can
//! say all that the command line can and nothing else.

mod kept;
mod options;
mod stage;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

pub use kept::{Kept, Record, hash_data, hash_model};
pub use options::{nearest, options};
pub use stage::Stage;

/// Stages in the order in which they run.
pub const STAGES: [&str; 8] = ["score", "plan", "apply", "finetune", "distill", "verify", "eval", "export"];
/// Keys beside the stages.
const KEYS: [&str; 2] = ["model", "folder"];

/// A recipe.
pub struct Recipe {
    /// The model that it begins from.
    pub model: PathBuf,
    /// Where results are kept.
    pub folder: PathBuf,
    /// What is done, in order.
    pub stages: Vec<Stage>,
}

impl Recipe {
    /// Reads a recipe. `${NAME}` in a text stands for the environment variable.
    pub fn read(path: &Path) -> Result<Recipe> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
        let table: Table = text.parse().map_err(|e: toml::de::Error| anyhow::anyhow!("{name}: {e}"))?;
        let known: Vec<&str> = KEYS.iter().chain(&STAGES).copied().collect();
        for key in table.keys() {
            if !known.contains(&key.as_str()) {
                bail!("{name}: the key `{key}` is not known{}", nearest(key, &known));
            }
        }
        let text_of = |key: &str| -> Result<Option<String>> {
            match table.get(key) {
                None => Ok(None),
                Some(Value::String(s)) => Ok(Some(expand(s).with_context(|| format!("{name}: {key}"))?)),
                Some(other) => bail!("{name}: `{key}` is {other}; a text was expected"),
            }
        };
        let Some(model) = text_of("model")? else { bail!("{name}: has no `model`: the model to begin from") };
        let folder = match text_of("folder")? {
            Some(folder) => PathBuf::from(folder),
            None => path.with_extension("run"),
        };
        let mut stages = Vec::new();
        for command in STAGES {
            let tables: Vec<&Table> = match table.get(command) {
                None => continue,
                Some(Value::Table(one)) => vec![one],
                Some(Value::Array(many)) => {
                    let tables: Option<Vec<&Table>> = many.iter().map(Value::as_table).collect();
                    tables.with_context(|| format!("{name}: `{command}` is no list of tables"))?
                }
                Some(_) => bail!("{name}: `{command}` is no table: [{command}] was expected"),
            };
            if tables.len() > 1 && command != "eval" {
                bail!(
                    "{name}: has {} tables [[{command}]]: only eval can be done more than once",
                    tables.len()
                );
            }
            for (i, table) in tables.iter().enumerate() {
                let label = if i == 0 { command.to_owned() } else { format!("{command}-{}", i + 1) };
                stages.push(
                    Stage::read(command, label, table).with_context(|| format!("{name}: [{command}]"))?,
                );
            }
        }
        if stages.is_empty() {
            bail!("{name}: has no stage; there are {}", STAGES.join(", "));
        }
        Ok(Recipe { model: model.into(), folder, stages })
    }
}

/// `${NAME}` replaced by the environment variable.
fn expand(text: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').with_context(|| format!("`{text}`: has `${{` without `}}`"))?;
        let value =
            std::env::var(name).map_err(|_| anyhow::anyhow!("`{text}`: the environment has no {name}"))?;
        out += before;
        out += &value;
        rest = after;
    }
    Ok(out + rest)
}
