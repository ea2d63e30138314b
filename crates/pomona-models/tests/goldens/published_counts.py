"""Makes published.json: configs of published models and how many parameters transformers gives them on the meta device.

Usage: published_counts.py > published.json      (an environment with torch and transformers 5)"""

import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM

CONFIGS = {
    "qwen3-0.6b": dict(
        model_type='qwen3', hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=True, rms_norm_eps=1e-06,
        rope_theta=1000000,
    ),
    "gpt2": dict(model_type='gpt2', n_embd=768, n_layer=12, n_head=12, n_positions=1024, vocab_size=50257),
    "gpt2-xl": dict(model_type='gpt2', n_embd=1600, n_layer=48, n_head=25, n_positions=1024, vocab_size=50257),
    "pythia-160m": dict(
        model_type='gpt_neox', hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, vocab_size=50304, rotary_pct=0.25, tie_word_embeddings=False,
    ),
    "pythia-6.9b": dict(
        model_type='gpt_neox', hidden_size=4096, intermediate_size=16384, num_hidden_layers=32,
        num_attention_heads=32, vocab_size=50432, rotary_pct=0.25, tie_word_embeddings=False,
    ),
    "gemma-2b": dict(
        model_type='gemma', hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8,
        num_key_value_heads=1, head_dim=256, vocab_size=256000, hidden_act='gelu',
    ),
    "gemma-2-2b": dict(
        model_type='gemma2', hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, vocab_size=256000, sliding_window=4096,
    ),
    "gemma-3-1b": dict(
        model_type='gemma3_text', hidden_size=1152, intermediate_size=6912, num_hidden_layers=26,
        num_attention_heads=4, num_key_value_heads=1, head_dim=256, vocab_size=262144, sliding_window=512,
        sliding_window_pattern=6, rope_local_base_freq=10000, rope_theta=1000000,
    ),
    "phi-3-mini": dict(
        model_type='phi3', hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32064, sliding_window=2047,
    ),
    "olmo-2-7b": dict(
        model_type='olmo2', hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=100352, rope_theta=500000,
    ),
    "stablelm-2-1.6b": dict(
        model_type='stablelm', hidden_size=2048, intermediate_size=5632, num_hidden_layers=24,
        num_attention_heads=32, num_key_value_heads=32, vocab_size=100352, use_qkv_bias=True,
        partial_rotary_factor=0.25,
    ),
    "opt-125m": dict(
        model_type='opt', hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12,
        vocab_size=50272, word_embed_proj_dim=768, do_layer_norm_before=True,
    ),
    "opt-350m": dict(
        model_type='opt', hidden_size=1024, ffn_dim=4096, num_hidden_layers=24, num_attention_heads=16,
        vocab_size=50272, word_embed_proj_dim=512, do_layer_norm_before=False,
    ),
    "falcon-7b": dict(
        model_type='falcon', hidden_size=4544, num_hidden_layers=32, num_attention_heads=71, vocab_size=65024,
        multi_query=True, parallel_attn=True, new_decoder_architecture=False, bias=False, alibi=False,
    ),
    "falcon-40b": dict(
        model_type='falcon', hidden_size=8192, num_hidden_layers=60, num_attention_heads=128, num_kv_heads=8,
        vocab_size=65024, multi_query=True, parallel_attn=True, new_decoder_architecture=True, bias=False,
        alibi=False,
    ),
    "mixtral-8x7b": dict(
        model_type='mixtral', hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, vocab_size=32000, num_local_experts=8, num_experts_per_tok=2,
        rope_theta=1000000.0,
    ),
    "qwen1.5-moe-a2.7b": dict(
        model_type='qwen2_moe', hidden_size=2048, intermediate_size=5632, moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632, num_hidden_layers=24, num_attention_heads=16, num_key_value_heads=16,
        vocab_size=151936, num_experts=60, num_experts_per_tok=4, decoder_sparse_step=1, norm_topk_prob=False,
    ),
    "qwen3-30b-a3b": dict(
        model_type='qwen3_moe', hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768,
        num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128, vocab_size=151936,
        num_experts=128, num_experts_per_tok=8, decoder_sparse_step=1, norm_topk_prob=True, rope_theta=1000000.0,
    ),
}


def parameters(config):
    kind = config["model_type"]
    rest = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **rest))
        model.tie_weights()
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


print(json.dumps({name: {"parameters": parameters(c), "config": c} for name, c in CONFIGS.items()}, indent=1))
