//! Prompts with responses: each example stands alone, padded at its end to the longest of its batch, and only tokens of the
//! response are predicted.

use pomona_task::{TaskError, TextRange};
use rayon::prelude::*;

use super::{Batch, Encode, IGNORED, Pair, Source, Target, listed, token_inputs};
use crate::error::Result;

/// An example as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Example {
    ids: Vec<u32>,
    /// The first token that is predicted.
    from: usize,
}

/// Examples of prompts and responses.
#[derive(Clone, Debug)]
pub struct Examples {
    examples: Vec<Example>,
    dropped: usize,
    from: String,
}

impl Examples {
    /// Tokenizes pairs. An example of more than `length` inputs loses its end; one whose response is lost with it is dropped.
    ///
    /// # Errors
    /// Where a text cannot be tokenized, or no example is left.
    pub fn new(
        pairs: &[Pair],
        length: usize,
        end: Option<u32>,
        encode: &Encode<'_>,
        files: &[TextRange],
    ) -> Result<Examples> {
        let made: Result<Vec<Example>> = pairs
            .par_iter()
            .map(|pair| {
                let mut ids = encode(&pair.prompt, pair.begins)?;
                let from = ids.len().max(1);
                ids.extend(encode(&pair.response, false)?);
                ids.extend(end);
                ids.truncate(length + 1);
                Ok(Example { ids, from })
            })
            .collect();
        let mut examples = made?;
        let before = examples.len();
        examples.retain(|e| e.from < e.ids.len());
        if examples.is_empty() {
            let message =
                format!("has {before} examples, and none whose response begins within {length} tokens");
            let path = files.first().map(|f| f.path.clone()).unwrap_or_default();
            return Err(TaskError::Data { path, message }.into());
        }
        let from = files.iter().map(TextRange::describe).collect::<Vec<_>>().join("; ");
        Ok(Examples { dropped: before - examples.len(), examples, from })
    }
}

impl Source for Examples {
    fn samples(&self) -> usize {
        self.examples.len()
    }

    fn batch(&self, picks: &[usize], _: u64) -> Result<Batch> {
        let some: Vec<&Example> = picks.iter().filter_map(|p| self.examples.get(*p)).collect();
        let length = some.iter().map(|e| e.ids.len() - 1).max().unwrap_or(1);
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for e in &some {
            let n = e.ids.len() - 1;
            ids.extend(e.ids[..n].iter().map(|t| i64::from(*t)));
            // Attention looks back only: what stands behind an example does not change it.
            ids.extend(std::iter::repeat_n(i64::from(e.ids[n]), length - n));
            targets.extend((1..=n).map(|at| if at >= e.from { e.ids[at] } else { IGNORED }));
            targets.extend(std::iter::repeat_n(IGNORED, length - n));
        }
        Ok(Batch {
            inputs: token_inputs(ids, some.len(), length)?,
            units: targets.iter().filter(|t| **t != IGNORED).count(),
            target: Target::Tokens(targets),
            samples: some.len(),
            from: format!("examples {} ({})", listed(picks), self.from),
        })
    }

    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for e in &self.examples {
            hash.update(&(e.ids.len() as u64).to_le_bytes());
            hash.update(&(e.from as u64).to_le_bytes());
            e.ids.iter().for_each(|id| _ = hash.update(&id.to_le_bytes()));
        }
        hash.finalize().to_hex().to_string()
    }

    fn describe(&self) -> String {
        let tokens: usize = self.examples.iter().map(|e| e.ids.len()).sum();
        let dropped = match self.dropped {
            0 => String::new(),
            n => format!(", {n} dropped whose prompt alone is too long"),
        };
        format!("{}: {} examples, {tokens} tokens{dropped}", self.from, self.examples.len())
    }

    fn unit(&self) -> &'static str {
        "tokens"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_the_response_is_predicted() {
        let pair = |prompt: &str, response: &str| Pair {
            prompt: prompt.to_owned(),
            response: response.to_owned(),
            begins: true,
        };
        let encode = |text: &str, begins: bool| {
            Ok(begins.then_some(1).into_iter().chain(text.bytes().map(u32::from)).collect())
        };
        let pairs = [pair("ab", "c"), pair("a", "bcd"), pair("abcdefgh", "i")];
        let examples = Examples::new(&pairs, 6, Some(2), &encode, &[]).unwrap();
        assert_eq!((examples.samples(), examples.dropped), (2, 1));
        let batch = examples.batch(&[0, 1], 0).unwrap();
        let Target::Tokens(targets) = &batch.target else { unreachable!() };
        let byte = |c: char| c as u32;
        assert_eq!(
            *targets,
            [IGNORED, IGNORED, byte('c'), 2, IGNORED, IGNORED, byte('b'), byte('c'), byte('d'), 2]
        );
        assert_eq!(batch.units, 6);
        assert_eq!(batch.inputs[0].1.shape(), [2, 5]);
    }
}
