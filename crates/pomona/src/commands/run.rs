//! `pomona run`: the stages of a recipe, each in a process of its own, so that one's memory is free for the next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pomona_report::units;
use serde_json::{Value, json};

use crate::args::{RecipeCommand, RunRecipe};
use crate::recipe::{Kept, Recipe, Record, STAGES, Stage, hash_data, hash_model, options};
use crate::ui::Ui;

pub fn run(a: &RunRecipe, ui: &Ui) -> Result<()> {
    let recipe = Recipe::read(&a.recipe)?;
    let folder = &recipe.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let mut kept = Kept::read(folder)?;
    // What each stage's result is called, and the key of what made it.
    let mut made: BTreeMap<String, (PathBuf, String)> = BTreeMap::new();
    made.insert("model".to_owned(), (recipe.model.clone(), hash_model(&recipe.model)?));
    let mut current = "model".to_owned();
    let mut results = serde_json::Map::new();
    for stage in &recipe.stages {
        let plan = prepare(stage, &recipe, &made, &current)?;
        let result = folder.join(format!("{}.result.json", stage.label));
        let there = plan.output.as_ref().is_none_or(|o| o.exists()) && result.is_file();
        let before = kept.0.get(&stage.label).filter(|r| r.key == plan.key).cloned();
        if before.as_ref().is_some_and(|r| r.done) && there {
            ui.say(format!("{}: kept", stage.label));
        } else {
            let resumes = before.is_some() && matches!(stage.command, "finetune" | "distill");
            let words = plan.command(stage.command, resumes);
            ui.say(format!("{}: pomona {}", stage.label, words.join(" ")));
            let began = Instant::now();
            let mut record =
                Record { key: plan.key.clone(), words: words.clone(), done: false, seconds: 0.0 };
            kept.0.insert(stage.label.clone(), record.clone());
            kept.write(folder)?;
            if stage.command == "score"
                && before.is_none()
                && let Some(old) = plan.output.as_ref().filter(|o| o.exists())
            {
                std::fs::remove_file(old).with_context(|| old.display().to_string())?;
            }
            let document = child(&words, ui).with_context(|| format!("stage {}", stage.label))?;
            pomona_store::write_atomic(&result, document.as_bytes())?;
            (record.done, record.seconds) = (true, began.elapsed().as_secs_f64());
            ui.say(format!("{}: done in {}", stage.label, units::seconds(record.seconds)));
            kept.0.insert(stage.label.clone(), record);
            kept.write(folder)?;
        }
        let text = std::fs::read_to_string(&result).with_context(|| result.display().to_string())?;
        results.insert(stage.label.clone(), serde_json::from_str(&text).unwrap_or(Value::Null));
        if let Some(output) = plan.output {
            made.insert(stage.label.clone(), (output, plan.key));
            if matches!(stage.command, "apply" | "finetune" | "distill") {
                current.clone_from(&stage.label);
            }
        }
    }
    let (path, _) = &made[&current];
    let document = json!({"folder": folder, "model": path, "stages": results});
    ui.result(&document, || {
        let mut text = String::new();
        for (label, result) in &results {
            text += &format!("{label}: {}\n", summary(result));
        }
        text + &format!("{} holds every result\n", folder.display())
    })
}

/// The figures of a result that a person looks for.
fn summary(result: &Value) -> String {
    let keys = [
        "perplexity",
        "acc",
        "acc_norm",
        "repeated",
        "loss_first",
        "loss_last",
        "tokens_per_second",
        "dense",
        "path",
        "ran",
    ];
    let found =
        keys.iter().filter_map(|k| result.get(*k).filter(|v| !v.is_null()).map(|v| format!("{k} {v}")));
    let text = found.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "done".to_owned() } else { text }
}

/// A stage about to run.
struct Planned {
    /// Positional words and wiring.
    inputs: Vec<String>,
    options: Vec<String>,
    output: Option<PathBuf>,
    /// Of everything that the result depends on.
    key: String,
}

impl Planned {
    fn command(&self, command: &str, resumes: bool) -> Vec<String> {
        let mut words = vec![command.to_owned()];
        words.extend(self.inputs.iter().cloned());
        words.extend(self.options.iter().cloned());
        if let Some(output) = &self.output {
            words.extend(["-o".to_owned(), output.display().to_string()]);
            if command != "score" {
                words.push("--force".to_owned());
            }
        }
        words.extend(resumes.then(|| "--resume".to_owned()));
        words
    }
}

fn prepare(
    stage: &Stage,
    recipe: &Recipe,
    made: &BTreeMap<String, (PathBuf, String)>,
    current: &str,
) -> Result<Planned> {
    let of = |label: &str| {
        made.get(label).with_context(|| {
            let names: Vec<&str> = made.keys().map(String::as_str).collect();
            format!(
                "[{}] needs the result of `{label}`; before it there are {}",
                stage.command,
                names.join(", ")
            )
        })
    };
    let folder = &recipe.folder;
    let mut inputs = Vec::new();
    let mut keys = Vec::new();
    let mut take = |label: &str, option: Option<&str>| -> Result<()> {
        let (path, key) = of(label)?;
        inputs.extend(option.map(|o| format!("--{o}")));
        inputs.push(path.display().to_string());
        keys.push(key.clone());
        Ok(())
    };
    let output = match stage.command {
        "score" => {
            take("model", None)?;
            Some(folder.join("scores.json"))
        }
        "plan" => {
            take("model", None)?;
            if made.contains_key("score") {
                take("score", Some("scores"))?;
            }
            Some(folder.join("plan.json"))
        }
        "apply" => {
            take("model", None)?;
            take("plan", Some("plan"))?;
            Some(folder.join("pruned"))
        }
        "finetune" | "distill" => {
            take(current, None)?;
            if stage.takes_model("teacher") {
                take("model", Some("teacher"))?;
            }
            Some(folder.join(if stage.command == "distill" { "distilled" } else { "finetuned" }))
        }
        "export" => {
            take(stage.of.as_deref().unwrap_or(current), None)?;
            Some(folder.join("exported"))
        }
        _ => {
            take(stage.of.as_deref().unwrap_or(current), None)?;
            None
        }
    };
    let options = stage.words();
    let mut hash = blake3::Hasher::new();
    let input = |(option, path): &(&str, PathBuf)| match *option {
        "teacher" | "against" | "text-from" => hash_model(path),
        _ => hash_data(path),
    };
    let given = stage.inputs().iter().map(input).collect::<Result<Vec<_>>>()?;
    let parts = keys.iter().chain(&options).chain(&given).map(String::as_str);
    for part in [stage.command].into_iter().chain(parts) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    Ok(Planned { inputs, options, output, key: hash.finalize().to_hex().to_string() })
}

/// Runs this program again; what it says goes on to stderr, its document comes back. SIGINT and SIGTERM go on to it.
fn child(words: &[String], ui: &Ui) -> Result<String> {
    let program = std::env::current_exe().context("the program's own path is not known")?;
    let mut command = Command::new(program);
    command.arg("--json").args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    if ui.is_quiet() {
        command.arg("--quiet");
    }
    let asked = Arc::new(AtomicI32::new(0));
    let mut handlers = Vec::new();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let asked = Arc::clone(&asked);
        // SAFETY: an atomic store is safe in a signal handler.
        handlers.push(unsafe {
            signal_hook::low_level::register(signal, move || asked.store(signal, Ordering::Relaxed))
        }?);
    }
    let outcome = supervise(command, &asked);
    handlers.into_iter().for_each(|h| _ = signal_hook::low_level::unregister(h));
    outcome
}

fn supervise(mut command: Command, asked: &AtomicI32) -> Result<String> {
    let mut child = command.spawn().context("cannot be started")?;
    let mut out = child.stdout.take().context("has no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut out, &mut text).map(|_| text)
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if asked.swap(0, Ordering::Relaxed) != 0
            && let Some(pid) = rustix::process::Pid::from_raw(child.id().try_into().unwrap_or(0))
        {
            // One that has ended meanwhile needs no signal.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = reader.join().map_err(|_| anyhow::anyhow!("its output cannot be read"))??;
    if !status.success() {
        bail!("ended with {status}; the stages before it are kept, and the same command goes on with it");
    }
    Ok(text)
}

/// `pomona recipe explain`: every option of every stage, given or not.
pub fn recipe(a: &RecipeCommand, ui: &Ui) -> Result<()> {
    let RecipeCommand::Explain { recipe: path } = a;
    let recipe = Recipe::read(path)?;
    let mut document = serde_json::Map::new();
    let mut text =
        format!("model = \"{}\"\nfolder = \"{}\"\n", recipe.model.display(), recipe.folder.display());
    for stage in &recipe.stages {
        let mut table = serde_json::Map::new();
        text += &format!("\n[{}]\n", stage.label);
        for option in options(stage.command) {
            let given: Vec<&str> = stage
                .given
                .iter()
                .filter(|(n, _)| *n == option.name)
                .map(|(_, v)| v.as_deref().unwrap_or("true"))
                .collect();
            let (value, from) = match (given.as_slice(), &option.default) {
                ([], Some(default)) => (Value::from(default.as_str()), "default"),
                ([], None) if option.is_flag => (Value::from(false), "default"),
                ([], None) if stage.takes_model(&option.name) => {
                    (Value::from(recipe.model.to_string_lossy()), "the recipe's model")
                }
                ([], None) => (Value::Null, "not set"),
                ([one], _) => (Value::from(*one), "given"),
                (many, _) => (Value::from(many.to_vec()), "given"),
            };
            let shown = if value.is_null() { "-".to_owned() } else { value.to_string() };
            text += &format!("{} = {shown}  # {from}: {}\n", option.name, first_line(&option.help));
            table.insert(option.name.clone(), json!({"value": value, "from": from}));
        }
        document.insert(stage.label.clone(), Value::Object(table));
    }
    let left: Vec<&str> =
        STAGES.iter().copied().filter(|s| !recipe.stages.iter().any(|t| t.command == *s)).collect();
    if !left.is_empty() {
        text += &format!("\nnot in the recipe: {}\n", left.join(", "));
    }
    ui.result(&Value::Object(document), || text)
}

fn first_line(help: &str) -> &str {
    help.lines().next().unwrap_or_default()
}
