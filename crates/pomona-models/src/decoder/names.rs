//! What transformers calls the parts of a decoder, by role.

/// Names of one family. Outer ones are whole paths; those of a block stand under `blocks.N`. A part that the family does
/// not have is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The network without its head.
    pub model: &'static str,
    /// The list of blocks.
    pub blocks: &'static str,
    pub embed: &'static str,
    pub positions: &'static str,
    pub project_in: &'static str,
    pub project_out: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
    /// Another name of the head in files.
    pub old_head: &'static str,
    pub attention: &'static str,
    pub attention_norm: &'static str,
    pub q: &'static str,
    pub k: &'static str,
    pub v: &'static str,
    /// q, k and v as one matrix.
    pub qkv: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub out: &'static str,
    /// The norm behind attention, inside its branch.
    pub attention_post_norm: &'static str,
    pub mlp: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    /// Gate and up as one matrix.
    pub gate_up: &'static str,
    pub activation: &'static str,
    pub down: &'static str,
    /// The norm behind the feed-forward part, inside its branch.
    pub mlp_post_norm: &'static str,
    pub router: &'static str,
    /// The list of experts, and in each of them gate, up and down.
    pub experts: &'static str,
    pub expert: [&'static str; 3],
    pub shared_expert: &'static str,
    pub shared_gate: &'static str,
}

/// Llama's, which most families keep.
pub(crate) const LLAMA: Names = Names {
    model: "model",
    blocks: "model.layers",
    embed: "model.embed_tokens",
    positions: "",
    project_in: "",
    project_out: "",
    norm: "model.norm",
    head: "lm_head",
    old_head: "",
    attention: "self_attn",
    attention_norm: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    qkv: "",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    out: "self_attn.o_proj",
    attention_post_norm: "",
    mlp: "mlp",
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    gate_up: "",
    activation: "mlp.act_fn",
    down: "mlp.down_proj",
    mlp_post_norm: "",
    router: "mlp.gate",
    experts: "mlp.experts",
    expert: ["gate_proj", "up_proj", "down_proj"],
    shared_expert: "mlp.shared_expert",
    shared_gate: "mlp.shared_expert_gate",
};
