//! Reads a dimension expression back from its printed form: `2*h + floor(w, 2) - 1`.

use std::fmt::{self, Write};

use crate::dim::Dim;
use crate::error::GraphError;

/// Nesting beyond this is refused: no model needs it, and recursion must stay bounded on hostile files.
const MAX_DEPTH: usize = 32;

/// Characters of a name that needs no quotes.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '/')
}

/// A symbol as it is read back: names with other characters than a word's (`batch*2`, from ONNX) stand in single quotes.
pub(crate) fn write_symbol(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let plain = name.chars().all(is_word) && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if plain {
        return f.write_str(name);
    }
    f.write_char('\'')?;
    for c in name.chars() {
        if matches!(c, '\'' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('\'')
}

/// Parses `+`, `-`, `*`, parentheses, `floor(a, b)`, integers, names, and any name in single quotes.
pub fn parse(text: &str) -> Result<Dim, GraphError> {
    let mut p = Parser { text, rest: text, depth: 0 };
    let dim = p.sum()?;
    if p.rest.trim_start().is_empty() { Ok(dim) } else { Err(p.error("an operator")) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, wanted: &str) -> GraphError {
        let at = self.text.len() - self.rest.len();
        GraphError::Dimension(format!("dimension expression {:?}: expected {wanted} at byte {at}", self.text))
    }

    fn eat(&mut self, token: char) -> bool {
        let trimmed = self.rest.trim_start();
        match trimmed.strip_prefix(token) {
            Some(r) => {
                self.rest = r;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Result<Dim, GraphError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("less nesting"));
        }
        let negative = self.eat('-');
        let mut total = self.product()?;
        if negative {
            total = total.checked_mul(&Dim::from(-1))?;
        }
        loop {
            if self.eat('+') {
                total = total.checked_add(&self.product()?)?;
            } else if self.eat('-') {
                total = total.checked_add(&self.product()?.checked_mul(&Dim::from(-1))?)?;
            } else {
                self.depth -= 1;
                return Ok(total);
            }
        }
    }

    fn product(&mut self) -> Result<Dim, GraphError> {
        let mut total = self.atom()?;
        while self.eat('*') {
            total = total.checked_mul(&self.atom()?)?;
        }
        Ok(total)
    }

    fn atom(&mut self) -> Result<Dim, GraphError> {
        if self.eat('(') {
            let inner = self.sum()?;
            return if self.eat(')') { Ok(inner) } else { Err(self.error("`)`")) };
        }
        if self.eat('\'') {
            return self.quoted();
        }
        let trimmed = self.rest.trim_start();
        let end = trimmed.find(|c| !is_word(c)).unwrap_or(trimmed.len());
        let (word, rest) = trimmed.split_at(end);
        let Some(first) = word.chars().next() else { return Err(self.error("a number, a name or `(`")) };
        if first.is_ascii_digit() {
            let value: i64 = word.parse().map_err(|_| self.error("an integer of 64 bits"))?;
            self.rest = rest;
            return Ok(value.into());
        }
        self.rest = rest;
        if word == "floor" && self.eat('(') {
            let a = self.sum()?;
            if !self.eat(',') {
                return Err(self.error("`,`"));
            }
            let b = self.sum()?;
            return if self.eat(')') { a.floor_div(&b) } else { Err(self.error("`)`")) };
        }
        Ok(Dim::symbol(word))
    }

    /// The rest of a name in single quotes; a backslash stands before a quote or a backslash.
    fn quoted(&mut self) -> Result<Dim, GraphError> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Dim::symbol(&name));
                }
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                c => name.push(c),
            }
        }
        Err(self.error("a closing quote"))
    }
}
