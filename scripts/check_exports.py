"""Whether stock tools load what was saved and give what we give.

Usage: check_exports.py --bench pomona-bench --prompts prompts.json [--hf DIR] [--gguf-f32 FILE] [--node-modules DIR]
                        [--gguf FILE --source-gguf FILE --removed 3,7]
 1. --hf: transformers (AutoModelForCausalLM, float32) gives our last logits: max |a - b| <= 1e-4 * max(1, max |b|).
 2. --gguf-f32: llama.cpp gives our 64 greedy tokens on every prompt.
 3. --gguf: every tensor has the bytes of the source's tensor, and every metadata key its value, cut to the new
    depth where it is a list with one entry a block. With --node-modules: tokens/s of both files in llama.cpp.
Runs in an environment with torch, transformers and gguf. Exits with 1 where a check fails; prints a JSON summary."""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS = 3


def ours(args, model):
    command = [args.bench, "--json", "outputs", "--model", model, "--prompts", args.prompts, "--new", str(args.new)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["prompts"]


def check_transformers(args):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(args.hf, dtype=torch.float32)
    AutoTokenizer.from_pretrained(args.hf)
    worst = 0.0
    for prompt in ours(args, args.hf):
        with torch.no_grad():
            reference = model(torch.tensor([prompt["ids"]])).logits[0, -1]
        gap = (torch.tensor(prompt["logits_last"]) - reference).abs().max()
        worst = max(worst, float(gap / max(1.0, float(reference.abs().max()))))
    return {"ok": worst <= 1e-4, "worst_relative_gap": worst, "layers": model.config.num_hidden_layers}


def check_llama_cpp(args):
    script = os.path.join(HERE, "llama_cpp_check.mjs")
    command = ["node", script, "--modules", args.node_modules, "--model", args.gguf_f32, "--prompts", args.prompts]
    command += ["--new", str(args.new)]
    theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["prompts"]
    equal = [a["generated"] == b["generated"] for a, b in zip(ours(args, args.gguf_f32), theirs)]
    return {"ok": all(equal) and len(equal) == len(theirs), "equal": sum(equal), "prompts": len(equal), "tokens": args.new}


def check_bytes(args):
    from gguf import GGUFReader

    source, output = GGUFReader(args.source_gguf), GGUFReader(args.gguf)
    depth = int(next(f for n, f in source.fields.items() if n.endswith(".block_count")).contents())
    removed = {int(n) for n in args.removed.split(",") if n}
    kept = [i for i in range(depth) if i not in removed]
    old = {t.name: t for t in source.tensors}
    wrong = []
    for tensor in output.tensors:
        name = tensor.name
        if name.startswith("blk."):
            _, index, rest = name.split(".", 2)
            name = f"blk.{kept[int(index)]}.{rest}" if int(index) < len(kept) else f"no block {index}"
        twin = old.get(name)
        same = twin is not None and (twin.tensor_type, list(twin.shape)) == (tensor.tensor_type, list(tensor.shape))
        if not same or twin.data.tobytes() != tensor.data.tobytes():
            wrong.append(tensor.name)
    gone = [n for n in old if n.startswith("blk.") and int(n.split(".")[1]) in removed]
    complete = len(output.tensors) == len(old) - len(gone)
    found = {t.name for t in output.tensors}
    metadata, cut = check_metadata(source, output, depth, kept)
    ok = not wrong and not metadata and complete and len(found) == len(output.tensors)
    return {"ok": ok, "tensors": len(found), "different": wrong, "metadata": metadata, "lists_cut": cut,
            "block_count": len(kept)}


def check_metadata(source, output, depth, kept):
    """(what is wrong, which per-layer lists were cut): every key keeps its value and type, but the depth and the
    architecture's per-layer lists are cut to the kept blocks; general.* may say something else."""
    before, after = ({name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
                     for reader in (source, output))
    architecture = before["general.architecture"].contents()
    wrong, cut = [], []
    for name in sorted(before.keys() | after.keys()):
        if name.startswith("general.") and name != "general.architecture":
            continue
        if name not in before or name not in after:
            wrong.append(f"{name}: {'missing' if name in before else 'not in the source'}")
            continue
        expected = before[name].contents()
        if name == f"{architecture}.block_count":
            expected = len(kept)
        elif name.startswith(f"{architecture}.") and isinstance(expected, list) and len(expected) == depth:
            expected = [expected[block] for block in kept]
            cut.append(name)
        found = after[name].contents()
        if found != expected or after[name].types != before[name].types:
            wrong.append(f"{name}: {str(found)[:60]}, expected {str(expected)[:60]}")
    return wrong, cut


def speed(args):
    """Medians of interleaved runs on one thread: with two, waiting for each other outweighs a tenth of the blocks."""
    script = os.path.join(HERE, "llama_cpp_check.mjs")
    runs = {"dense": [], "pruned": []}
    for _ in range(ROUNDS):
        for which, model in (("dense", args.source_gguf), ("pruned", args.gguf)):
            command = ["node", script, "--modules", args.node_modules, "--model", model, "--speed", "5", "--threads", "1"]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            runs[which].append(found["speed"])
    return {which: {key: statistics.median(run[key] for run in found) for key in found[0]} for which, found in runs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="target/release/pomona-bench")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--hf")
    parser.add_argument("--gguf-f32")
    parser.add_argument("--node-modules")
    parser.add_argument("--gguf")
    parser.add_argument("--source-gguf")
    parser.add_argument("--removed", default="")
    args = parser.parse_args()
    summary = {}
    if args.hf:
        summary["transformers"] = check_transformers(args)
    if args.gguf_f32:
        summary["llama.cpp greedy"] = check_llama_cpp(args)
    if args.gguf:
        summary["gguf bytes"] = check_bytes(args)
        if args.node_modules:
            summary["llama.cpp speed"] = speed(args)
    print(json.dumps(summary, indent=1))
    sys.exit(0 if all(v.get("ok", True) for v in summary.values()) else 1)


if __name__ == "__main__":
    main()
