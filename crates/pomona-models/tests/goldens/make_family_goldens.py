"""Makes the goldens of the further decoder families: like make_goldens.py, whose helpers it uses, with bfloat16 weights.

Usage: make_family_goldens.py [DIR] [NAME..]      (an environment with torch, transformers 5, safetensors and gguf)"""

import json
import os
import shutil
import sys

import torch
import transformers
from transformers import (
    AutoModelForCausalLM, FalconConfig, Gemma2Config, Gemma3TextConfig, GemmaConfig, GPT2Config, GPTNeoXConfig,
    MixtralConfig, Olmo2Config, OPTConfig, Phi3Config, Qwen2MoeConfig, Qwen3Config, Qwen3MoeConfig, StableLmConfig,
)

from make_goldens import LOGIT_POSITIONS, SHAPE, TOKENS, VOCAB, check_old_layout, logits_of, old_layout, reopened, rounded, seeded_model

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
            **SHAPE, num_hidden_layers=4, num_key_value_heads=2, head_dim=8, sliding_window=6, query_pre_attn_scalar=10,
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
}
# Blocks taken out for `without_block`; 1 where nothing is said.
BLOCK = {"gemma2": 2, "gemma3": 1, "qwen2_moe": 0, "qwen3": 0}


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
        print(name, sorted(os.listdir(path)), os.path.getsize(f"{path}/model.safetensors"))


if __name__ == "__main__":
    main()
