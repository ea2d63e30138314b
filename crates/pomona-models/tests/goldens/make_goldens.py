"""Makes the importer goldens of this folder: small seeded models of each family as Hugging Face directories, what
transformers computes with them, and GGUF twins as llama.cpp's converter lays them out.

Usage: make_goldens.py [DIR]      (an environment with torch, transformers 5, safetensors and gguf)
Each case is a folder DIR/NAME with config.json, the weights, and expected.json:
  input_ids [2][24], logit_positions [4], logits [2][4][vocab],
  without_block {block, logits [2][vocab]}: last position, that block skipped.
`config.4x.json`, where present, says the same as config.json in the layout of transformers 4.
Logits come from the directory reopened by stock transformers, in float32."""

import json
import math
import os
import shutil
import sys

import gguf
import numpy
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

VOCAB, TOKENS = 96, 24
LOGIT_POSITIONS = [0, 7, 15, 23]
SHAPE = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_attention_heads=4, max_position_embeddings=64,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
LLAMA3_ROPE = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=256,
)
# The old layout keeps theta beside `rope_scaling`; the oldest checkpoints call the kind `type`.
CASES = {
    "llama1": dict(
        config=LlamaConfig(**SHAPE, num_hidden_layers=3, num_key_value_heads=4, rms_norm_eps=1e-6),
        old=dict(rope_theta=10000.0, rope_scaling=None), old_only=True,
    ),
    "llama3": dict(
        config=LlamaConfig(
            **SHAPE | dict(max_position_embeddings=2048), num_hidden_layers=3, num_key_value_heads=2, rms_norm_eps=1e-5,
            tie_word_embeddings=True, rope_parameters=dict(LLAMA3_ROPE),
        ),
        old=dict(rope_theta=500000.0, rope_scaling={k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"}),
        gguf="llama",
    ),
    "llama_linear": dict(
        config=LlamaConfig(
            **SHAPE, num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-6,
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
        ),
        old=dict(rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0}), old_only=True, gguf="llama",
    ),
    "llama_bias": dict(
        config=LlamaConfig(
            **SHAPE, num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-6, attention_bias=True, mlp_bias=True
        ),
    ),
    # A window is stored, but `use_sliding_window` is off: attention must see everything.
    "qwen2": dict(
        config=Qwen2Config(
            **SHAPE, num_hidden_layers=3, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
            use_sliding_window=False, sliding_window=8, max_window_layers=1,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        old=dict(rope_theta=1000000.0, use_sliding_window=False, sliding_window=8, max_window_layers=1),
        shard="60KB", gguf="qwen2",
    ),
    "qwen2_window": dict(
        config=Qwen2Config(
            **SHAPE, num_hidden_layers=3, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
            use_sliding_window=True, sliding_window=8, max_window_layers=1,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0),
        ),
        old=dict(rope_theta=10000.0, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    ),
    # Heads are wider than hidden_size / heads, and the weights are bfloat16.
    "mistral": dict(
        config=MistralConfig(
            **SHAPE, num_hidden_layers=2, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-5, sliding_window=8,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0),
        ),
        old=dict(rope_theta=10000.0, sliding_window=8), dtype=torch.bfloat16,
    ),
    "smollm2": dict(
        config=LlamaConfig(
            **SHAPE | dict(hidden_size=48, num_attention_heads=3, bos_token_id=1, eos_token_id=2), num_hidden_layers=2,
            num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=100000.0),
        ),
        old=dict(rope_theta=100000.0, rope_scaling=None), gguf="llama",
    ),
}


def seeded_model(config, seed):
    """Weights large enough that attention is far from uniform; norms and biases away from 1 and 0."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.copy_((1.0 if "norm" in name else 0.0) + 0.2 * noise)
            else:
                parameter.copy_(noise * (1.5 / math.sqrt(parameter.shape[1])))
    return model


def old_layout(path, case):
    """config.json as transformers 4 wrote it."""
    with open(f"{path}/config.json") as file:
        config = json.load(file)
    for key in ("rope_parameters", "layer_types", "dtype"):
        config.pop(key, None)
    config.update(case["old"], torch_dtype=str(case.get("dtype", torch.float32)).removeprefix("torch."))
    config["transformers_version"] = "4.46.0"
    name = "config.json" if case.get("old_only") else "config.4x.json"
    with open(f"{path}/{name}", "w") as file:
        json.dump(dict(sorted(config.items())), file, indent=2)
        file.write("\n")


def rounded(values):
    return [float(f"{value:.7g}") for value in values.tolist()]


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits.float()


def reopened(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def expected(path, seed):
    model = reopened(path)
    ids = torch.randint(3, VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(1000 + seed))
    logits = logits_of(model, ids)
    if os.path.exists(f"{path}/config.4x.json"):
        check_old_layout(path, ids, logits)
    block = 1
    layers = model.model.layers
    model.model.layers = torch.nn.ModuleList(layer for index, layer in enumerate(layers) if index != block)
    model.config.num_hidden_layers = len(layers) - 1
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [kind for index, kind in enumerate(model.config.layer_types) if index != block]
    return {
        "transformers": transformers.__version__,
        "input_ids": ids.tolist(),
        "logit_positions": LOGIT_POSITIONS,
        "logits": [[rounded(row[position]) for position in LOGIT_POSITIONS] for row in logits],
        "without_block": {"block": block, "logits": [rounded(row[-1]) for row in logits_of(model, ids)]},
    }


def check_old_layout(path, ids, logits):
    twin = f"{path}.4x"
    shutil.copytree(path, twin)
    shutil.move(f"{twin}/config.4x.json", f"{twin}/config.json")
    difference = (logits_of(reopened(twin), ids) - logits).abs().max().item()
    shutil.rmtree(twin)
    assert difference < 1e-5, f"{path}: the two config layouts differ by {difference}"


def interleaved(values, heads):
    """llama.cpp's rotary row order of q and k: rows i and i + head_dim / 2 of a head become neighbours."""
    rows = values.shape[0]
    return values.reshape(heads, 2, rows // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def rope_divisors(config):
    """llama.cpp keeps llama3 scaling as one divisor for each rotary frequency."""
    rope = config.rope_parameters
    dim = config.hidden_size // config.num_attention_heads
    longest = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    shortest = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    divisors = []
    for index in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (index / dim)
        if wavelength < shortest:
            divisors.append(1.0)
        elif wavelength > longest:
            divisors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return numpy.array(divisors, dtype=numpy.float32)


def write_gguf(path, architecture, out):
    model = reopened(path)
    config = model.config
    writer = gguf.GGUFWriter(out, architecture)
    writer.add_name(os.path.basename(path))
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if architecture == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    add_tokenizer(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA if architecture == "llama" else gguf.MODEL_ARCH.QWEN2,
                                     config.num_hidden_layers)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_divisors(config))
    for name, values in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = values.numpy()
        if architecture == "llama" and ".q_proj." in name:
            values = interleaved(values, config.num_attention_heads)
        elif architecture == "llama" and ".k_proj." in name:
            values = interleaved(values, config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), numpy.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer):
    """Single characters only; byte-level names, so that llama.cpp opens it."""
    tokens = ["<unk>", "<s>", "</s>", "\u010a", "\u0120"] + [chr(code) for code in range(0x21, 0x7F)]
    tokens = tokens[:VOCAB] + [f"<unused{index}>" for index in range(VOCAB - len(tokens))]
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (VOCAB - 3)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["\u0120 t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(CASES.items()):
        path = os.path.join(root, name)
        shutil.rmtree(path, ignore_errors=True)
        model = seeded_model(case["config"], seed).to(case.get("dtype", torch.float32))
        model.save_pretrained(path, max_shard_size=case.get("shard", "1GB"))
        if os.path.exists(f"{path}/generation_config.json"):
            os.remove(f"{path}/generation_config.json")
        if "old" in case:
            old_layout(path, case)
        with open(f"{path}/expected.json", "w") as file:
            json.dump(expected(path, seed), file)
            file.write("\n")
        if "gguf" in case:
            write_gguf(path, case["gguf"], os.path.join(root, f"{name}.gguf"))
        print(name, sorted(os.listdir(path)))


if __name__ == "__main__":
    main()
