//! What GGUF and llama.cpp do differently for one architecture.

use pomona_graph::Activation;

use crate::decoder::Decoder;

/// How llama.cpp lays an architecture out, and what it computes whatever the metadata say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// The rows of q and k lie in pairs (its "normal" rotary order).
    pub pairs: bool,
    /// The one matrix of q, k and v lies by parts, where the graph has it head by head.
    pub qkv_apart: bool,
    /// The first is what its files mean.
    pub activations: &'static [Activation],
    /// Every n-th block sees everything, the others a window; none: no windows at all.
    pub window_every: Option<usize>,
    /// Attention logits are bounded.
    pub softcap: bool,
    /// Final logits are bounded.
    pub logit_softcap: bool,
    /// Blocks with a window turn with a base of their own.
    pub window_base: bool,
    /// Metadata say whether the branches are parallel.
    pub parallel_key: bool,
    /// They are where the feed-forward part has no norm of its own, whatever the metadata say.
    pub parallel_by_norm: bool,
    /// The branches are always parallel.
    pub parallel: bool,
    /// The head is always the embedding.
    pub tied: bool,
    /// At this depth attention is scaled by width / heads instead of the width of a head.
    pub scale_depth: Option<usize>,
    /// Biases of q, k and v, of attention's output, and of the feed-forward part.
    pub biases: [Bias; 3],
}

/// Whether llama.cpp reads a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    Never,
    Always,
    Optional,
}

impl Layout {
    /// Llama's.
    pub(crate) const LLAMA: Layout =
        Layout { pairs: true, biases: [Bias::Optional; 3], ..Layout::named("llama") };

    /// An architecture that keeps the rows of its matrices as transformers has them.
    pub(crate) const fn named(architecture: &'static str) -> Layout {
        Layout {
            architecture,
            pairs: false,
            qkv_apart: false,
            activations: &[Activation::Silu],
            window_every: None,
            softcap: false,
            logit_softcap: false,
            window_base: false,
            parallel_key: false,
            parallel_by_norm: false,
            parallel: false,
            tied: false,
            scale_depth: None,
            biases: [Bias::Never; 3],
        }
    }

    /// Whether llama.cpp gives the block of this number a window.
    pub(crate) fn slides(&self, block: usize) -> bool {
        self.window_every.is_some_and(|n| block % n < n - 1)
    }

    /// The factor of the attention logits that llama.cpp uses.
    pub(crate) fn scale(&self, d: &Decoder) -> f64 {
        let heads = d.layers.first().map_or(1, |l| l.heads.max(1));
        match self.scale_depth {
            Some(depth) if depth == d.layers.len() => Decoder::plain_scale(d.width / heads),
            _ => Decoder::plain_scale(d.head_dim),
        }
    }

    /// Blocks whose kind (with a window or without) is not the one that their number means to llama.cpp.
    pub(crate) fn misplaced(&self, d: &Decoder) -> Vec<usize> {
        let wrong = |i: &usize| d.layers[*i].slides != self.slides(*i);
        match self.window_every {
            Some(_) => (0..d.layers.len()).filter(wrong).collect(),
            None => Vec::new(),
        }
    }

    /// The longest context in which llama.cpp sees what the blocks see, where it is shorter than the model's.
    pub(crate) fn context(&self, d: &Decoder) -> Option<usize> {
        if self.window_every.is_some() && self.misplaced(d).is_empty() {
            return None;
        }
        d.layers.iter().filter_map(|l| l.window).min()
    }
}

/// llama.cpp computes GELU by tanh also where a config asks for the exact one.
pub(crate) const GELUS: &[Activation] = &[Activation::GeluTanh, Activation::Gelu];
/// As [`GELUS`], for files of models that were trained with the exact one.
pub(crate) const EXACT_GELUS: &[Activation] = &[Activation::Gelu, Activation::GeluTanh];
