"""Whether stock diffusers and transformers load a directory and give what we give.

Usage: check_diffusers.py --bench pomona-bench DIR [DIR ...] [--sides 64 64] [--text-tokens 77]
                          [--golden FILE [--write-golden]]
DIR is a model directory or a whole pipeline, as `pomona` wrote it or as it came; each network in it is loaded with
`from_pretrained`, run on inputs that are a function of their name, and compared with our run: max |a - b| <= 1e-4 *
max(1, max |b|). With --golden only our side runs, on the checkpoint that `pomona init` makes: its SHA-256 must be the
golden's, and a slice of the output equal to the reference's (--write-golden writes the file from the reference).
Runs in an environment with torch, transformers, diffusers and safetensors. Exits with 1 where a check fails; prints JSON.

    pomona init crates/pomona-prune/tests/unets/sd14.json --seed 1 --dtype f32 -o sd14
    python scripts/check_diffusers.py --bench target/release/pomona-bench sd14 --golden scripts/goldens/sd14_step.json
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "crates/pomona-task/tests/diffusers"))
SLICE = 97


def inputs_of(config, args):
    """Inputs by name, as numpy arrays."""
    import numpy as np
    from seeded import uniform

    def floats(name, *shape):
        return uniform("input:" + name, shape) * np.float32(1.5)

    name = config.get("_class_name") or config["architectures"][0]
    h, w = args.sides
    if name.startswith("UNet2D"):
        out = {"sample": floats("sample", 1, config.get("in_channels", 4), h, w), "timestep": np.array([501.0], np.float32)}
        if name == "UNet2DConditionModel":
            width = config["cross_attention_dim"]
            out["encoder_hidden_states"] = floats("encoder_hidden_states", 1, args.text_tokens, width)
        return name, out
    if name in ("AutoencoderKL", "AutoencoderTiny"):
        return name, {"sample": floats("sample", 1, 3, h, w), "latent": floats("latent", 1, config.get("latent_channels", 4), h // 4, w // 4)}
    ids = np.arange(1, 8, dtype=np.int64)[None] % config["vocab_size"]
    return name, {"input_ids": ids}


def reference(name, folder, given):
    import diffusers
    import torch
    import transformers

    library = diffusers if hasattr(diffusers, name) else transformers
    model = getattr(library, name).from_pretrained(folder, torch_dtype=torch.float32).eval()
    t = {k: torch.from_numpy(v) for k, v in given.items()}
    with torch.no_grad():
        if name.startswith("UNet2D"):
            return {"sample": model(**{**t, "timestep": t["timestep"].long()}).sample}
        if name == "AutoencoderKL":
            return {"moments": model.encode(t["sample"]).latent_dist.parameters, "image": model.decode(t["latent"]).sample}
        if name == "AutoencoderTiny":
            return {"latent_out": model.encode(t["sample"]).latents, "image": model.decode(t["latent"]).sample}
        return {"last_hidden_state": model(**t).last_hidden_state}


def ours(args, folder, given, outputs=()):
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/inputs.safetensors"
        save_file({k: v.copy() for k, v in given.items()}, file)
        command = [args.bench, "--json", "run", "--model", str(folder), "--inputs", file]
        for name in outputs:
            command += ["--output", name]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def networks(folder):
    if (folder / "model_index.json").is_file():
        index = json.loads((folder / "model_index.json").read_text())
        names = [k for k, v in index.items() if isinstance(v, list) and (folder / k / "config.json").is_file()]
        return [folder / n for n in names if any((folder / n).glob("*.safetensors"))]
    return [folder]


def check(args, folder):
    import numpy as np

    config = json.loads((folder / "config.json").read_text())
    name, given = inputs_of(config, args)
    wanted = {k: v.numpy() for k, v in reference(name, folder, given).items()}
    # A folder of a pipeline has no manifest of its own: it is read as stock loaders read it.
    got = ours(args, folder, given, wanted)
    worst = 0.0
    for key, b in wanted.items():
        a = np.array(got["outputs"][key]["values"], np.float32).reshape(b.shape)
        worst = max(worst, float(np.abs(a - b).max() / max(1.0, np.abs(b).max())))
    return {"network": name, "ok": worst <= 1e-4, "worst_relative_gap": worst, "our_seconds": got["seconds"]}


def whole(folder):
    """The pipeline loads and makes a picture in two steps."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("an apple tree", num_inference_steps=2, output_type="np").images[0]
    return {"network": type(pipe).__name__, "ok": bool((image == image).all()), "picture": list(image.shape)}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for part in iter(lambda: f.read(1 << 24), b""):
            digest.update(part)
    return digest.hexdigest()


def golden(args, folder):
    import numpy as np

    config = json.loads((folder / "config.json").read_text())
    name, given = inputs_of(config, args)
    weights = sha256(next(folder.glob("*.safetensors")))
    if args.write_golden:
        (key, value), *_ = reference(name, folder, given).items()
        flat = value.numpy().reshape(-1)
        kept = {"network": name, "output": key, "sides": args.sides, "weights_sha256": weights, "every": SLICE,
                "scale": float(np.abs(flat).max()), "values": [float(f"{v:.8g}") for v in flat[::SLICE]]}
        args.golden.write_text(json.dumps(kept) + "\n")
    kept = json.loads(args.golden.read_text())
    out = ours(args, folder, given, [kept["output"]])
    got = np.array(out["outputs"][kept["output"]]["values"], np.float32)[:: kept["every"]]
    gap = float(np.abs(got - np.array(kept["values"], np.float32)).max() / max(1.0, kept["scale"]))
    same = weights == kept["weights_sha256"]
    return {"network": name, "ok": same and gap <= 1e-4, "weights_as_in_golden": same, "worst_relative_gap": gap,
            "values": len(got), "our_seconds": out["seconds"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--sides", nargs=2, type=int, default=[64, 64])
    parser.add_argument("--text-tokens", type=int, default=77)
    parser.add_argument("--golden", type=pathlib.Path)
    parser.add_argument("--write-golden", action="store_true")
    args = parser.parse_args()
    results = {}
    for folder in args.folders:
        if args.golden:
            results[str(folder)] = golden(args, folder)
            continue
        for part in networks(folder):
            results[str(part)] = check(args, part)
        if (folder / "model_index.json").is_file():
            results[str(folder)] = whole(folder)
    print(json.dumps(results, indent=1))
    sys.exit(0 if all(r["ok"] for r in results.values()) else 1)


if __name__ == "__main__":
    main()
