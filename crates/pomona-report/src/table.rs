//! Tables of aligned columns, by the width that a terminal gives each character.

use unicode_width::UnicodeWidthStr;

use crate::style::Style;

/// Side to which a column's cells go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Columns with a heading, then rows.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self { columns: columns.iter().map(|(n, a)| ((*n).to_owned(), *a)).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, further ones are left out.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> =
            cells.into_iter().map(|c| printable(&c.into())).take(self.columns.len()).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines with a newline each, two spaces between columns, none at the end of a line. A column without any cell
    /// is left out.
    pub fn render(&self, style: Style) -> String {
        let used: Vec<usize> =
            (0..self.columns.len()).filter(|&c| self.rows.iter().any(|r| !r[c].is_empty())).collect();
        let width = |c: usize| {
            let cells = self.rows.iter().map(|r| r[c].width());
            cells.max().unwrap_or(0).max(self.columns[c].0.width())
        };
        let widths: Vec<usize> = used.iter().map(|&c| width(c)).collect();
        let line = |cell: &dyn Fn(usize) -> String| {
            let mut text = String::new();
            for (i, (&c, &w)) in used.iter().zip(&widths).enumerate() {
                let cell = cell(c);
                let gap = " ".repeat(w.saturating_sub(cell.width()));
                let between = if i == 0 { "" } else { "  " };
                match self.columns[c].1 {
                    Align::Left => text += &format!("{between}{cell}{gap}"),
                    Align::Right => text += &format!("{between}{gap}{cell}"),
                }
            }
            text.trim_end().to_owned()
        };
        let mut out = style.bold(&line(&|c| self.columns[c].0.clone())) + "\n";
        for row in &self.rows {
            out += &line(&|c| row[c].clone());
            out.push('\n');
        }
        out
    }
}

/// Names come from files: control characters in them must not reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_combining_characters_keep_columns_straight() {
        let mut t = Table::new(&[("name", Align::Left), ("n", Align::Right), ("empty", Align::Left)]);
        t.row(["重み", "1"]);
        t.row(["e\u{301}tage", "200"]);
        t.row(["plain", "30", ""]);
        assert_eq!(t.render(Style::Plain), "name     n\n重み     1\ne\u{301}tage  200\nplain   30\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut t = Table::new(&[("name", Align::Left)]);
        t.row(["a\x1b[2Jb\n"]);
        assert_eq!(t.render(Style::Plain), "name\na\u{fffd}[2Jb\u{fffd}\n");
    }

    #[test]
    fn emphasis_does_not_shift_columns() {
        let mut t = Table::new(&[("a", Align::Left), ("b", Align::Right)]);
        t.row(["xyz", "1"]);
        assert_eq!(t.render(Style::Ansi), "\x1b[1ma    b\x1b[0m\nxyz  1\n");
    }
}
