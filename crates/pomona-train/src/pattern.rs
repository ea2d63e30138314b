//! Names with stars, as people write them: `q_proj`, `model.layers.2*.mlp.*`.

use std::str::FromStr;

use pomona_graph::glob;

/// Matches a path where it equals the path, or ends it after a dot. `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.trim() {
            "" => Err("an empty pattern matches nothing: give a name, stars allowed".to_owned()),
            s => Ok(Pattern(s.to_owned())),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Whether a path, or its end after a dot, is this.
    pub fn matches(&self, path: &str) -> bool {
        let ends = path.match_indices('.').map(|(at, _)| &path[at + 1..]);
        std::iter::once(path).chain(ends).any(|end| glob(&self.0, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ends_and_stars() {
        for (pattern, path, fits) in [
            ("q_proj", "model.layers.0.self_attn.q_proj", true),
            ("q_proj", "model.layers.0.self_attn.eq_proj", false),
            ("q_proj", "model.layers.0.q_proj.x", false),
            ("*_proj", "model.layers.0.self_attn.q_proj", true),
            ("model.layers.2*.mlp.*", "model.layers.21.mlp.up_proj", true),
            ("model.layers.2*.mlp.*", "model.layers.12.mlp.up_proj", false),
            ("layers.1.*", "model.layers.1.mlp", true),
            ("*", "anything", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).matches(path), fits, "{pattern} on {path}");
        }
    }
}
