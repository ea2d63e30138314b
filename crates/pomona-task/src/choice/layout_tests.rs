#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;

use super::*;
use crate::choice::{Questions, read_questions};
use crate::data::TextRange;
use crate::error::Result as TaskResult;

fn read(name: &str, text: &str, layout: Option<Layout>, limit: Option<usize>) -> TaskResult<Questions> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    read_questions(&TextRange { path, lines: None }, layout, limit)
}

/// Layout as told by the keys, prompts with what is scored, and the answer.
fn shown(line: &str, layout: Option<Layout>) -> String {
    let found = read("q.jsonl", line, layout, None).unwrap();
    let template = found.layout.template(None).unwrap();
    let pairs = found.all[0].pairs(template);
    let mut out = format!("{} answer {}", found.layout.name(), found.all[0].answer);
    for pair in pairs {
        out += &format!("\n{:?} + {:?}", pair.context, pair.continuation);
    }
    out
}

#[test]
fn every_layout_gives_the_prompts_of_the_harness() {
    for (line, layout, expected) in [
        (
            r#"{"id": "M1", "question": "Why?", "choices": {"text": ["a b", "c", "d"], "label": ["A", "B", "C"]}, "answerKey": "C"}"#,
            None,
            "arc answer 2\n\"Question: Why?\\nAnswer:\" + \" a b\"\n\"Question: Why?\\nAnswer:\" + \" c\"\n\"Question: Why?\\nAnswer:\" + \" d\"",
        ),
        (
            r#"{"id": "M1", "question": {"stem": "Why?", "choices": [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]}, "answerKey": "2"}"#,
            None,
            "arc answer 1\n\"Question: Why?\\nAnswer:\" + \" a\"\n\"Question: Why?\\nAnswer:\" + \" b\"",
        ),
        (
            r#"{"goal": "Open it.", "sol1": "Push.", "sol2": "Pull.", "label": 1}"#,
            None,
            "piqa answer 1\n\"Question: Open it.\\nAnswer:\" + \" Push.\"\n\"Question: Open it.\\nAnswer:\" + \" Pull.\"",
        ),
        (
            r#"{"qID": "3", "sentence": "The cup was in the bag but _ was too big.", "option1": "cup", "option2": "bag", "answer": "2"}"#,
            None,
            "winogrande answer 1\n\"The cup was in the bag but cup\" + \" was too big.\"\n\"The cup was in the bag but bag\" + \" was too big.\"",
        ),
        (
            r#"{"activity_label": "Baking", "ctx_a": "[header] How to bake [title] Mix.", "ctx_b": "then SHE", "endings": ["adds [substeps] salt.", "goes  home."], "label": "0"}"#,
            None,
            "hellaswag answer 0\n\"Baking: How to bake. Mix. Then she\" + \" adds salt.\"\n\"Baking: How to bake. Mix. Then she\" + \" goes home.\"",
        ),
        (
            r#"{"id": "7", "question_stem": "Ice is", "choices": {"text": ["cold", "hot"], "label": ["A", "B"]}, "answerKey": "A "}"#,
            None,
            "openbookqa answer 0\n\"Ice is\" + \" cold\"\n\"Ice is\" + \" hot\"",
        ),
        (
            r#"{"question": {"stem": "Ice is", "choices": [{"text": "cold", "label": "A"}, {"text": "hot", "label": "B"}]}, "answerKey": "A"}"#,
            Some(Layout::Openbookqa),
            "openbookqa answer 0\n\"Ice is\" + \" cold\"\n\"Ice is\" + \" hot\"",
        ),
        (
            r#"{"question": "is ice cold", "title": "Ice", "answer": true, "passage": "Ice is cold."}"#,
            None,
            "boolq answer 1\n\"Ice is cold.\\nQuestion: is ice cold?\\nAnswer:\" + \" no\"\n\"Ice is cold.\\nQuestion: is ice cold?\\nAnswer:\" + \" yes\"",
        ),
        (
            r#"{"question": "is ice hot", "passage": "Ice is cold.", "idx": 0, "label": 0}"#,
            None,
            "boolq answer 0\n\"Ice is cold.\\nQuestion: is ice hot?\\nAnswer:\" + \" no\"\n\"Ice is cold.\\nQuestion: is ice hot?\\nAnswer:\" + \" yes\"",
        ),
        (
            r#"{"context": "Kai ran.", "question": "Why?", "answerA": "fun", "answerB": "fear", "answerC": "late", "label": "3"}"#,
            None,
            "siqa answer 2\n\"Q: Kai ran. Why?\\nA:\" + \" fun\"\n\"Q: Kai ran. Why?\\nA:\" + \" fear\"\n\"Q: Kai ran. Why?\\nA:\" + \" late\"",
        ),
        (
            r#"{"instruction": "Please choose the correct answer to the question: Why: a?\n\nAnswer1: one: x Answer2: two\n\nAnswer format: answer1/answer2", "input": "", "output": "the correct answer is answer2", "answer": "answer2"}"#,
            None,
            "instruction answer 1\n\"Question: Why: a?\\nAnswer:\" + \" one: x\"\n\"Question: Why: a?\\nAnswer:\" + \" two\"",
        ),
        (
            r#"{"instruction": "Please answer the following question with true or false, question: is it?\n\nAnswer format: true/false", "answer": "false"}"#,
            None,
            "instruction answer 1\n\"Question: is it?\\nAnswer:\" + \" true\"\n\"Question: is it?\\nAnswer:\" + \" false\"",
        ),
        (
            r#"{"question": "Why?", "options": ["a", "b"], "answer": 1}"#,
            None,
            "plain answer 1\n\"Question: Why?\\nAnswer:\" + \" a\"\n\"Question: Why?\\nAnswer:\" + \" b\"",
        ),
    ] {
        assert_eq!(shown(line, layout), expected);
    }
}

#[test]
fn bad_entries_are_named_by_file_and_line() {
    let good = r#"{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}"#;
    for (bad, what) in [
        (r#"{"goal": "g", "sol1": "a", "sol2""#, "line 3: is no JSON (column 33)"),
        (r#"{"goal": "g", "sol1": "a", "label": 0}"#, "line 3: has no `sol2`; it has goal, sol1, label"),
        (
            r#"{"goal": "g", "sol1": "a", "sol2": "b", "label": -1}"#,
            "line 3: `label` is -1; a number from 0 was expected",
        ),
        (r#"{"goal": "g", "sol1": "a", "sol2": "b", "label": 2}"#, "line 3: the answer is option 3 of 2"),
        (r#"{"goal": "g", "sol1": " ", "sol2": "b", "label": 1}"#, "line 3: option 1 is empty"),
        (r#"{"goal": 5, "sol1": "a", "sol2": "b", "label": 1}"#, "line 3: `goal` is 5; a text was expected"),
        ("[1]", "line 3: is no JSON object"),
    ] {
        let message = read("piqa.jsonl", &format!("{good}\n\n{bad}\n"), None, None).unwrap_err().to_string();
        assert!(message.contains("piqa.jsonl: ") && message.contains(what), "{message}");
        assert_eq!(
            read("piqa.jsonl", &format!("{good}\n\n{bad}\n"), None, Some(1)).map(|q| q.all.len()).ok(),
            (!bad.ends_with('"')).then_some(1),
            "what is past the limit is parsed as JSON only"
        );
    }
    for (text, what) in [
        (r#"{"x": 1}"#, "line 1: no layout has the keys x: name one with --layout"),
        ("", "has no questions"),
        ("[{\"goal\": 1}", "is no JSON list of questions"),
        (r#"[{"goal": "g", "sol1": "a", "sol2": "b", "label": 9}]"#, "entry 1: the answer is option 10 of 2"),
        (
            r#"{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": ""}"#,
            "`answerKey` is ``",
        ),
        (r#"{"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"}"#, "has no `_`"),
        (
            r#"{"instruction": "Please: q\n\nAnswer1: a\n\nAnswer format: answer1/answer2", "answer": "answer1"}"#,
            "no option `Answer2:`",
        ),
    ] {
        let message = read("some.json", text, None, None).unwrap_err().to_string();
        assert!(message.contains("some.json: ") && message.contains(what), "{message}");
    }
}

#[test]
fn a_range_and_a_limit_pick_questions() {
    let line = |i: usize| format!("{{\"question\": \"q{i}\", \"options\": [\"a\", \"b\"], \"answer\": 0}}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.json");
    let list = (1..=6).map(line).collect::<Vec<_>>();
    for text in [format!("[{}]", list.join(",\n")), list.join("\n")] {
        std::fs::write(&path, text).unwrap();
        let range = TextRange { path: path.clone(), lines: Some((2, 5)) };
        let lines = |limit| -> Vec<usize> {
            read_questions(&range, None, limit).unwrap().all.iter().map(|q| q.line).collect()
        };
        assert_eq!(lines(None), [2, 3, 4, 5]);
        assert_eq!(lines(Some(2)), [2, 3]);
        let past = TextRange { path: path.clone(), lines: Some((5, 9)) };
        assert!(read_questions(&past, None, None).unwrap_err().to_string().contains("has 6 "));
    }
}
