//! Layouts of public multiple-choice sets, one JSON object a question.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::Question;

type Parsed = Result<Question, String>;

/// Which set's layout, and so which prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `question` (or `question.stem`), `choices`, `answerKey`.
    Arc,
    /// `goal`, `sol1`, `sol2`, `label` 0 or 1.
    Piqa,
    /// `sentence` with `_`, `option1`, `option2`, `answer` 1 or 2. The options stand in the sentence; its rest is scored.
    Winogrande,
    /// `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    Hellaswag,
    /// `question_stem` (or `question.stem`), `choices`, `answerKey`.
    Openbookqa,
    /// `passage`, `question`, `answer` (or `label`), no or yes.
    Boolq,
    /// `context`, `question`, `answerA`, `answerB`, `answerC`, `label` from 1.
    Siqa,
    /// `instruction` with the question, its options and the answer's format, `answer`: the form of LLM-Adapters.
    Instruction,
    /// `question`, `options`, `answer` from 0, and `passage` where there is one.
    Plain,
}

/// Every layout with its name.
const NAMES: [(&str, Layout); 9] = [
    ("arc", Layout::Arc),
    ("piqa", Layout::Piqa),
    ("winogrande", Layout::Winogrande),
    ("hellaswag", Layout::Hellaswag),
    ("openbookqa", Layout::Openbookqa),
    ("boolq", Layout::Boolq),
    ("siqa", Layout::Siqa),
    ("instruction", Layout::Instruction),
    ("plain", Layout::Plain),
];

impl FromStr for Layout {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == s);
        found.map(|(_, l)| *l).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("`{s}`: a layout was expected: {}", names.join(", "))
        })
    }
}

impl Layout {
    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, l)| *l == self).map_or("", |(name, _)| name)
    }

    /// The prompt of lm-evaluation-harness for the set; none where options stand in the question.
    pub fn prompt(self) -> Option<&'static str> {
        Some(match self {
            Layout::Winogrande => return None,
            Layout::Hellaswag | Layout::Openbookqa => "{question}",
            Layout::Boolq => "{passage}\nQuestion: {question}?\nAnswer:",
            Layout::Siqa => "Q: {question}\nA:",
            Layout::Arc | Layout::Piqa | Layout::Instruction | Layout::Plain => {
                "Question: {question}\nAnswer:"
            }
        })
    }

    /// The layout that an object's keys tell; none where several or no sets have such keys.
    pub fn of(object: &Map<String, Value>) -> Option<Layout> {
        let has = |keys: &[&str]| keys.iter().all(|k| object.contains_key(*k));
        [
            (Layout::Instruction, &["instruction", "answer"][..]),
            (Layout::Piqa, &["goal", "sol1", "sol2"]),
            (Layout::Winogrande, &["sentence", "option1", "option2"]),
            (Layout::Hellaswag, &["ctx_a", "endings"]),
            (Layout::Siqa, &["context", "question", "answerA", "answerB"]),
            (Layout::Boolq, &["passage", "question"]),
            (Layout::Openbookqa, &["question_stem", "choices"]),
            (Layout::Arc, &["question", "choices", "answerKey"]),
            (Layout::Arc, &["question", "answerKey"]),
            (Layout::Plain, &["question", "options"]),
        ]
        .into_iter()
        .find(|(layout, keys)| has(keys) && !(*layout == Layout::Boolq && has(&["options"])))
        .map(|(layout, _)| layout)
    }

    /// Reads a question; the message of an error names the key.
    pub(super) fn parse(self, o: &Map<String, Value>) -> Parsed {
        let question = match self {
            Layout::Arc | Layout::Openbookqa => with_choices(o),
            Layout::Piqa => {
                let options = vec![text(o, "sol1")?, text(o, "sol2")?];
                Ok(Question {
                    text: text(o, "goal")?,
                    answer: number(o, "label", 0)?,
                    options,
                    ..Question::default()
                })
            }
            Layout::Winogrande => winogrande(o),
            Layout::Hellaswag => hellaswag(o),
            Layout::Boolq => boolq(o),
            Layout::Siqa => {
                let options = vec![text(o, "answerA")?, text(o, "answerB")?, text(o, "answerC")?];
                let asked = format!("{} {}", text(o, "context")?, text(o, "question")?);
                Ok(Question { text: asked, answer: number(o, "label", 1)?, options, ..Question::default() })
            }
            Layout::Instruction => instruction(o),
            Layout::Plain => {
                let passage = if o.contains_key("passage") { text(o, "passage")? } else { String::new() };
                let (asked, answer) = (text(o, "question")?, number(o, "answer", 0)?);
                Ok(Question {
                    text: asked,
                    passage,
                    answer,
                    options: texts(o, "options")?,
                    ..Question::default()
                })
            }
        }?;
        let options = question.options.len();
        if options < 2 {
            return Err(format!("has {options} options; 2 or more were expected"));
        }
        if question.answer >= options {
            return Err(format!(
                "the answer is option {} of {options} (from 1): is this a split without answers?",
                question.answer.wrapping_add(1)
            ));
        }
        if let Some(empty) = question.options.iter().position(|t| t.trim().is_empty()) {
            return Err(format!("option {} is empty", empty + 1));
        }
        Ok(question)
    }
}

fn value<'a>(o: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    o.get(key).ok_or_else(|| {
        let keys: Vec<&str> = o.keys().map(String::as_str).collect();
        format!("has no `{key}`; it has {}", keys.join(", "))
    })
}

fn text(o: &Map<String, Value>, key: &str) -> Result<String, String> {
    let found = value(o, key)?;
    found.as_str().map(str::to_owned).ok_or_else(|| format!("`{key}` is {found}; a text was expected"))
}

fn texts(o: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let found = value(o, key)?;
    let all = found.as_array().and_then(|l| l.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    all.ok_or_else(|| format!("`{key}` is {found}; a list of texts was expected"))
}

/// An index that counts from `first`, as a number or spelled as one.
fn number(o: &Map<String, Value>, key: &str, first: u64) -> Result<usize, String> {
    let found = value(o, key)?;
    let n = found.as_u64().or_else(|| found.as_str()?.trim().parse().ok());
    let index = n.and_then(|n| usize::try_from(n.checked_sub(first)?).ok());
    index.ok_or_else(|| {
        format!("`{key}` is {found}; a number from {first} was expected: is this a split without answers?")
    })
}

/// ARC and OpenBookQA, as their authors published them and as data sets on hubs have them.
fn with_choices(o: &Map<String, Value>) -> Parsed {
    let inner = o.get("question").and_then(Value::as_object);
    let asked = match inner {
        Some(inner) => text(inner, "stem")?,
        None if o.contains_key("question_stem") => text(o, "question_stem")?,
        None => text(o, "question")?,
    };
    let choices = value(inner.unwrap_or(o), "choices")?;
    let (options, labels) = match choices {
        Value::Object(columns) => (texts(columns, "text")?, texts(columns, "label")?),
        Value::Array(rows) => {
            let rows: Option<Vec<&Map<String, Value>>> = rows.iter().map(Value::as_object).collect();
            let rows =
                rows.ok_or("`choices` is a list of something else than objects with `text` and `label`")?;
            let column = |key: &str| rows.iter().map(|r| text(r, key)).collect::<Result<Vec<_>, _>>();
            (column("text")?, column("label")?)
        }
        other => return Err(format!("`choices` is {other}; texts and labels were expected")),
    };
    let key = text(o, "answerKey")?;
    let answer = labels.iter().position(|l| l == key.trim()).ok_or_else(|| {
        format!("`answerKey` is `{key}`, which is none of the labels {}", labels.join(", "))
    })?;
    Ok(Question { text: asked, options, answer, ..Question::default() })
}

fn winogrande(o: &Map<String, Value>) -> Parsed {
    let sentence = text(o, "sentence")?;
    let Some((before, after)) = sentence.split_once('_') else {
        return Err("`sentence` has no `_`, where the options go".to_owned());
    };
    let rest = after.trim();
    if rest.is_empty() {
        return Err("`sentence` ends with `_`: nothing is left to score".to_owned());
    }
    let stem = |option: String| format!("{before}{option}");
    Ok(Question {
        text: sentence.clone(),
        stems: vec![stem(text(o, "option1")?), stem(text(o, "option2")?)],
        options: vec![rest.to_owned(), rest.to_owned()],
        answer: number(o, "answer", 1)?,
        ..Question::default()
    })
}

fn hellaswag(o: &Map<String, Value>) -> Parsed {
    let second = text(o, "ctx_b")?;
    let mut letters = second.chars();
    // As Python's `capitalize`: the first letter large, all others small.
    let second: String = match letters.next() {
        Some(first) => first.to_uppercase().chain(letters.flat_map(char::to_lowercase)).collect(),
        None => String::new(),
    };
    let asked = format!("{}: {} {second}", text(o, "activity_label")?, text(o, "ctx_a")?);
    Ok(Question {
        text: without_marks(&asked),
        options: texts(o, "endings")?.iter().map(|e| without_marks(e)).collect(),
        answer: number(o, "label", 0)?,
        ..Question::default()
    })
}

/// Marks that WikiHow's half of HellaSwag has: `[title]` ends a sentence, `[step]` and others go.
fn without_marks(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        let Some(close) = rest[open..].find(']').filter(|c| !rest[open..open + c].contains('\n')) else {
            out += &rest[..=open];
            rest = &rest[open + 1..];
            continue;
        };
        out += &rest[..open];
        rest = &rest[open + close + 1..];
    }
    out += rest;
    out.replace("  ", " ")
}

fn boolq(o: &Map<String, Value>) -> Parsed {
    let answer = match o.get("answer") {
        Some(Value::Bool(yes)) => usize::from(*yes),
        Some(other) => return Err(format!("`answer` is {other}; true or false was expected")),
        None => number(o, "label", 0)?,
    };
    Ok(Question {
        text: text(o, "question")?,
        passage: text(o, "passage")?,
        options: vec!["no".to_owned(), "yes".to_owned()],
        answer,
        ..Question::default()
    })
}

/// `HEADER: QUESTION`, a paragraph of options `Answer1: ... Answer2: ...` where the format numbers them, and
/// `Answer format: answer1/answer2`.
fn instruction(o: &Map<String, Value>) -> Parsed {
    let whole = text(o, "instruction")?;
    let (body, format) =
        whole.rsplit_once("\n\nAnswer format: ").ok_or("`instruction` has no paragraph `Answer format: `")?;
    let labels: Vec<&str> = format.trim().split('/').collect();
    let (asked, options) = if labels.iter().all(|l| l.ends_with(|c: char| c.is_ascii_digit())) {
        let marks: Vec<String> = labels.iter().map(|l| format!("{}:", capitalised(l))).collect();
        let (asked, mut rest) = body
            .rsplit_once(&format!("\n\n{}", marks[0]))
            .ok_or_else(|| format!("`instruction` has no paragraph of options with `{}`", marks[0]))?;
        let mut options = Vec::with_capacity(labels.len());
        for mark in &marks[1..] {
            let (option, later) = rest
                .split_once(&format!(" {mark}"))
                .ok_or_else(|| format!("`instruction` has no option `{mark}`"))?;
            options.push(option.trim().to_owned());
            rest = later;
        }
        options.push(rest.trim().to_owned());
        (asked, options)
    } else {
        (body, labels.iter().map(|l| (*l).to_owned()).collect())
    };
    let (_, asked) = asked.split_once(": ").ok_or("`instruction` has no `: ` before the question")?;
    let key = text(o, "answer")?;
    let answer = labels
        .iter()
        .position(|l| *l == key)
        .ok_or_else(|| format!("`answer` is `{key}`, which is none of {}", labels.join(", ")))?;
    Ok(Question { text: asked.trim().to_owned(), options, answer, ..Question::default() })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
