//! Attention on flat heads without an N x N buffer.
//!
//! Logits are made transposed, `[keys][queries of a panel]`: the softmax then runs along the lanes of a register, and the
//! weights lie as the second product reads them. Keys are taken a block at a time with a running maximum.

mod backward;
mod few;
mod forward;
mod panels;
#[cfg(test)]
mod tests;

pub(crate) use backward::{Known, attention_back};
pub(crate) use forward::attention;

/// Keys of a block: a panel of logits stays in the first-level cache. A multiple of every tile's rows.
const KEYS: usize = 252;

/// Sizes and rules of an attention: q `[batch, queries, heads * dk]`, k `[batch, keys, kv_heads * dk]`,
/// v `[batch, keys, kv_heads * dv]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Channels of a query or key head.
    pub dk: usize,
    /// Channels of a value head.
    pub dv: usize,
    pub scale: f32,
    pub causal: bool,
    /// Latest keys that a query sees; 0 for all.
    pub window: usize,
    /// 0 for none.
    pub softcap: f32,
}

/// Numbers that are added to the logits, for one query or key, head or sample or for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask<'a> {
    pub values: &'a [f32],
    /// Elements from one sample, head, query and key to the next; 0 where there is one for all.
    pub strides: [usize; 4],
}

impl<'a> Mask<'a> {
    /// What is added for a query, from the first key on, and the elements from key to key.
    fn row(&self, b: usize, h: usize, i: usize) -> (&'a [f32], usize) {
        let [sample, head, query, key] = self.strides;
        (&self.values[b * sample + h * head + i * query..], key)
    }

    /// Adds it to logits `[keys from `first` on][queries]`.
    #[inline(always)]
    fn add<const NR: usize>(
        &self,
        logits: &mut [[f32; NR]],
        (b, h): (usize, usize),
        queries: &std::ops::Range<usize>,
        first: usize,
    ) {
        for (l, i) in queries.clone().enumerate() {
            let (row, step) = self.row(b, h, i);
            let mut at = first * step;
            for logits in logits.iter_mut() {
                logits[l] += row[at];
                at += step;
            }
        }
    }
}

impl AttentionShape {
    /// Keys that query `i` sees.
    pub(crate) fn visible(&self, i: usize) -> std::ops::Range<usize> {
        if !self.causal {
            return 0..self.keys;
        }
        let end = (i + 1 + self.keys).saturating_sub(self.queries).min(self.keys);
        let start = if self.window == 0 { 0 } else { end.saturating_sub(self.window) };
        start..end
    }

    /// Keys that any of some queries sees.
    fn reach(&self, queries: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        self.visible(queries.start).start..self.visible(queries.end - 1).end
    }

    /// Whether each of some queries sees all of some keys.
    fn all_see(&self, queries: &std::ops::Range<usize>, keys: &std::ops::Range<usize>) -> bool {
        keys.start >= self.visible(queries.end - 1).start && keys.end <= self.visible(queries.start).end
    }
}
