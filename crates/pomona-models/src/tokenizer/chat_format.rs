//! Values spelled as Python spells them: `str()`, `repr()` and `json.dumps`.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Containers within containers beyond this are refused, so that recursion stays bounded.
const MAX_DEPTH: usize = 64;
/// Longest text of one value, bytes.
const MAX_BYTES: usize = 16 << 20;

type Result<T> = std::result::Result<T, Error>;

/// How `json.dumps` lays out.
pub(super) struct JsonStyle {
    pub indent: Option<usize>,
    /// Other characters than ASCII as `\u` escapes.
    pub ascii: bool,
    /// Keys in order.
    pub sort: bool,
    /// Between items.
    pub item: String,
    /// Between a key and its value.
    pub key: String,
}

/// `str(value)`; undefined is empty.
pub(super) fn python_str(value: &Value) -> Result<String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut out = String::new();
            repr(value, &mut out, 0)?;
            Ok(out)
        }
    }
}

fn bounded(out: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH || out.len() > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a value nests deeper than {MAX_DEPTH} or is longer than {MAX_BYTES} bytes"),
        ));
    }
    Ok(())
}

fn repr(value: &Value, out: &mut String, depth: usize) -> Result<()> {
    bounded(out, depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => repr_str(value.as_str().unwrap_or(""), out),
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, out, depth + 1)?;
            }
            if value.is_tuple() && value.len() == Some(1) {
                out.push(',');
            }
            out.push(close);
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Python spells floats as Rust does, but for exponents: `1e+16`, `1e-05`.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(x) = f64::try_from(value.clone()) else { return value.to_string() };
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let size = x.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{x:?}")
}

fn repr_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// `json.dumps(value)`.
pub(super) fn python_json(value: &Value, style: &JsonStyle) -> Result<String> {
    let mut out = String::new();
    dump(value, style, &mut out, 0)?;
    Ok(out)
}

fn dump(value: &Value, style: &JsonStyle, out: &mut String, depth: usize) -> Result<()> {
    bounded(out, depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => match number(value).as_str() {
            "nan" => out.push_str("NaN"),
            "inf" => out.push_str("Infinity"),
            "-inf" => out.push_str("-Infinity"),
            text => out.push_str(text),
        },
        ValueKind::String => dump_str(value.as_str().unwrap_or(""), style.ascii, out),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort {
                keys.sort();
            }
            let items = keys.into_iter().map(|key| Ok((value.get_item(&key)?, Some(key))));
            container(('{', '}'), items, style, out, depth)?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            container(('[', ']'), value.try_iter()?.map(|item| Ok((item, None))), style, out, depth)?;
        }
        kind => {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                format!("tojson: a value of kind {kind} is not JSON"),
            ));
        }
    }
    Ok(())
}

fn container(
    (open, close): (char, char),
    items: impl Iterator<Item = Result<(Value, Option<Value>)>>,
    style: &JsonStyle,
    out: &mut String,
    depth: usize,
) -> Result<()> {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    out.push(open);
    let mut empty = true;
    for item in items {
        let (value, key) = item?;
        if !empty {
            out.push_str(&style.item);
        }
        empty = false;
        line(out, depth + 1);
        if let Some(key) = key {
            dump_str(&json_key(&key), style.ascii, out);
            out.push_str(&style.key);
        }
        dump(&value, style, out, depth + 1)?;
    }
    if !empty {
        line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn json_key(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.is_true().to_string(),
        ValueKind::Number => number(key),
        _ => key.as_str().map_or_else(|| key.to_string(), str::to_owned),
    }
}

fn dump_str(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
