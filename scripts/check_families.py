"""Whether stock transformers loads what is left of each decoder family after a cut, and computes the same as the source
without those blocks.

Usage: check_families.py [--pomona target/release/pomona] [--goldens crates/pomona-models/tests/goldens] [--old] [NAME..]
Takes one random block out of every model of the goldens (score, plan, apply), opens the output in transformers and
compares its logits with the source's, the blocks taken out by hand: max |a - b| <= 1e-4 * max(1, max |b|).
--old: the source has the config of transformers 4, where there is one.
Runs in an environment with torch and transformers. Exits with 1 where a check fails; prints a JSON summary."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def opened(path):
    model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = [f"{key} {value}" for key, value in info.items() if value]
    return model.eval(), problems


def blocks_of(model):
    base = getattr(model.base_model, "decoder", model.base_model)
    return base, "h" if hasattr(base, "h") else "layers"


def without(model, removed):
    base, key = blocks_of(model)
    layers = getattr(base, key)
    kept = [i for i in range(len(layers)) if i not in removed]
    setattr(base, key, torch.nn.ModuleList(layers[i] for i in kept))
    for config in {id(c): c for c in (model.config, base.config)}.values():
        types = getattr(config, "layer_types", None)
        config.num_hidden_layers = len(kept)
        if types and len(types) == len(layers):
            config.layer_types = [types[i] for i in kept]
    return model


def check(pomona, source, seed):
    with tempfile.TemporaryDirectory() as work:
        scores, plan, out = (os.path.join(work, n) for n in ("scores.json", "plan.json", "out"))
        run = lambda *words: subprocess.run([pomona, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        run("score", source, "--criterion", "random", "--seed", str(seed), "--protect", "0,0", "-o", scores)
        run("plan", source, "--scores", scores, "--target", "blocks=1", "--protect", "0,0", "-o", plan)
        run("apply", source, "--plan", plan, "-o", out)
        with open(plan) as file:
            removed = [int(path.rsplit(".", 1)[1]) for path in json.load(file)["removed"]]
        if not os.path.exists(os.path.join(out, "config.json")):
            return {"ok": None, "removed": removed, "format": "pomona"}
        os.remove(os.path.join(out, "pomona.json"))
        pruned, problems = opened(out)
        dense, _ = opened(source)
        ids = torch.randint(3, 96, (2, 24), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            found = pruned(ids, use_cache=False).logits
            wanted = without(dense, removed)(ids, use_cache=False).logits
        gap = float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))
        return {"ok": gap <= 1e-4 and not problems, "removed": removed, "gap": gap, "problems": problems}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pomona", default="target/release/pomona")
    parser.add_argument("--goldens", default="crates/pomona-models/tests/goldens")
    parser.add_argument("--old", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    every = sorted(n for n in os.listdir(args.goldens) if os.path.exists(os.path.join(args.goldens, n, "expected.json")))
    summary = {}
    for seed, name in enumerate(args.names or every):
        source = os.path.join(args.goldens, name)
        with tempfile.TemporaryDirectory() as work:
            if args.old:
                if not os.path.exists(os.path.join(source, "config.4x.json")):
                    continue
                twin = os.path.join(work, name)
                shutil.copytree(source, twin)
                shutil.move(os.path.join(twin, "config.4x.json"), os.path.join(twin, "config.json"))
                source = twin
            summary[name] = check(args.pomona, source, seed)
    print(json.dumps(summary, indent=1))
    sys.exit(0 if all(v["ok"] is not False for v in summary.values()) else 1)


if __name__ == "__main__":
    main()
