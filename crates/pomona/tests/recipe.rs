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
}
