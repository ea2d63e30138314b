//! From log-likelihoods to accuracy.

use serde::Serialize;

use super::Question;

/// A share of right answers, with its standard error (of the mean of zeros and ones, n - 1 in the variance).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Between 0 and 1.
    pub value: f64,
    /// 0 with a single question.
    pub standard_error: f64,
}

impl Share {
    fn of(right: impl Iterator<Item = bool>) -> Share {
        let (hits, n) = right.fold((0.0, 0.0), |(h, n), r| (h + f64::from(u8::from(r)), n + 1.0));
        let value = if n > 0.0 { hits / n } else { 0.0 };
        let standard_error = if n > 1.0 { (value * (1.0 - value) / (n - 1.0)).sqrt() } else { 0.0 };
        Share { value, standard_error }
    }
}

/// Log-likelihoods of all options of one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// Line of the question.
    pub line: usize,
    /// The right option, from 0.
    pub answer: usize,
    /// In nats.
    pub log_likelihoods: Vec<f64>,
    /// UTF-8 bytes of each option, without the space before it.
    pub bytes: Vec<usize>,
    /// Characters of each.
    #[serde(skip)]
    characters: Vec<usize>,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// By question.
    pub scored: Vec<Scored>,
}

impl Answers {
    /// From the log-likelihoods of all options of all questions, in order.
    pub fn new(questions: &[Question], log_likelihoods: &[f64]) -> Answers {
        let mut rest = log_likelihoods;
        let scored = questions.iter().map(|q| {
            let (own, later) = rest.split_at(q.options.len().min(rest.len()));
            rest = later;
            Scored {
                line: q.line,
                answer: q.answer,
                log_likelihoods: own.to_vec(),
                bytes: q.options.iter().map(String::len).collect(),
                characters: q.options.iter().map(|o| o.chars().count()).collect(),
            }
        });
        Answers { scored: scored.collect() }
    }

    fn share(&self, divisor: impl Fn(&Scored, usize) -> f64) -> Share {
        Share::of(self.scored.iter().map(|s| {
            let by = |(k, l): (usize, &f64)| l / divisor(s, k);
            likeliest(s.log_likelihoods.iter().enumerate().map(by)) == s.answer
        }))
    }

    /// The likeliest option.
    pub fn acc(&self) -> Share {
        self.share(|_, _| 1.0)
    }

    /// The option with the largest log-likelihood a byte.
    pub fn acc_norm(&self) -> Share {
        self.share(|s, k| s.bytes[k] as f64)
    }

    /// The option with the largest log-likelihood a character, as the harness computes what it calls `acc_norm`. It
    /// differs from that by bytes where options are not plain ASCII.
    pub fn acc_characters(&self) -> Share {
        self.share(|s, k| s.characters[k] as f64)
    }

    /// What guessing gives.
    pub fn chance(&self) -> f64 {
        let all: f64 = self.scored.iter().map(|s| 1.0 / s.log_likelihoods.len().max(1) as f64).sum();
        all / self.scored.len().max(1) as f64
    }
}

/// The first of the largest.
fn likeliest(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().fold((0, f64::NEG_INFINITY), |b, (i, v)| if v > b.1 { (i, v) } else { b }).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(options: &[&str], answer: usize) -> Question {
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        Question { options, answer, ..Question::default() }
    }

    #[test]
    fn shares_are_counted_by_hand() {
        let questions = [
            question(&["ab", "abcd"], 0),
            question(&["ab", "abcd"], 1),
            question(&["é", "ab"], 1),
            question(&["a", "b", "c"], 2),
        ];
        // By sum: 0, 0, 0, 0 (the first of equals). By byte: -2 -1.5, -1 -1.25, -1 -1.25, first. By character the
        // third is -2 -1.25.
        let found = Answers::new(&questions, &[-4.0, -6.0, -2.0, -5.0, -2.0, -2.5, -1.0, -1.0, -1.0]);
        assert_eq!(found.acc().value, 0.25);
        assert_eq!(found.acc_norm().value, 0.0);
        assert_eq!(found.acc_characters().value, 0.25);
        assert!((found.acc().standard_error - (0.25_f64 * 0.75 / 3.0).sqrt()).abs() < 1e-12);
        assert!((found.chance() - (0.5 * 3.0 + 1.0 / 3.0) / 4.0).abs() < 1e-12);
    }
}
