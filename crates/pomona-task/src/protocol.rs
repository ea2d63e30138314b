//! Perplexity protocols: which tokens are predicted from how much text before them. Figures of different protocols do not
//! compare.

use crate::data::{TextRange, Windows, even_windows};
use crate::error::{Result, TaskError};
use crate::likelihood::Stretch;
use crate::objective::SampleLoss;

/// How a text is cut into what is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Windows of `length` tokens that do not overlap; the first of each is not predicted, a shorter rest is left out.
    /// Shortened LLaMA takes 128.
    Segments {
        /// Tokens of each.
        length: usize,
    },
    /// Windows of `length` tokens, each `stride` further on than the last one; only what no earlier window had is
    /// predicted, so that every token but the first is predicted once, from at least `length - stride` before it.
    Sliding {
        /// Tokens of each.
        length: usize,
        /// New ones of each, fewer than `length`.
        stride: usize,
    },
    /// Each token from everything before it, up to a context of `length`; a longer text is cut into pieces of that.
    Full {
        /// The model's context.
        length: usize,
    },
}

/// A text cut by a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What is run and predicted.
    pub stretches: Vec<Stretch>,
    /// BLAKE3 of the token ids.
    pub fingerprint: String,
    /// For people: file and lines.
    pub source: String,
}

impl From<Windows> for Cut {
    fn from(w: Windows) -> Self {
        let stretches = w.ids.into_iter().map(|ids| Stretch { ids, from: 1 }).collect();
        Cut { stretches, fingerprint: w.fingerprint, source: w.source }
    }
}

impl Protocol {
    /// Its name on the command line and in files.
    pub fn name(&self) -> &'static str {
        match self {
            Protocol::Segments { .. } => "segments",
            Protocol::Sliding { .. } => "sliding",
            Protocol::Full { .. } => "full",
        }
    }

    /// Tokens of a window.
    pub fn length(&self) -> usize {
        match *self {
            Protocol::Segments { length } | Protocol::Sliding { length, .. } | Protocol::Full { length } => {
                length
            }
        }
    }

    /// Cuts a text; `encode` gives its tokens with whatever the tokenizer puts in front. `count` windows evenly spaced,
    /// all without a count. With `bos` that token is the first of every window rather than of the text.
    ///
    /// # Errors
    /// A text that cannot be read or is too short, and a stride that leaves no context.
    pub fn cut(
        &self,
        text: &TextRange,
        count: Option<usize>,
        bos: Option<u32>,
        encode: &dyn Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<Cut> {
        let front = usize::from(bos.is_some());
        let length = self.length().saturating_sub(front);
        let bare = |text: &str| -> Result<Vec<u32>> {
            let mut ids = encode(text)?;
            if bos.is_some() && ids.first().copied() == bos {
                ids.remove(0);
            }
            Ok(ids)
        };
        let (windows, from) = match *self {
            Protocol::Segments { .. } => {
                let windows = even_windows(text, count, length, &bare)?;
                let from = vec![1 - front; windows.ids.len()];
                (windows, from)
            }
            Protocol::Sliding { .. } | Protocol::Full { .. } => {
                let tokens = bare(&text.read()?.join("\n"))?;
                let pieces = self.pieces(tokens.len(), length, front)?;
                let wanted = count.unwrap_or(pieces.len());
                if pieces.is_empty() || wanted > pieces.len() {
                    let message = format!(
                        "holds {} tokens, {} windows; {wanted} were asked for: give more text or ask for fewer",
                        tokens.len(),
                        pieces.len()
                    );
                    return Err(TaskError::Data { path: text.path.clone(), message });
                }
                let picked = (0..wanted).map(|k| &pieces[k * pieces.len() / wanted]);
                let (ids, from) =
                    picked.map(|p| (tokens[p.start..p.end].to_vec(), p.first - p.start)).unzip();
                (Windows::new(ids, text.describe()), from)
            }
        };
        let stretch = |(ids, from): (Vec<u32>, usize)| Stretch {
            ids: bos.into_iter().chain(ids).collect(),
            from: from + front,
        };
        Ok(Cut {
            stretches: windows.ids.into_iter().zip(from).map(stretch).collect(),
            fingerprint: windows.fingerprint,
            source: windows.source,
        })
    }

    fn pieces(&self, tokens: usize, length: usize, front: usize) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut done = 0;
        let step = match *self {
            Protocol::Sliding { stride, length: window } if stride == 0 || stride >= window => {
                return Err(TaskError::Unfit(format!(
                    "a stride of {stride} was asked for with windows of {window} tokens: 1 to {} leave some context",
                    window.saturating_sub(1)
                )));
            }
            Protocol::Sliding { stride, .. } => stride,
            _ => length,
        };
        while done < tokens {
            let end = if done == 0 { length } else { done + step }.min(tokens);
            let start =
                if matches!(self, Protocol::Sliding { .. }) { end.saturating_sub(length) } else { done };
            // Nothing stands before the first token of a text, nor before that of a piece.
            let first = done.max(start + 1 - front);
            if first < end {
                pieces.push(Piece { start, end, first });
            }
            done = end;
        }
        Ok(pieces)
    }
}

/// Tokens `start..end`, of which those from `first` on are predicted.
struct Piece {
    start: usize,
    end: usize,
    first: usize,
}

/// exp of the mean loss, and its standard error with windows as the independent observations (a ratio of two sums, to
/// first order); none with fewer than two windows.
pub fn perplexity(losses: &[SampleLoss]) -> (f64, Option<f64>) {
    let mean = SampleLoss::mean(losses);
    let n = losses.len() as f64;
    let count: usize = losses.iter().map(|l| l.count).sum();
    let squares: f64 = losses.iter().map(|l| (l.sum - mean * l.count as f64).powi(2)).sum();
    let error =
        (losses.len() > 1).then(|| mean.exp() * (squares * n / (n - 1.0)).sqrt() / count.max(1) as f64);
    (mean.exp(), error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;

    fn cut(
        protocol: Protocol,
        tokens: u8,
        count: Option<usize>,
        bos: Option<u32>,
    ) -> Result<Vec<(Vec<u32>, usize)>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&(b'0'..b'0' + tokens).collect::<Vec<u8>>()).unwrap();
        let text = TextRange { path: file.path().to_owned(), lines: None };
        let encode = |s: &str| Ok(bos.into_iter().chain(s.bytes().map(|b| u32::from(b - b'0'))).collect());
        let cut = protocol.cut(&text, count, bos, &encode)?;
        Ok(cut.stretches.into_iter().map(|s| (s.ids, s.from)).collect())
    }

    #[test]
    fn each_protocol_predicts_what_it_says() {
        let segments = cut(Protocol::Segments { length: 4 }, 10, None, None).unwrap();
        assert_eq!(segments, [(vec![0, 1, 2, 3], 1), (vec![4, 5, 6, 7], 1)]);
        let sliding = cut(Protocol::Sliding { length: 4, stride: 2 }, 9, None, None).unwrap();
        let expected =
            [(vec![0, 1, 2, 3], 1), (vec![2, 3, 4, 5], 2), (vec![4, 5, 6, 7], 2), (vec![5, 6, 7, 8], 3)];
        assert_eq!(sliding, expected);
        let full = cut(Protocol::Full { length: 4 }, 10, None, None).unwrap();
        assert_eq!(full, [(vec![0, 1, 2, 3], 1), (vec![4, 5, 6, 7], 1), (vec![8, 9], 1)]);
        let whole = cut(Protocol::Full { length: 64 }, 5, None, None).unwrap();
        assert_eq!(whole, [(vec![0, 1, 2, 3, 4], 1)]);
        assert_eq!(
            cut(Protocol::Full { length: 4 }, 9, None, None).unwrap().len(),
            2,
            "a rest of one predicts nothing"
        );
    }

    #[test]
    fn a_first_token_for_every_window_makes_all_others_predicted() {
        let bos = Some(77);
        let segments = cut(Protocol::Segments { length: 4 }, 7, None, bos).unwrap();
        assert_eq!(segments, [(vec![77, 0, 1, 2], 1), (vec![77, 3, 4, 5], 1)]);
        let sliding = cut(Protocol::Sliding { length: 4, stride: 2 }, 6, None, bos).unwrap();
        assert_eq!(sliding, [(vec![77, 0, 1, 2], 1), (vec![77, 2, 3, 4], 2), (vec![77, 3, 4, 5], 3)]);
        let full = cut(Protocol::Full { length: 4 }, 4, None, bos).unwrap();
        assert_eq!(full, [(vec![77, 0, 1, 2], 1), (vec![77, 3], 1)]);
    }

    #[test]
    fn sliding_predicts_every_token_but_the_first_once() {
        for (length, stride, tokens) in [(2, 1, 9), (5, 4, 33), (7, 3, 40), (64, 8, 40), (6, 5, 7)] {
            let mut seen = Vec::new();
            for (ids, from) in cut(Protocol::Sliding { length, stride }, tokens, None, None).unwrap() {
                assert!(ids.len() <= length && ids.windows(2).all(|w| w[1] == w[0] + 1));
                seen.extend_from_slice(&ids[from..]);
            }
            assert_eq!(seen, (1..u32::from(tokens)).collect::<Vec<u32>>(), "{length} {stride} {tokens}");
        }
    }

    #[test]
    fn too_little_text_and_strides_without_context_are_refused() {
        let text = |r: Result<Vec<(Vec<u32>, usize)>>| r.unwrap_err().to_string();
        assert!(text(cut(Protocol::Sliding { length: 4, stride: 4 }, 9, None, None)).contains("1 to 3"));
        assert!(text(cut(Protocol::Full { length: 4 }, 9, Some(9), None)).contains("9 tokens, 2 windows"));
        assert!(text(cut(Protocol::Segments { length: 4 }, 3, None, None)).contains("3 tokens"));
    }

    #[test]
    fn the_standard_error_is_that_of_the_windows() {
        let losses = [(6.0, 3), (9.0, 3), (12.0, 3)].map(|(sum, count)| SampleLoss { sum, count });
        let (value, error) = perplexity(&losses);
        // Means 2, 3, 4: standard deviation 1, of the mean 1/sqrt(3).
        assert!((value - 3_f64.exp()).abs() < 1e-9);
        assert!((error.unwrap() - 3_f64.exp() / 3_f64.sqrt()).abs() < 1e-9);
        assert_eq!(perplexity(&losses[..1]).1, None);
    }
}
