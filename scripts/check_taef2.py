#!/usr/bin/env python3
"""Our TAEF2 against plain PyTorch built from the same keys, on the real weights; and a picture encoded and decoded by us.

    POMONA_DATA=DIR scripts/check_taef2.py --bench target/release/pomona-bench --work DIR [--pair NAME.jpg] [--picture OUT.png]

Writes the weights as directories with a config.json under DIR, runs both halves on the left half of a pair in `facades/`
(256x256; what lies there are cut-out people beside their outlines) with `pomona-bench run`, and prints the largest gaps as a share of what counts as close (1e-4 x max(1, max |reference|)), and the PSNR of the picture that comes back.
Needs torch, safetensors, numpy, pillow.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F


def conv(state, name, x, stride=1):
    w = state[f"{name}.weight"].float()
    bias = state.get(f"{name}.bias")
    return F.conv2d(x, w, None if bias is None else bias.float(), stride, w.shape[-1] // 2)


def block(state, name, x):
    if f"{name}.pool.0.weight" in state:
        h = conv(state, f"{name}.pool.0", x)
        h = F.group_norm(h, 4, state[f"{name}.pool.1.weight"].float(), state[f"{name}.pool.1.bias"].float())
        x = x + conv(state, f"{name}.pool.3", F.relu(h))
    h = F.relu(conv(state, f"{name}.conv.0", x))
    return F.relu(conv(state, f"{name}.conv.4", F.relu(conv(state, f"{name}.conv.2", h))) + x)


def plain(state, x, decoder):
    """A position without a weight is a clamp, a ReLU or, further on, a doubling; a convolution without a bias in the encoder halves."""
    for i in range(max(int(k.split(".")[0]) for k in state) + 1):
        if f"{i}.conv.0.weight" in state:
            x = block(state, str(i), x)
        elif f"{i}.weight" in state:
            x = conv(state, str(i), x, 1 if decoder or f"{i}.bias" in state else 2)
        elif i == 0:
            x = 3 * torch.tanh(x / 3)
        elif i == 2:
            x = F.relu(x)
        else:
            x = F.interpolate(x, scale_factor=2)
    return x


def ours(args, half, state, name, x):
    folder = pathlib.Path(args.work) / f"taef2_{half}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": f"taef2_{half}", "torch_dtype": "float16"}))
    file = folder.parent / f"{half}.inputs.safetensors"
    save_file({name: x.contiguous()}, file)
    command = [args.bench, "--json", "run", "--model", str(folder), "--inputs", str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--pair", default="1.jpg")
    parser.add_argument("--picture")
    args = parser.parse_args()
    data = pathlib.Path(os.environ["POMONA_DATA"])
    states = {h: torch.load(data / f"taef2-vae/taef2_{h}.pth", weights_only=True) for h in ("encoder", "decoder")}
    pair = Image.open(data / "facades/facades/val" / args.pair).convert("RGB")
    photo = torch.from_numpy(np.asarray(pair)[:, :256].copy()).permute(2, 0, 1)[None].float() / 255
    bad = 0
    x, halves = photo, [("encoder", "image", "latent"), ("decoder", "latent", "image")]
    for half, given, wanted in halves:
        with torch.no_grad():
            reference = plain(states[half], x, half == "decoder")
        found = ours(args, half, states[half], given, x)["outputs"][wanted]
        got = torch.tensor(found["values"]).reshape(found["shape"])
        gap = float((got - reference).abs().max() / (1e-4 * max(1, float(reference.abs().max()))))
        print(f"{half}: {tuple(got.shape)}, {sum(t.numel() for t in states[half].values())} parameters, {gap:.3f} of the tolerance")
        bad |= gap > 1
        x = got
    back = x.clamp(0, 1)
    print(f"PSNR of the picture: {float(-10 * torch.log10(((back - photo) ** 2).mean())):.2f} dB")
    if args.picture:
        both = torch.cat([photo, back], 3)[0].permute(1, 2, 0)
        Image.fromarray((both.numpy() * 255).round().astype(np.uint8)).save(args.picture)
    sys.exit(bad)


if __name__ == "__main__":
    main()
