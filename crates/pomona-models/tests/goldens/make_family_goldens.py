"""Makes the goldens of the further decoder families: like make_goldens.py, whose helpers it uses, with bfloat16 weights.

Usage: make_family_goldens.py [DIR] [NAME..]      (an environment with torch, transformers 5, safetensors and gguf)"""

import json
import os
import shutil
import sys

import gguf
import numpy
import torch
import transformers
from transformers import (
    AutoModelForCausalLM, FalconConfig, Gemma2Config, Gemma3TextConfig, GemmaConfig, GPT2Config, GPTNeoXConfig,
    MixtralConfig, Olmo2Config, OPTConfig, Phi3Config, Qwen2MoeConfig, Qwen3Config, Qwen3MoeConfig, StableLmConfig,
)

from make_goldens import add_tokenizer, LOGIT_POSITIONS, SHAPE, TOKENS, VOCAB, check_old_layout, logits_of, old_layout, reopened, rounded, seeded_model

NO_FF = {k: v for k, v in SHAPE.items() if k != "intermediate_size"}
GPT2 = dict(vocab_size=VOCAB, n_embd=32, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
# `old` is what transformers 4 wrote instead of `rope_parameters`, `layer_types` and `dtype`.
CASES = {
    # Windows from block 1 on, heads wider than hidden_size / heads.
    "qwen3": dict(
        config=Qwen3Config(
            **SHAPE, num_hidden_layers=3, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True,
            use_sliding_window=True, sliding_window=8, max_window_layers=1,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        old=dict(rope_theta=1000000.0, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    ),
    "gpt2": dict(config=GPT2Config(**GPT2, n_layer=3), old={}),
    # Scales by the block's number: what no config says once a block is gone.
    "gpt2_scaled": dict(config=GPT2Config(**GPT2, n_layer=2, n_inner=40, scale_attn_by_inverse_layer_idx=True)),
    "gpt_neox": dict(
        config=GPTNeoXConfig(
            **SHAPE, num_hidden_layers=3, rope_parameters=dict(rope_type="default", rope_theta=5000.0, partial_rotary_factor=0.25)
        ),
        old=dict(rotary_pct=0.25, rotary_emb_base=5000.0),
    ),
    "gpt_neox_sequential": dict(
        config=GPTNeoXConfig(
            **SHAPE, num_hidden_layers=2, use_parallel_residual=False, attention_bias=False,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5),
        ),
    ),
    "gemma": dict(
        config=GemmaConfig(**SHAPE, num_hidden_layers=2, num_key_value_heads=1, head_dim=12),
        old=dict(rope_theta=10000.0, hidden_act="gelu", hidden_activation=None),
    ),
    "gemma2": dict(
        config=Gemma2Config(
            **SHAPE, num_hidden_layers=4, num_key_value_heads=2, head_dim=8, sliding_window=6, query_pre_attn_scalar=8,
            attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
        ),
        old=dict(rope_theta=10000.0),
    ),
    # Every third block sees everything, with another rotary base and positions divided by 2.
    "gemma3": dict(
        config=Gemma3TextConfig(
            **SHAPE, num_hidden_layers=4, num_key_value_heads=2, head_dim=8, sliding_window=6, query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters=dict(
                sliding_attention=dict(rope_type="default", rope_theta=10000.0),
                full_attention=dict(rope_type="linear", factor=2.0, rope_theta=100000.0),
            ),
        ),
        old=dict(
            rope_theta=100000.0, rope_local_base_freq=10000.0, rope_scaling=dict(rope_type="linear", factor=2.0),
            sliding_window_pattern=3,
        ),
    ),
    "phi3": dict(
        config=Phi3Config(**SHAPE, num_hidden_layers=2, num_key_value_heads=2, sliding_window=8),
        old=dict(rope_theta=10000.0, rope_scaling=None),
    ),
    # Factors for the stretched context, sines and cosines scaled.
    "phi3_longrope": dict(
        config=Phi3Config(
            **SHAPE | dict(max_position_embeddings=256), original_max_position_embeddings=64, num_hidden_layers=2,
            rope_parameters=dict(
                rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.0, 2.0, 3.0, 4.0],
                original_max_position_embeddings=64,
            ),
        ),
    ),
    "olmo2": dict(
        config=Olmo2Config(**SHAPE, num_hidden_layers=2, num_key_value_heads=2, rope_parameters=dict(rope_type="default", rope_theta=500000.0)),
        old=dict(rope_theta=500000.0),
    ),
    "stablelm": dict(
        config=StableLmConfig(
            **SHAPE, num_hidden_layers=2, num_key_value_heads=2, use_qkv_bias=True,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5),
        ),
        old=dict(rope_theta=10000.0, partial_rotary_factor=0.5),
    ),
    "stablelm_parallel": dict(
        config=StableLmConfig(
            **SHAPE, num_hidden_layers=2, num_key_value_heads=4, use_parallel_residual=True,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25),
        ),
    ),
    "opt": dict(config=OPTConfig(**NO_FF, ffn_dim=48, num_hidden_layers=3), old={}),
    # As the 350M model: norms behind the joins, a narrower embedding.
    "opt_post": dict(config=OPTConfig(**NO_FF, ffn_dim=48, num_hidden_layers=2, do_layer_norm_before=False, word_embed_proj_dim=24)),
    # The architectures of 7B, 40B, and a sequential one with all key heads.
    "falcon": dict(config=FalconConfig(**NO_FF, num_hidden_layers=2), old=dict(rope_theta=10000.0, rope_scaling=None)),
    "falcon_new": dict(config=FalconConfig(**NO_FF, num_hidden_layers=2, new_decoder_architecture=True, num_kv_heads=2, ffn_hidden_size=48)),
    "falcon_heads": dict(config=FalconConfig(**NO_FF, num_hidden_layers=2, multi_query=False, parallel_attn=False, bias=True)),
    "mixtral": dict(
        config=MixtralConfig(**SHAPE | dict(intermediate_size=24), num_hidden_layers=2, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2),
        old=dict(rope_theta=1000000.0),
    ),
    # The middle block has no experts.
    "qwen2_moe": dict(
        config=Qwen2MoeConfig(
            **SHAPE, num_hidden_layers=3, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
            shared_expert_intermediate_size=24, mlp_only_layers=[1],
        ),
    ),
    "qwen3_moe": dict(
        config=Qwen3MoeConfig(
            **SHAPE, num_hidden_layers=2, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=16, norm_topk_prob=True,
        ),
    ),
    # What GGUF can hold: no windows, and Gemma 3's with every sixth block as llama.cpp numbers them.
    "qwen3_plain": dict(config=Qwen3Config(**SHAPE, num_hidden_layers=2, num_key_value_heads=2, head_dim=12)),
    "gemma3_six": dict(
        config=Gemma3TextConfig(
            **SHAPE | dict(hidden_size=16, num_attention_heads=2, intermediate_size=24), num_hidden_layers=7, num_key_value_heads=1,
            head_dim=8, sliding_window=6, query_pre_attn_scalar=8,
            rope_parameters=dict(
                sliding_attention=dict(rope_type="default", rope_theta=10000.0),
                full_attention=dict(rope_type="linear", factor=2.0, rope_theta=1000000.0),
            ),
        ),
    ),
}
# Blocks taken out for `without_block`; 1 where nothing is said.
BLOCK = {"gemma2": 2, "gemma3_six": 6, "gemma3": 1, "qwen2_moe": 0, "qwen3": 0}


def blocks_of(model):
    base = model.base_model
    base = getattr(base, "decoder", base)
    return base, "h" if hasattr(base, "h") else "layers"


def expected(path, name, seed):
    model = reopened(path)
    ids = torch.randint(3, VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(1000 + seed))
    logits = logits_of(model, ids)
    if os.path.exists(f"{path}/config.4x.json"):
        check_old_layout(path, ids, logits)
    block = BLOCK.get(name, 1)
    base, key = blocks_of(model)
    kept = [layer for index, layer in enumerate(getattr(base, key)) if index != block]
    setattr(base, key, torch.nn.ModuleList(kept))
    model.config.num_hidden_layers = len(kept)
    for config in {id(c): c for c in (model.config, base.config)}.values():
        if getattr(config, "layer_types", None) and len(config.layer_types) > len(kept):
            config.layer_types = [kind for index, kind in enumerate(config.layer_types) if index != block]
    return {
        "transformers": transformers.__version__,
        "input_ids": ids.tolist(),
        "logit_positions": LOGIT_POSITIONS,
        "logits": [[rounded(row[position]) for position in LOGIT_POSITIONS] for row in logits],
        "without_block": {"block": block, "logits": [rounded(row[-1]) for row in logits_of(model, ids)]},
    }


# GGUF twins, laid out as llama.cpp's converter does it, by architecture.
TWINS = {
    "qwen3_plain": "qwen3", "gpt2": "gpt2", "gpt_neox": "gptneox", "gpt_neox_sequential": "gptneox", "gemma": "gemma",
    "gemma2": "gemma2", "gemma3_six": "gemma3", "phi3": "phi3", "olmo2": "olmo2", "stablelm": "stablelm",
    "stablelm_parallel": "stablelm", "falcon": "falcon", "falcon_new": "falcon",
}


def write_gguf(path, architecture, out):
    model = reopened(path)
    c = model.config
    text = c.to_dict()
    depth, width, heads = c.num_hidden_layers, c.hidden_size, c.num_attention_heads
    kv_heads = getattr(c, "num_key_value_heads", heads)
    if architecture == "falcon":
        kv_heads = c.num_kv_heads if c.new_decoder_architecture else 1
    head_dim = text.get("head_dim") or width // heads
    writer = gguf.GGUFWriter(out, architecture)
    # llama.cpp looks for tokens of Phi-3 where a name has it.
    writer.add_name("tiny")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(depth)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(text.get("intermediate_size") or text.get("ffn_hidden_size") or text.get("n_inner") or 4 * width)
    writer.add_head_count(heads)
    if architecture in ("gpt2", "falcon"):
        writer.add_layer_norm_eps(c.layer_norm_epsilon)
    elif architecture in ("gptneox", "stablelm"):
        writer.add_layer_norm_eps(c.layer_norm_eps)
        writer.add_parallel_residual(c.use_parallel_residual)
    else:
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    if architecture not in ("gpt2", "gptneox"):
        writer.add_head_count_kv(kv_heads)
    if architecture.startswith("gemma") or architecture == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture in ("gemma2", "gemma3", "phi3"):
        writer.add_sliding_window(c.sliding_window or 0)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    rope = text.get("rope_parameters")
    if architecture == "gemma3":
        rope = rope["full_attention"]
        if rope["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
    if rope:
        writer.add_rope_freq_base(rope["rope_theta"])
    if architecture in ("gptneox", "stablelm", "phi3"):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    add_tokenizer(writer)
    kind = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, depth)
    for name, values in model.state_dict().items():
        if name.endswith((".attn.bias", ".masked_bias", "rotary_emb.inv_freq")) or (c.tie_word_embeddings and "lm_head" in name):
            continue
        values = values.numpy()
        if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            values = values.T
        if architecture == "gptneox" and "query_key_value" in name:
            values = values.reshape(heads, 3, head_dim, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)
        if architecture == "falcon" and "query_key_value" in name:
            groups = values.reshape(kv_heads, heads // kv_heads + 2, head_dim, width)
            parts = (groups[:, :-2], groups[:, -2], groups[:, -1])
            values = numpy.concatenate([part.reshape(-1, width) for part in parts])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        name = name.replace("lm_head.", "embed_out.") if architecture == "gptneox" else name
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), numpy.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    wanted = sys.argv[2:] or list(CASES)
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(CASES.items()):
        if name not in wanted:
            continue
        path = os.path.join(root, name)
        shutil.rmtree(path, ignore_errors=True)
        case["dtype"] = torch.bfloat16
        model = seeded_model(case["config"], 100 + seed).to(torch.bfloat16)
        model.save_pretrained(path)
        for extra in ("generation_config.json",):
            if os.path.exists(f"{path}/{extra}"):
                os.remove(f"{path}/{extra}")
        if "old" in case:
            old_layout(path, case)
        with open(f"{path}/expected.json", "w") as file:
            json.dump(expected(path, name, 100 + seed), file)
            file.write("\n")
        if name in TWINS:
            write_gguf(path, TWINS[name], os.path.join(root, f"{name}.gguf"))
        print(name, sorted(os.listdir(path)), os.path.getsize(f"{path}/model.safetensors"))


if __name__ == "__main__":
    main()
