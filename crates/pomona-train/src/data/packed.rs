//! Text packed to length: documents joined, each with its end, and cut into windows. Nothing is padded and nothing left out
//! but the end that fills no window.

use pomona_task::{TaskError, TextRange};

use super::{Batch, Source, Target, listed, token_inputs};
use crate::error::Result;

/// Windows of one length over a stream of tokens.
#[derive(Clone, Debug)]
pub struct Packed {
    stream: Vec<u32>,
    length: usize,
    /// Tokens from one window's beginning to the next one's.
    stride: usize,
    from: String,
}

impl Packed {
    /// Windows of `length` inputs; each predicts the token after each of its inputs, so that neighbours share one token.
    ///
    /// # Errors
    /// Where there are too few tokens for one window.
    pub fn new(stream: Vec<u32>, length: usize, files: &[TextRange]) -> Result<Packed> {
        let from = files.iter().map(TextRange::describe).collect::<Vec<_>>().join("; ");
        if length < 1 || stream.len() <= length {
            let message = format!(
                "holds {} tokens, too few for a window of {length}: give more text or a smaller --seq",
                stream.len()
            );
            let path = files.first().map(|f| f.path.clone()).unwrap_or_default();
            return Err(TaskError::Data { path, message }.into());
        }
        Ok(Packed { stream, length, stride: length, from })
    }

    /// Windows that were cut elsewhere, all of one length of at least two; each predicts all its tokens but the first.
    pub fn windows(windows: &pomona_task::Windows) -> Packed {
        let stride = windows.ids.first().map_or(2, Vec::len).max(2);
        Packed { stream: windows.ids.concat(), length: stride - 1, stride, from: windows.source.clone() }
    }

    /// Inputs of a window.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Tokens of the stream.
    pub fn tokens(&self) -> usize {
        self.stream.len()
    }
}

impl Source for Packed {
    fn samples(&self) -> usize {
        (self.stream.len() + self.stride - self.length - 1) / self.stride
    }

    fn batch(&self, picks: &[usize], _: u64) -> Result<Batch> {
        let mut ids = Vec::with_capacity(picks.len() * self.length);
        let mut targets = Vec::with_capacity(picks.len() * self.length);
        for &pick in picks {
            let start = pick * self.stride;
            ids.extend(self.stream[start..start + self.length].iter().map(|t| i64::from(*t)));
            targets.extend_from_slice(&self.stream[start + 1..start + self.length + 1]);
        }
        Ok(Batch {
            inputs: token_inputs(ids, picks.len(), self.length)?,
            units: targets.len(),
            target: Target::Tokens(targets),
            samples: picks.len(),
            from: format!("windows {} of {} tokens ({})", listed(picks), self.length, self.from),
        })
    }

    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(&(self.length as u64).to_le_bytes());
        hash.update(&(self.stride as u64).to_le_bytes());
        for id in &self.stream {
            hash.update(&id.to_le_bytes());
        }
        hash.finalize().to_hex().to_string()
    }

    fn describe(&self) -> String {
        format!("{}: {} tokens, {} windows of {}", self.from, self.stream.len(), self.samples(), self.length)
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
    fn every_token_but_the_first_is_predicted_once() {
        let packed = Packed::new((0..23).collect(), 5, &[]).unwrap();
        assert_eq!(packed.samples(), 4);
        let batch = packed.batch(&[0, 1, 2, 3], 0).unwrap();
        let Target::Tokens(targets) = &batch.target else { unreachable!() };
        assert_eq!(*targets, (1..21).collect::<Vec<_>>());
        assert_eq!(batch.inputs[0].1.as_i64().unwrap(), (0..20).collect::<Vec<i64>>());
        let ids = vec![vec![1, 2, 3], vec![4, 5, 6]];
        let given = Packed::windows(&pomona_task::Windows::new(ids, String::new()));
        assert_eq!(given.samples(), 2);
        let Target::Tokens(targets) = given.batch(&[0, 1], 0).unwrap().target else { unreachable!() };
        assert_eq!(targets, [2, 3, 5, 6]);
        assert!(Packed::new((0..5).collect(), 5, &[]).is_err());
        assert!(Packed::new((0..6).collect(), 5, &[]).is_ok());
    }
}
