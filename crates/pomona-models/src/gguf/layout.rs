//! What GGUF does differently for one architecture.

use pomona_graph::Activation;

/// How llama.cpp lays an architecture out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// The rows of q and k lie in pairs (its "normal" rotary order).
    pub pairs: bool,
    /// The one matrix of q, k and v lies by parts, where the graph has it head by head.
    pub qkv_apart: bool,
    /// What llama.cpp computes, whatever the metadata say; the first is what its files mean.
    pub activations: &'static [Activation],
    /// Every n-th block sees everything, the others a window; none: no windows at all.
    pub window_every: Option<usize>,
}

impl Layout {
    /// Llama's.
    pub(crate) const LLAMA: Layout = Layout { pairs: true, ..Layout::named("llama") };

    /// An architecture that keeps the rows of its matrices as transformers has them.
    pub(crate) const fn named(architecture: &'static str) -> Layout {
        Layout {
            architecture,
            pairs: false,
            qkv_apart: false,
            activations: &[Activation::Silu],
            window_every: None,
        }
    }
}

/// llama.cpp computes GELU by tanh also where a config asks for the exact one.
pub(crate) const GELUS: &[Activation] = &[Activation::GeluTanh, Activation::Gelu];
/// As [`GELUS`], for files of models that were trained with the exact one.
pub(crate) const EXACT_GELUS: &[Activation] = &[Activation::Gelu, Activation::GeluTanh];
