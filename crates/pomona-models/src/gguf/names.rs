//! Tensor names: those of transformers to those of GGUF.

use crate::decoder::Names;

/// Modules of a block by role, and the name that GGUF has for each.
fn parts(n: &Names) -> [(&'static str, &'static str); 19] {
    [
        (n.attention_norm, "attn_norm"),
        (n.q, "attn_q"),
        (n.k, "attn_k"),
        (n.v, "attn_v"),
        (n.qkv, "attn_qkv"),
        (n.q_norm, "attn_q_norm"),
        (n.k_norm, "attn_k_norm"),
        (n.out, "attn_output"),
        (n.attention_post_norm, "post_attention_norm"),
        (n.mlp_norm, "ffn_norm"),
        (n.gate, "ffn_gate"),
        (n.up, "ffn_up"),
        (n.gate_up, "ffn_up"),
        (n.down, "ffn_down"),
        (n.mlp_post_norm, "post_ffw_norm"),
        (n.router, "ffn_gate_inp"),
        (n.shared_gate, "ffn_gate_inp_shexp"),
        // Falcon's two norms: the first name is that of the feed-forward part.
        ("ln_mlp", "attn_norm"),
        ("ln_attn", "attn_norm_2"),
    ]
}

/// The GGUF name of a tensor, none where GGUF has none.
pub(crate) fn file_name(names: &Names, tensor: &str) -> Option<String> {
    let (module, kind) = tensor.rsplit_once('.')?;
    if let Some(rest) = module.strip_prefix(names.blocks).and_then(|r| r.strip_prefix('.')) {
        let (block, part) = rest.split_once('.')?;
        let block: usize = block.parse().ok()?;
        let (_, short) = parts(names).into_iter().find(|(long, _)| *long == part)?;
        return Some(format!("blk.{block}.{short}.{kind}"));
    }
    let outer = [
        (names.embed, "token_embd"),
        (names.positions, "position_embd"),
        (names.norm, "output_norm"),
        (names.head, "output"),
    ];
    let (_, short) = outer.into_iter().find(|(long, _)| *long == module)?;
    Some(format!("{short}.{kind}"))
}

/// The number of the block that a GGUF tensor belongs to, and the rest of its name.
pub(crate) fn block_of(file_name: &str) -> Option<(usize, &str)> {
    let (block, rest) = file_name.strip_prefix("blk.")?.split_once('.')?;
    Some((block.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::LLAMA;

    #[test]
    fn names_map() {
        for (long, short) in [
            ("model.embed_tokens.weight", Some("token_embd.weight")),
            ("lm_head.weight", Some("output.weight")),
            ("model.norm.weight", Some("output_norm.weight")),
            ("model.layers.11.self_attn.q_proj.bias", Some("blk.11.attn_q.bias")),
            ("model.layers.0.mlp.down_proj.weight", Some("blk.0.ffn_down.weight")),
            ("model.layers.x.mlp.down_proj.weight", None),
            ("visual.patch.weight", None),
        ] {
            assert_eq!(file_name(&LLAMA, long).as_deref(), short);
        }
        assert_eq!(block_of("blk.7.attn_q.weight"), Some((7, "attn_q.weight")));
        assert_eq!(block_of("output.weight"), None);
    }
}
