//! The model card: what the output is, what it was made from and how, and what was measured.

use super::options::{OutputFormat, SaveOptions};
use super::source_name;
use crate::model::Model;

/// README.md of an output directory, in the hub's layout.
pub(super) fn readme(model: &Model, format: OutputFormat, options: &SaveOptions) -> String {
    let base = source_name(model);
    let mut out = format!("---\nbase_model: {}\ntags:\n- pomona\n- pruned\n---\n\n", quoted(&base));
    out += &format!("# {base}, made smaller\n\nBase model: {base} (`{}`).\n", model.architecture);
    if let Some(plan) = &options.plan {
        let criterion = plan.criterion.as_ref().map(|c| format!(", criterion {c}")).unwrap_or_default();
        out += &format!("\n## What was done\n\nMethod {}{criterion}", plan.method);
        if let Some(target) = &plan.target {
            out += &format!(", target {} (reached: {})", target.asked, target.reached);
        }
        out += ".\n";
        if !plan.removed.is_empty() {
            let list: Vec<String> = plan.removed.iter().map(|r| format!("`{r}`")).collect();
            out += &format!("\nRemoved, least important first: {}.\n", list.join(", "));
        }
        out += "\n| | before | after |\n|---|---:|---:|\n";
        for (name, before, after) in [
            ("parameters", plan.before.parameters, plan.after.parameters),
            ("multiply-accumulates", plan.before.macs, plan.after.macs),
            ("bytes of weights", plan.before.weight_bytes, plan.after.weight_bytes),
        ] {
            out += &format!("| {name} | {} | {} |\n", grouped(before), grouped(after));
        }
        for f in &options.figures {
            out += &format!("| {} | {} | {} |\n", f.name, f.before, f.after);
        }
    } else if !options.figures.is_empty() {
        out += "\n| | before | after |\n|---|---:|---:|\n";
        for f in &options.figures {
            out += &format!("| {} | {} | {} |\n", f.name, f.before, f.after);
        }
    }
    out += "\n## Files\n\n";
    out += match format {
        OutputFormat::Pomona => {
            "The weights are safetensors under the original names; `pomona.json` holds the graph. No stock loader can hold \
             this shape: every pomona command reads the directory.\n"
        }
        _ => {
            "The directory loads in transformers as it is. `pomona.json` keeps the original name of every part and the \
             plans that led here.\n"
        }
    };
    out
}

/// A YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (6_738_415_616, "6,738,415,616")] {
            assert_eq!(super::grouped(n), text);
        }
    }
}
