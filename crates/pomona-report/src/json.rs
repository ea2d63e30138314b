//! JSON on stdout: one document, indented, with a final newline.

use serde::Serialize;

/// The document of any report.
pub fn to_json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    #[test]
    fn a_document_ends_with_a_newline() {
        assert_eq!(
            super::to_json(&serde_json::json!({ "b": 1, "a": [2] })).unwrap(),
            "{\n  \"b\": 1,\n  \"a\": [\n    2\n  ]\n}\n"
        );
    }
}
