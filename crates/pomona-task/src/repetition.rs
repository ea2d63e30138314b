//! Repetition in generated tokens: models that lost blocks run in loops before their perplexity says so.

/// Repetitions of a phrase from which on it counts as a loop.
const TIMES: usize = 3;
/// Tokens that a loop has at least: three line ends are none.
const TOKENS: usize = 12;

/// A phrase that stands several times in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loop {
    /// First token.
    pub start: usize,
    /// Tokens, all repetitions.
    pub tokens: usize,
    /// Tokens of the phrase.
    pub period: usize,
}

/// Repetition in one text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repetition {
    /// Runs of n tokens, overlapping.
    pub ngrams: usize,
    /// Those that stood earlier in the text: 1 - distinct / all is the measure `seq-rep-n` of Welleck et al. (arXiv
    /// 1908.04319).
    pub repeated: usize,
    /// The longest phrase that stands at least three times in a row and has 12 tokens so; none without one.
    pub longest: Option<Loop>,
    /// Such a loop reaches the end: the model did not leave it.
    pub ends_in_loop: bool,
}

/// Counts repetition of runs of `n` tokens, and looks for loops.
pub fn repetition(ids: &[u32], n: usize) -> Repetition {
    let mut seen = std::collections::HashSet::new();
    let repeated = ids.windows(n.max(1)).filter(|run| !seen.insert(*run)).count();
    let mut found =
        Repetition { ngrams: (ids.len() + 1).saturating_sub(n.max(1)), repeated, ..Repetition::default() };
    for period in 1..=ids.len() / TIMES {
        let mut run = 0;
        for at in period..ids.len() {
            run = if ids[at] == ids[at - period] { run + 1 } else { 0 };
            let tokens = run + period;
            if tokens < (TIMES * period).max(TOKENS) {
                continue;
            }
            found.ends_in_loop |= at + 1 == ids.len();
            // Equal lengths keep the shorter phrase: it comes first.
            if found.longest.is_none_or(|l| tokens > l.tokens) {
                found.longest = Some(Loop { start: at + 1 - tokens, tokens, period });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_loops_are_counted_by_hand() {
        let plain: Vec<u32> = (0..20).collect();
        assert_eq!(repetition(&plain, 4), Repetition { ngrams: 17, ..Repetition::default() });
        // 7 8 9 four times behind two others: 11 runs of 4, of which the distinct ones are 0 1 7 8, 1 7 8 9, 7 8 9 7,
        // 8 9 7 8, 9 7 8 9.
        let looping = [0, 1, 7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8, 9];
        let found = repetition(&looping, 4);
        assert_eq!((found.ngrams, found.repeated), (11, 6));
        assert_eq!(found.longest, Some(Loop { start: 2, tokens: 12, period: 3 }));
        assert!(found.ends_in_loop);
        let left: Vec<u32> = looping.into_iter().chain([4]).collect();
        assert!(!repetition(&left, 4).ends_in_loop && repetition(&left, 4).longest.is_some());
        let one = repetition(&[5; 30], 4);
        assert_eq!((one.longest, one.repeated), (Some(Loop { start: 0, tokens: 30, period: 1 }), 26));
        assert_eq!(repetition(&[3, 3, 3], 4), Repetition::default(), "too short for either");
        assert_eq!(repetition(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6], 4).longest, None, "twice is no loop");
    }
}
