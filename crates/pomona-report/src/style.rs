//! Emphasis on a terminal.

/// Whether text is emphasised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Text alone: files, pipes, `NO_COLOR`.
    #[default]
    Plain,
    /// Bold headings and dim remarks by ANSI sequences.
    Ansi,
}

impl Style {
    /// The style for a stream: plain unless it is a terminal and `NO_COLOR` is unset or empty (no-color.org).
    pub fn for_stream(is_terminal: bool, no_color: Option<&std::ffi::OsStr>) -> Self {
        if is_terminal && no_color.is_none_or(|v| v.is_empty()) { Self::Ansi } else { Self::Plain }
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For remarks.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_pipes_are_plain() {
        let set = std::ffi::OsStr::new("1");
        assert_eq!(Style::for_stream(true, None), Style::Ansi);
        assert_eq!(Style::for_stream(true, Some(std::ffi::OsStr::new(""))), Style::Ansi);
        assert_eq!(Style::for_stream(true, Some(set)), Style::Plain);
        assert_eq!(Style::for_stream(false, None), Style::Plain);
    }
}
