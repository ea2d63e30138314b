//! A whole recipe through the command line: kept stages, changed ones, wrong keys.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Folder;

const RECIPE: &str = r#"
model = "model"
folder = "done"

[score]
criterion = "magnitude"

[plan]
target = "blocks=2"

[apply]

[finetune]
data = ["text.txt:1-30"]
seq = 24
batch = 2
steps = 40
lr = 3e-3

[verify]

[[eval]]
task = "perplexity"
data = "text.txt:31-40"
tokens = 24

[[eval]]
of = "apply"
task = "perplexity"
data = "text.txt:31-40"
tokens = 24

[export]
format = "gguf"
dtype = "f16"
"#;

/// Stages that ran and stages that were kept.
fn run(folder: &Folder) -> (Vec<String>, Vec<String>) {
    let done = folder.run(&["run", "recipe.toml"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    let stages = |end: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|l| l.split_once(": ").filter(|(_, w)| w.starts_with(end)));
        lines.map(|(stage, _)| stage.to_owned()).collect()
    };
    (stages("pomona "), stages("kept"))
}

#[test]
fn stages_are_done_once_and_again_only_where_something_changed() {
    let folder = Folder::new();
    folder.write("recipe.toml", RECIPE);
    let all = ["score", "plan", "apply", "finetune", "verify", "eval", "eval-2", "export"];
    assert_eq!(run(&folder).0, all);
    assert_eq!(run(&folder), (Vec::new(), all.map(str::to_owned).to_vec()));
    let of = |file: &str| folder.json(file)["perplexity"].as_f64().unwrap();
    assert!(of("done/eval.result.json") < 0.5 * of("done/eval-2.result.json"), "training helps");
    assert!(folder.path("done/exported/model.gguf").is_file());
    // Another rate: the cut is kept, and what is measured of it.
    folder.write("recipe.toml", &RECIPE.replace("lr = 3e-3", "lr = 2e-3"));
    assert_eq!(
        run(&folder),
        (
            ["finetune", "verify", "eval", "export"].map(str::to_owned).to_vec(),
            ["score", "plan", "apply", "eval-2"].map(str::to_owned).to_vec()
        )
    );
    // Another text behind the same name.
    folder.write("text.txt", &folder.read("text.txt").replace("ladder", "bucket"));
    let (again, _) = run(&folder);
    assert_eq!(again, ["finetune", "verify", "eval", "eval-2", "export"]);
    // A result that went missing.
    std::fs::remove_dir_all(folder.path("done/exported")).unwrap();
    assert_eq!(run(&folder).0, ["export"]);
}

#[test]
fn wrong_keys_are_named_with_the_nearest_known_one() {
    let folder = Folder::bare();
    for (from, to, part) in [
        ("[finetune]", "[fintune]", "the key `fintune` is not known: `finetune` is"),
        ("batch = 2", "bacth = 2", "[finetune]: the key `bacth` is not known: `batch` is"),
        ("target = ", "zzzzzz = ", "the key `zzzzzz` is not known; there are"),
        ("model = \"model\"", "", "has no `model`"),
        ("folder = \"done\"", "folder = \"${NO_SUCH_THING}\"", "the environment has no NO_SUCH_THING"),
        ("lr = 3e-3", "lr = { a = 1 }", "`lr` is"),
        (
            "lr = 3e-3",
            "lr = \"fast\"",
            "[finetune]: invalid value 'fast' for '--lr <LR>': `fast`: a number above 0",
        ),
        ("criterion = \"magnitude\"", "samples = 0", "a whole number from 1"),
        ("data = [\"text.txt:1-30\"]", "", "--data <FILE>"),
        ("[score]", "[score", "recipe.toml"),
    ] {
        folder.write("recipe.toml", &RECIPE.replace(from, to));
        let done = folder.run(&["run", "recipe.toml"]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(
            done.status.code() == Some(1) && said.contains(part) && said.contains("recipe.toml"),
            "{said}"
        );
    }
}

#[test]
fn explaining_shows_every_default() {
    let folder = Folder::bare();
    folder.write("recipe.toml", RECIPE);
    let text = folder.ok(&["recipe", "explain", "recipe.toml"]);
    for part in [
        "batch = \"2\"  # given",
        "accumulate = \"1\"  # default",
        "lora-rank = -  # not set",
        "[eval-2]",
        "not in the recipe: distill",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let document = folder.document(&["recipe", "explain", "recipe.toml"]);
    assert_eq!(document["finetune"]["betas"]["value"], "0.9,0.999");
    assert_eq!(document["finetune"]["lr"]["from"], "given");
    folder.write("distill.toml", "model = \"m\"\n[distill]\ndata = [\"text.txt\"]\nsteps = 1\n");
    let document = folder.document(&["recipe", "explain", "distill.toml"]);
    assert_eq!(
        (&document["distill"]["teacher"]["value"], &document["distill"]["teacher"]["from"]),
        (&"m".into(), &"the recipe's model".into())
    );
}

#[test]
fn a_stopped_recipe_goes_on_inside_its_training() {
    let folder = Folder::new();
    let long = RECIPE.replace("steps = 40", "steps = 400\nsave_steps = 50");
    folder.write("recipe.toml", &long);
    let mut child =
        folder.command(&["-q", "run", "recipe.toml"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let log = folder.path("done/finetuned.train/log.jsonl");
    let began = std::time::Instant::now();
    while std::fs::read_to_string(&log).map_or(0, |t| t.lines().count()) < 20 {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed().as_secs() < 120);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.code() == Some(1)
            && said.contains("stopped after step")
            && said.contains("stage finetune"),
        "{said}"
    );
    let (ran, kept) = run(&folder);
    assert_eq!((ran[0].as_str(), kept), ("finetune", ["score", "plan", "apply"].map(str::to_owned).to_vec()));
    let result = folder.json("done/finetune.result.json");
    assert!(result["resumed_at"].as_u64().unwrap() >= 20 && result["steps"] == 400, "{result}");
}

#[test]
fn the_recipes_of_the_project_are_sound() {
    let folder = Folder::bare();
    let recipes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(recipes).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = path.display().to_string();
        let mut command = folder.command(&["recipe", "explain", &text]);
        let named = [("MODEL", "m"), ("WRITTEN", "w"), ("POMONA_DATA", "d")];
        let done = command.envs(named).output().unwrap();
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
        seen += 1;
    }
    assert!(seen > 0);
}
