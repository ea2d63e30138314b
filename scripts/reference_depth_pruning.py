"""Depth pruning of a GGUF language model by the protocol of Shortened LLaMA (arXiv 2402.02834), in plain PyTorch:
the reference that scores, removal orders and perplexities are compared with.

Usage: reference_depth_pruning.py --gguf MODEL.gguf --tokens tokens.json --out result.json
       [--unit block|sublayer] [--removals 6] [--evaluate protected|both|none] [--cache cache.json] [--threads 2]
tokens.json: {"calibration": [[id]*128]*10, "evaluation": [[id]*512]*24}, used as given: no BOS is added.

Criteria, low = goes first, ties by position:
  perplexity       exp(mean loss of the predicted calibration tokens) with the unit skipped
  taylor           sum over the unit's weights of |W * dL/dW|, one backward of the mean loss over all windows
  magnitude        sum over the unit's weights of |W|
  block-influence  mean over tokens of 1 - cosine(stream before the unit, stream after it)
Protected orders never hold the first four and the last two blocks. Iterative orders score again after each removal.
Unfinished work is kept in the cache file, keyed by tokens and removed set, so that a second run goes on."""

import argparse
import hashlib
import json
import os
import statistics
import time

import torch
import torch.nn.functional as F
from reference_llama import (
    ATTENTION, FEED_FORWARD, Rotary, load_model, load_tokens, peak_rss_mb, perplexity, run, sublayer, sublayers, token_losses,
)

FIRST_PROTECTED, LAST_PROTECTED = 4, 2
ITERATIVE = ("perplexity", "taylor", "block-influence")
UNIT_TENSORS = {
    ATTENTION: ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    FEED_FORWARD: ("post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}


def weights(model, unit):
    return [
        model.model.layers[block].get_submodule(name).weight for block, kind in unit for name in UNIT_TENSORS[kind]
    ]


def by_perplexity(model, ids, units, seconds):
    """One pass over the whole model keeps the stream at every unit; each candidate runs only what follows it."""
    scores, streams = [], []
    with torch.no_grad():
        rotary = Rotary(model, ids)
        hidden = rotary.embedded
        for unit in units:
            streams.append(hidden)
            hidden = run(model, hidden, rotary.angles, unit)
        for index, _ in enumerate(units):
            started = time.perf_counter()
            after = [part for unit in units[index + 1 :] for part in unit]
            losses = token_losses(model, run(model, streams[index], rotary.angles, after), ids)
            scores.append(losses.double().mean().exp().item())
            seconds.append(time.perf_counter() - started)
    return scores


def by_taylor(model, ids, units, seconds):
    started = time.perf_counter()
    model.zero_grad(set_to_none=True)
    wanted = [weights(model, unit) for unit in units]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in (parameter for group in wanted for parameter in group):
        parameter.requires_grad_(True)
    rotary = Rotary(model, ids)
    hidden = run(model, rotary.embedded, rotary.angles, [part for unit in units for part in unit])
    token_losses(model, hidden, ids).mean().backward()
    scores = [
        sum((weight.detach() * weight.grad).abs().double().sum().item() for weight in group) for group in wanted
    ]
    model.zero_grad(set_to_none=True)
    seconds.append(time.perf_counter() - started)
    return scores


def by_magnitude(model, _ids, units, seconds):
    started = time.perf_counter()
    scores = [sum(weight.detach().abs().double().sum().item() for weight in weights(model, unit)) for unit in units]
    seconds.append(time.perf_counter() - started)
    return scores


def by_influence(model, ids, units, seconds):
    started = time.perf_counter()
    scores = []
    with torch.no_grad():
        rotary = Rotary(model, ids)
        hidden = rotary.embedded
        for unit in units:
            after = run(model, hidden, rotary.angles, unit)
            cosine = F.cosine_similarity(hidden.double(), after.double(), dim=-1)
            scores.append((1 - cosine).mean().item())
            hidden = after
    seconds.append(time.perf_counter() - started)
    return scores


CRITERIA = {
    "perplexity": by_perplexity,
    "taylor": by_taylor,
    "magnitude": by_magnitude,
    "block-influence": by_influence,
}


class Cache:
    """Scores and perplexities already measured, by what was removed."""

    def __init__(self, path, key):
        self.path, self.entries = path, {}
        if path and os.path.exists(path):
            with open(path) as file:
                stored = json.load(file)
            self.entries = stored["entries"] if stored["key"] == key else {}
        self.key = key

    def get(self, name, measure):
        if name not in self.entries:
            self.entries[name] = measure()
            if self.path:
                with open(self.path + ".new", "w") as file:
                    json.dump({"key": self.key, "entries": self.entries}, file)
                os.replace(self.path + ".new", self.path)
        return self.entries[name]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--unit", choices=("block", "sublayer"), default="block")
    parser.add_argument("--removals", type=int, default=6)
    parser.add_argument("--evaluate", choices=("protected", "both", "none"), default="protected")
    parser.add_argument("--cache")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.gguf)
    calibration, evaluation = load_tokens(args.tokens)
    blocks = len(model.model.layers)
    if args.unit == "block":
        units = [[(block, ATTENTION), (block, FEED_FORWARD)] for block in range(blocks)]
    else:
        units = [[part] for part in sublayers(model)]
    protected = {
        index
        for index, unit in enumerate(units)
        if not FIRST_PROTECTED <= unit[0][0] < blocks - LAST_PROTECTED
    }
    with open(args.tokens, "rb") as file:
        cache = Cache(args.cache, [args.unit, os.path.basename(args.gguf), hashlib.sha256(file.read()).hexdigest()])

    def left(removed):
        return [index for index in range(len(units)) if index not in removed]

    def scores_of(criterion, removed):
        """{unit: score} over the units still there."""

        def measure():
            seconds, started = [], time.perf_counter()
            scores = CRITERIA[criterion](model, calibration, [units[index] for index in left(removed)], seconds)
            print(f"{criterion} without {sorted(removed)}: {time.perf_counter() - started:.1f} s", flush=True)
            return {"scores": scores, "median_step_s": statistics.median(seconds), "seconds": time.perf_counter() - started}

        return cache.get(f"{criterion} {sorted(removed)}", measure)

    def evaluate(removed):
        def measure():
            parts = [part for index in left(removed) for part in units[index]]
            started = time.perf_counter()
            value = perplexity(model, evaluation, parts, 2)
            print(f"evaluation without {sorted(removed)}: {value:.4f}, {time.perf_counter() - started:.1f} s", flush=True)
            return value

        return cache.get(f"evaluation {sorted(removed)}", measure)

    result = {"tool": f"torch {torch.__version__}", "unit": args.unit, "units": [list(unit) for unit in units], "criteria": {}}
    for criterion in CRITERIA:
        first = scores_of(criterion, set())
        ranked = sorted(range(len(units)), key=lambda index: first["scores"][index])
        entry = {"scores": first["scores"], "seconds": first["seconds"], "median_step_s": first["median_step_s"], "order": {
            "one-shot": {"unprotected": ranked, "protected": [index for index in ranked if index not in protected]},
        }}
        if criterion in ITERATIVE:
            entry["order"]["iterative"] = {}
            entry["iterative_scores"] = {}
            for name, kept in (("protected", protected), ("unprotected", set())):
                removed, rounds = [], []
                for _ in range(args.removals):
                    scores = dict(zip(left(removed), scores_of(criterion, set(removed))["scores"] if removed else first["scores"]))
                    removed.append(min((index for index in scores if index not in kept), key=lambda index: scores[index]))
                    rounds.append(scores)
                entry["order"]["iterative"][name] = removed
                entry["iterative_scores"][name] = rounds
        result["criteria"][criterion] = entry
    result["peak_rss_mb"] = peak_rss_mb()
    if args.evaluate != "none":
        result["evaluation"] = {"dense": evaluate(set())}
        names = ("protected",) if args.evaluate == "protected" else ("protected", "unprotected")
        for criterion, entry in result["criteria"].items():
            for schedule, orders in entry["order"].items():
                for name in names:
                    for count in (3, args.removals):
                        key = f"{criterion}/{schedule}/{name}/{count}"
                        result["evaluation"][key] = evaluate(set(orders[name][:count]))
    with open(args.out, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
