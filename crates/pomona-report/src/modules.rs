//! The tree of modules as a table.

use pomona_cost::{CostReport, ModuleCost};

use crate::style::Style;
use crate::table::{Align, Table};
use crate::units::{bytes, operations, parameters, share};

/// What the tree shows.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Levels below the root.
    pub depth: usize,
    /// Whether equal neighbours (the layers of a stack) share a line.
    pub repeats: Repeats,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { depth: 3, repeats: Repeats::Together }
    }
}

/// How equal neighbours are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// One line for all, with the numbers of one.
    Together,
    /// A line each.
    Apart,
}

/// The tree under a heading line.
pub fn module_table(report: &CostReport, options: &TreeOptions, style: Style) -> String {
    let mut table = Table::new(&[
        ("module", Align::Left),
        ("class", Align::Left),
        ("parameters", Align::Right),
        ("share", Align::Right),
        ("weights", Align::Right),
        ("MACs", Align::Right),
    ]);
    let mut tree = Tree { table: &mut table, options, whole: report.parameters };
    // The root has the component's name, which a module below it often has too.
    tree.line(&report.modules, "", "total", "");
    tree.children(&report.modules, "", 0);
    table.render(style)
}

struct Tree<'a> {
    table: &'a mut Table,
    options: &'a TreeOptions,
    whole: u64,
}

impl Tree<'_> {
    fn line(&mut self, m: &ModuleCost, indent: &str, name: &str, class: &str) {
        let empty_or = |n: u64, text: String| if n == 0 { String::new() } else { text };
        self.table.row([
            format!("{indent}{name}"),
            class.to_owned(),
            empty_or(m.parameters, parameters(m.parameters)),
            empty_or(m.parameters, share(m.parameters, self.whole)),
            empty_or(m.weight_bytes, bytes(m.weight_bytes)),
            empty_or(m.macs.full, operations(m.macs.full)),
        ]);
    }

    fn children(&mut self, module: &ModuleCost, indent: &str, level: usize) {
        if level >= self.options.depth {
            return;
        }
        let mut rest = module.children.as_slice();
        while let Some(first) = rest.first() {
            let n = match self.options.repeats {
                Repeats::Together => rest.iter().take_while(|m| same_cost(m, first)).count(),
                Repeats::Apart => 1,
            };
            let last = &rest[n - 1];
            rest = &rest[n..];
            let (branch, below) = if rest.is_empty() { ("└ ", "  ") } else { ("├ ", "│ ") };
            let class = first.class.as_deref().unwrap_or_default();
            let (name, class) = match n {
                1 => (first.name.clone(), class.to_owned()),
                _ => (
                    format!("{}-{}", first.name, last.name),
                    format!("{n} x {class}").trim_end().to_owned() + ", each",
                ),
            };
            self.line(first, &format!("{indent}{branch}"), &name, &class);
            self.children(first, &format!("{indent}{below}"), level + 1);
        }
    }
}

/// Numbered neighbours that differ in nothing that the table shows.
fn same_cost(a: &ModuleCost, b: &ModuleCost) -> bool {
    let numbered = |m: &ModuleCost| m.name.bytes().all(|c| c.is_ascii_digit());
    std::ptr::eq(a, b)
        || numbered(a)
            && numbered(b)
            && (a.parameters, a.weight_bytes, a.macs, &a.class)
                == (b.parameters, b.weight_bytes, b.macs, &b.class)
            && a.children.len() == b.children.len()
            && a.children.iter().zip(&b.children).all(|(x, y)| {
                (&x.name, x.parameters, x.weight_bytes, x.macs)
                    == (&y.name, y.parameters, y.weight_bytes, y.macs)
            })
}
