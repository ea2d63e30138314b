"""SmolLM2 (or any GGUF of the llama architecture) as a plain transformers model in float32, its tokenizer, and a
forward pass that can skip sublayers. Shared by the reference scripts of this folder; a library, not a command."""

import json
import resource

import gguf
import numpy
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

ATTENTION, FEED_FORWARD = "attention", "feed_forward"
# GGUF name <- transformers name, within one block.
BLOCK_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def metadata(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


def rotary_halves(rows, heads):
    """Undoes GGUF's interleaved rotary row order: pairs (2i, 2i+1) of a head become (i, i + head_dim / 2)."""
    out_features = rows.shape[0]
    pairs = out_features // heads // 2
    return rows.reshape(heads, pairs, 2, -1).swapaxes(1, 2).reshape(out_features, -1)


def load_model(path):
    """LlamaForCausalLM in float32 with the GGUF's weights, dequantised by the gguf package."""
    reader = gguf.GGUFReader(path)
    meta = metadata(reader)
    if meta["general.architecture"] != "llama":
        raise SystemExit(f"{path}: architecture is {meta['general.architecture']}, expected llama")
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for unsupported in ("rope_freqs.weight",):
        if unsupported in tensors:
            raise SystemExit(f"{path}: {unsupported} is not handled here")

    def widen(name):
        tensor = tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)

    config = LlamaConfig(
        vocab_size=meta.get("llama.vocab_size", len(meta["tokenizer.ggml.tokens"])),
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=meta["llama.context_length"],
        rms_norm_eps=meta["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        tie_word_embeddings="output.weight" not in tensors,
        bos_token_id=meta.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=meta.get("tokenizer.ggml.eos_token_id"),
        use_cache=False,
    )
    state = {"model.embed_tokens.weight": widen("token_embd.weight"), "model.norm.weight": widen("output_norm.weight")}
    state["lm_head.weight"] = widen("output.weight") if "output.weight" in tensors else state["model.embed_tokens.weight"]
    for block in range(config.num_hidden_layers):
        for ours, theirs in BLOCK_TENSORS.items():
            rows = widen(f"blk.{block}.{theirs}.weight")
            if theirs == "attn_q":
                rows = rotary_halves(rows, heads)
            elif theirs == "attn_k":
                rows = rotary_halves(rows, kv_heads)
            state[f"model.layers.{block}.{ours}.weight"] = rows
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    state = {name: torch.from_numpy(numpy.ascontiguousarray(values)) for name, values in state.items()}
    model = model.to_empty(device="cpu")
    model.load_state_dict(state, strict=True)
    # Tying and the rotary buffer are lost on the meta device.
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def load_tokenizer(path):
    """The byte-level BPE of a GGUF whose pre-tokenizer is `smollm`: single digits are split off first, as in the
    model's published tokenizer and in llama.cpp. (transformers' own GGUF reader leaves that split out.)"""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    meta = metadata(gguf.GGUFReader(path))
    if (meta["tokenizer.ggml.model"], meta["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
        raise SystemExit(f"{path}: tokenizer {meta['tokenizer.ggml.model']}/{meta['tokenizer.ggml.pre']} is not handled here")
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    kinds = meta["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == control]
    )
    return tokenizer


def load_tokens(path):
    """(calibration, evaluation) windows of token ids from {"calibration": [[id]], "evaluation": [[id]]}."""
    with open(path) as file:
        windows = json.load(file)
    return tuple(torch.tensor(windows[part], dtype=torch.long) for part in ("calibration", "evaluation"))


class Rotary:
    """cos and sin of a window, computed once: every sublayer of a pass reads the same."""

    def __init__(self, model, ids):
        embedded = model.model.embed_tokens(ids)
        self.embedded = embedded
        self.angles = model.model.rotary_emb(embedded, torch.arange(ids.shape[1])[None])


def sublayer(model, block, kind, hidden, angles):
    """The stream after one residual branch."""
    layer = model.model.layers[block]
    if kind == ATTENTION:
        branch = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden), position_embeddings=angles, attention_mask=None
        )[0]
    else:
        branch = layer.mlp(layer.post_attention_layernorm(hidden))
    return hidden + branch


def token_losses(model, hidden, ids):
    """Negative log likelihood of every predicted token, [windows, tokens - 1]."""
    logits = model.lm_head(model.model.norm(hidden[:, :-1]))
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(ids.shape[0], -1)


def sublayers(model):
    """Every residual branch in order, as (block, kind)."""
    return [(block, kind) for block in range(len(model.model.layers)) for kind in (ATTENTION, FEED_FORWARD)]


def run(model, hidden, angles, parts):
    for block, kind in parts:
        hidden = sublayer(model, block, kind, hidden, angles)
    return hidden


def perplexity(model, ids, parts, batch):
    """exp(mean loss) over all predicted tokens of all windows, running only `parts`."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids), batch):
            window = ids[start : start + batch]
            rotary = Rotary(model, window)
            losses = token_losses(model, run(model, rotary.embedded, rotary.angles, parts), window)
            total += losses.double().sum().item()
            count += losses.numel()
    return float(numpy.exp(total / count))


def peak_rss_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
