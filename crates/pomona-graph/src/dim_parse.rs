//! Reads a dimension expression back from its printed form: `2*h + floor(w, 2) - 1`.

use crate::dim::Dim;
use crate::error::GraphError;

/// Nesting beyond this is refused: no model needs it, and recursion must stay bounded on hostile files.
const MAX_DEPTH: usize = 32;

/// Parses `+`, `-`, `*`, parentheses, `floor(a, b)`, integers and names.
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
        let trimmed = self.rest.trim_start();
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '/');
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
}
