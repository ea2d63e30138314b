//! Tensor names: those of transformers to those of GGUF.

use crate::decoder::BLOCKS;

const PARTS: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

const OUTER: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// The GGUF name of a tensor, none where GGUF has none.
pub(crate) fn file_name(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    if let Some(rest) = module.strip_prefix(BLOCKS).and_then(|r| r.strip_prefix('.')) {
        let (block, part) = rest.split_once('.')?;
        let block: usize = block.parse().ok()?;
        let (_, short) = PARTS.iter().find(|(long, _)| *long == part)?;
        return Some(format!("blk.{block}.{short}.{kind}"));
    }
    let (_, short) = OUTER.iter().find(|(long, _)| *long == module)?;
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
            assert_eq!(file_name(long).as_deref(), short);
        }
        assert_eq!(block_of("blk.7.attn_q.weight"), Some((7, "attn_q.weight")));
        assert_eq!(block_of("output.weight"), None);
    }
}
