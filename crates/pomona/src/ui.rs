//! What a person sees: progress and messages on stderr, results on stdout.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pomona_report::Style;
use serde::Serialize;

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    quiet: bool,
    json: bool,
}

impl Ui {
    /// From the global flags.
    pub fn new(quiet: bool, json: bool) -> Self {
        Self { quiet, json }
    }

    /// Whether stdout gets one JSON document.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether nothing but errors is to be said.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Emphasis on stdout.
    pub fn style(&self) -> Style {
        Style::for_stream(std::io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
    }

    /// A message on stderr.
    pub fn say(&self, message: impl AsRef<str>) {
        if !self.quiet {
            // Nobody reads it where stderr is closed.
            let _ = writeln!(std::io::stderr(), "{}", message.as_ref());
        }
    }

    /// An error on stderr, with its causes.
    pub fn error(&self, error: &anyhow::Error) {
        let mut text = String::new();
        for cause in error.chain() {
            let cause = cause.to_string();
            // Transparent errors repeat their cause.
            if !text.contains(&cause) {
                text += if text.is_empty() { "" } else { ": " };
                text += &cause;
            }
        }
        let _ = writeln!(std::io::stderr(), "error: {text}");
    }

    /// The result: text, or the document with `--json`.
    pub fn result<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let out = if self.json { serde_json::to_string_pretty(document)? } else { text() };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        if !out.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        Ok(stdout.flush()?)
    }

    /// Text on stdout as it is made; nothing with `--json`.
    pub fn stream(&self, text: &str) -> anyhow::Result<()> {
        if !self.json {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    }

    /// A bar over steps, with its estimate of the end.
    pub fn bar(&self, what: &str) -> ProgressBar {
        self.styled(what, "{msg:14} [{bar:30}] {percent:>3} %  {elapsed} elapsed, {eta} left")
    }

    /// A bar over bytes.
    pub fn byte_bar(&self, what: &str) -> ProgressBar {
        self.styled(what, "{msg:14} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
    }

    fn styled(&self, what: &str, template: &str) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        bar
    }
}

/// Whether an error is a reader that went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|e| e.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
