//! Chat templates, rendered as transformers renders them: Jinja2 with trimmed blocks, loop controls, Python's methods
//! and spellings. A template is a program from a file: it gets a bounded allowance and no access to anything.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::chat_format::{python_json, python_str};
use super::chat_time::strftime;
use super::error::{Result, TokenizerError};
use super::{Tokenizer, hf_files};

/// Steps that a template may take; 64 bytes of text count as one, so that this bounds memory (128 MB) as well as time.
const FUEL: u64 = 2_000_000;
/// Largest template, bytes; the largest published ones have about 20 KB.
const MAX_TEMPLATE: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or another role that the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl ChatMessage {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> ChatMessage {
        ChatMessage { role: role.into(), content: content.into() }
    }
}

/// How to render.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// End with the words that open the assistant's answer.
    pub add_generation_prompt: bool,
    /// Seconds since 1970 (UTC) that the template takes for now; `None`: the clock's.
    pub now: Option<u64>,
    /// Further variables of the template, such as `tools`, `documents` or `enable_thinking`.
    pub variables: Map<String, Json>,
}

pub(super) fn render_chat(t: &Tokenizer, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
    let template = t.chat_template().ok_or_else(|| TokenizerError::Chat {
        message: format!(
            "{} has none: this is no chat model, or its template is kept apart; give plain text instead",
            t.origin
        ),
    })?;
    let mut options = options.clone();
    for (name, token) in hf_files::named(t) {
        options.variables.entry(name).or_insert(token);
    }
    let messages =
        messages.iter().map(|m| serde_json::json!({"role": m.role, "content": m.content})).collect();
    render_template(template, &Json::Array(messages), &options)
}

/// Renders any template over `messages`, a list of objects. Special tokens are taken from `options.variables`.
pub fn render_template(template: &str, messages: &Json, options: &ChatOptions) -> Result<String> {
    if template.len() > MAX_TEMPLATE {
        return Err(TokenizerError::Chat {
            message: format!("has {} bytes; at most {MAX_TEMPLATE} are read", template.len()),
        });
    }
    let source = generation_marks(template);
    let env = environment(options.now)?;
    let mut variables = Map::new();
    for absent in ["tools", "documents"] {
        variables.insert(absent.to_owned(), Json::Null);
    }
    variables.extend(options.variables.clone());
    variables.insert("messages".to_owned(), messages.clone());
    variables.insert("add_generation_prompt".to_owned(), Json::Bool(options.add_generation_prompt));
    let context = Value::deserialize(Json::Object(variables))
        .map_err(|e| TokenizerError::Chat { message: e.to_string() })?;
    let rendered = env.template_from_named_str("chat", &source).and_then(|t| t.render(context));
    rendered.map_err(|e| failed(&e))
}

fn failed(e: &Error) -> TokenizerError {
    let message = match e.kind() {
        ErrorKind::OutOfFuel => {
            let line = e.line().map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{line}does not end within its {FUEL} steps: the template is damaged or hostile")
        }
        _ => e.to_string(),
    };
    TokenizerError::Chat { message }
}

fn environment(now: Option<u64>) -> Result<Environment<'static>> {
    let mut env = Environment::new();
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| failed(&e))?;
    env.set_syntax(syntax);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(|out, _, value| out.write_str(&python_str(value)?).map_err(Error::from));
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| python_str(value));
    env.add_function("raise_exception", |message: String| -> std::result::Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", move |format: String| {
        strftime(&format, now).map_err(|m| Error::new(ErrorKind::InvalidOperation, m))
    });
    Ok(env)
}

/// `json.dumps` with transformers' defaults.
fn tojson(value: &Value, options: Kwargs) -> std::result::Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    if indent.is_some_and(|n| n > 64) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: indent is beyond 64"));
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two strings")),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = super::chat_format::JsonStyle {
        indent,
        ascii: ascii.unwrap_or(false),
        sort: sort.unwrap_or(false),
        item,
        key,
    };
    Ok(Value::from(python_json(value, &style)?))
}

/// `{% generation %}` marks what the assistant said, for training masks; it does not change the text.
fn generation_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            out.push_str(tag);
            return out;
        };
        let (tag, after) = tag.split_at(end + 2);
        let name = tag[2..end].trim_matches(['-', '+', ' ', '\t', '\r', '\n']);
        match name {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
