//! The program on one hostile file: what it may do.

use std::path::Path;
use std::process::Command;

use crate::common::Folder;

/// Anonymous memory beside what the file itself is worth.
const MEMORY: u64 = 64 << 20;
/// Bytes of memory that a byte of a header may honestly take.
const WORTH: u64 = 8;
/// Seconds; a hang is a finding too.
const SECONDS: &str = "60";

const TAKEN: &str = "takes it";

/// Attacks of a file that were not refused as they should, all told at once.
pub struct Trial<'a> {
    pub folder: &'a Folder,
    /// The hostile file, from the folder.
    pub file: &'static str,
    /// Commands that read it.
    pub commands: &'a [&'a [&'a str]],
    wrong: Vec<String>,
    runs: usize,
}

impl<'a> Trial<'a> {
    pub fn new(folder: &'a Folder, file: &'static str, commands: &'a [&'a [&'a str]]) -> Trial<'a> {
        Trial { folder, file, commands, wrong: Vec::new(), runs: 0 }
    }

    /// Writes the file and runs the commands on it.
    pub fn attack(&mut self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path(self.file), bytes).unwrap();
        self.refused(name);
    }

    /// Runs the commands on what the folder holds.
    pub fn refused(&mut self, name: &str) {
        for words in self.commands {
            let before = tree(&self.folder.path(""));
            let fault = self.fault(words).or_else(|| {
                let mut after = tree(&self.folder.path(""));
                after.retain(|name| !self.unfinished(name));
                (after != before).then(|| format!("left {after:?} of {before:?}"))
            });
            self.runs += 1;
            for left in tree(&self.folder.path("")).iter().filter(|n| !before.contains(n) && !n.contains('/'))
            {
                let path = self.folder.path(left);
                if path.is_dir() {
                    std::fs::remove_dir_all(path).unwrap()
                } else {
                    std::fs::remove_file(path).unwrap()
                }
            }
            if let Some(fault) = fault {
                self.wrong.push(format!("{name}: pomona {}: {fault}", words.join(" ")));
            }
        }
    }

    /// Writes the file and runs the commands, which may take it.
    pub fn harmless(&mut self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path(self.file), bytes).unwrap();
        for words in self.commands {
            self.runs += 1;
            if let Some(fault) = self.fault(words).filter(|f| f != TAKEN) {
                self.wrong.push(format!("{name}: pomona {}: {fault}", words.join(" ")));
            }
        }
    }

    /// Scoring that breaks off leaves what it has, and says in the file that it is not whole.
    fn unfinished(&self, name: &str) -> bool {
        let path = self.folder.path(name);
        let scores = name.ends_with("s.json") && path.is_file();
        scores && String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains("\"complete\": false")
    }

    fn fault(&self, words: &[&str]) -> Option<String> {
        let size = std::fs::metadata(self.folder.path(self.file)).map_or(0, |m| m.len());
        let limit = format!("--data={}", MEMORY + WORTH * size);
        // Both programs become the next one, so that the exit status is the program's own.
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", SECONDS, "prlimit", &limit]);
        let inner = self.folder.command(words);
        command
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(self.folder.path(""))
            .env("RUST_BACKTRACE", "0");
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let done = command.output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        let short: String = errors.chars().take(600).collect();
        let name = Path::new(self.file).file_name().unwrap().to_string_lossy();
        let folder = Path::new(self.file).parent().unwrap().to_string_lossy();
        let named =
            errors.contains(name.as_ref()) || (!folder.is_empty() && errors.contains(folder.as_ref()));
        match done.status.code() {
            Some(1 | 2) if errors.contains("panicked") => Some(format!("panics: {short}")),
            Some(1 | 2) if !named => Some(format!("does not name {name}: {short}")),
            Some(1 | 2) if !done.stdout.is_empty() => Some("prints something on stdout".to_owned()),
            Some(1 | 2) if errors.len() > 20_000 => Some(format!("says {} bytes: {short}", errors.len())),
            Some(1 | 2) => None,
            Some(0) => Some(TAKEN.to_owned()),
            other => Some(format!("ends with {other:?} ({}): {short}", done.status)),
        }
    }

    /// Every fault, or the number of runs.
    #[track_caller]
    pub fn end(self) {
        println!("{} runs on {}", self.runs, self.file);
        assert!(
            self.wrong.is_empty(),
            "{} of {} runs:\n{}",
            self.wrong.len(),
            self.runs,
            self.wrong.join("\n")
        );
    }
}

/// Every file and directory below, but for caches.
fn tree(path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() && name != "cache" {
            out.extend(tree(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        }
        out.push(name);
    }
    out.sort();
    out
}

/// Lengths at which a file is cut: every byte of the first hundred, and about `more` places behind them.
pub fn cuts(len: usize, more: usize) -> Vec<usize> {
    let step = (len / more.max(1)).max(1);
    (0..len.min(100)).step_by(3).chain((100..len).step_by(step)).chain(len.checked_sub(1)).collect()
}
