"""Whether llama.cpp opens what is left of each decoder family after a cut, and writes the tokens that we write.

Usage: check_gguf_families.py --node-modules DIR [--pomona target/release/pomona] [--bench target/release/pomona-bench]
                              [--goldens crates/pomona-models/tests/goldens] [--new 32] [NAME..]
One block is taken out of the GGUF of each family in the goldens (score, plan, apply --format gguf); the output's weights are f32.
Five prompts of seeded token ids are continued greedily by llama.cpp (llama_cpp_check.mjs; DIR as there, f32 caches) and by us.
A cut that llama.cpp could not run has to be refused: those are listed with the reason. Exits with 1 where tokens differ or a
file does not open; prints a JSON summary."""

import argparse
import datetime
import json
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# The block that goes, where it is not the first: the kinds of Gemma 2 and 3 go by number.
BLOCK = {"gemma2": "3", "gemma3_six": "6"}
# Those of Llama's layout are the business of check_exports.py; this one stands for it.
FAMILIES = [
    "smollm2", "qwen2", "qwen3_plain", "gpt2", "gpt_neox", "gpt_neox_sequential", "gemma", "gemma2", "gemma3_six", "phi3", "olmo2",
    "stablelm", "stablelm_parallel", "falcon", "falcon_new",
]
# The window, to which the context is bound where llama.cpp applies none.
CONTEXT = {"phi3": 8}
SEED = 1


def pruned(args, source, name, work):
    """The output's path, or why it was refused."""
    scores, plan, out = (os.path.join(work, n) for n in ("scores.json", "plan.json", "out"))
    run = lambda *words: subprocess.run([args.pomona, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run("score", source, "--criterion", "random", "--protect", "0,0", "-o", scores)
    # The file's ranking, with the wanted block first.
    with open(scores) as file:
        found = json.load(file)
    wanted = BLOCK.get(name, "0")
    for part in found["parts"]:
        if part["path"].rsplit(".", 1)[1] == wanted:
            part["score"] = -1.0
    with open(scores, "w") as file:
        json.dump(found, file)
    run("plan", source, "--scores", scores, "--target", "blocks=1", "--protect", "0,0", "-o", plan)
    done = subprocess.run([args.pomona, "apply", source, "--plan", plan, "--format", "gguf", "-o", out], capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().splitlines()
    return os.path.join(out, "model.gguf"), json.load(open(plan))["removed"]


def check(args, name):
    source = os.path.join(args.goldens, f"{name}.gguf")
    with tempfile.TemporaryDirectory() as work:
        path, told = pruned(args, source, name, work)
        if path is None:
            return {"ok": None, "refused": told}
        draw = random.Random(SEED)
        most = CONTEXT.get(name, 64)
        length, new = (most // 2, most - most // 2) if name in CONTEXT else (16, args.new)
        prompts = os.path.join(work, "prompts.json")
        with open(prompts, "w") as file:
            json.dump({"prompts": [{"ids": [draw.randrange(3, 90) for _ in range(length)]} for _ in range(5)]}, file)
        command = [args.bench, "--json", "outputs", "--model", path, "--prompts", prompts, "--new", str(new)]
        ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["prompts"]
        command = ["node", os.path.join(HERE, "llama_cpp_check.mjs"), "--modules", args.node_modules, "--model", path]
        command += ["--prompts", prompts, "--new", str(new)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {"ok": False, "removed": told, "llama.cpp": done.stderr.strip().splitlines()[-3:]}
        theirs = json.loads(done.stdout)["prompts"]
        pairs = [(a["generated"], b["generated"]) for a, b in zip(ours, theirs, strict=True)]
        equal = sum(a == b for a, b in pairs)
        out = {"ok": equal == len(pairs), "removed": told, "equal": equal, "prompts": len(pairs), "tokens": new}
        return out if out["ok"] else out | {"ours, theirs": next(p for p in pairs if p[0] != p[1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", required=True)
    parser.add_argument("--pomona", default="target/release/pomona")
    parser.add_argument("--bench", default="target/release/pomona-bench")
    parser.add_argument("--goldens", default="crates/pomona-models/tests/goldens")
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("names", nargs="*", default=FAMILIES)
    args = parser.parse_args()
    summary = {name: check(args, name) for name in args.names}
    command = "scripts/check_gguf_families.py --node-modules DIR"
    about = {"command": command, "seed": SEED, "machine": f"{os.cpu_count()} cores", "date": datetime.date.today().isoformat()}
    print(json.dumps(about | {"families": summary}, indent=1))
    sys.exit(1 if any(found["ok"] is False for found in summary.values()) else 0)


if __name__ == "__main__":
    main()
