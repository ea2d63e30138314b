"""Goldens of the pix2pix generator, by PyTorch (pip install torch numpy).

    python make_goldens.py

The generator is written anew from its description, with the module names of the usual implementation: nested blocks, each a Sequential
called `model`. Weights and inputs are functions of their names (../diffusers/seeded.py); dropout is off, norms take the batch's own
statistics or the stored ones.
"""
import json
import sys
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "diffusers"))
from seeded import data, fill  # noqa: E402


class Level(nn.Module):
    def __init__(self, c, number):
        super().__init__()
        self.skip_first = c.get("skip_first", True)
        levels, ngf, bias = c["num_downs"], c["ngf"], c.get("bias", False)
        width = lambda n: ngf * min(2 ** (n - 1), 8)
        norm = lambda n: nn.BatchNorm2d(n, eps=c.get("norm_eps", 1e-5))
        self.outermost, innermost = number == 1, number == levels
        inside = [] if innermost else [Level(c, number + 1)]
        before = c.get("input_nc", 3) if self.outermost else width(number - 1)
        down = nn.Conv2d(before, width(number), 4, 2, 1, bias=bias)
        wide = width(number) * (1 if innermost else 2)
        if self.outermost:
            up = nn.ConvTranspose2d(wide, c.get("output_nc", 3), 4, 2, 1)
            parts = [down, *inside, nn.ReLU(), up, nn.Tanh()]
        else:
            up = nn.ConvTranspose2d(wide, width(number - 1), 4, 2, 1, bias=bias)
            normed = [norm(width(number))] if not innermost or c.get("innermost_norm") else []
            parts = [nn.LeakyReLU(0.2), down, *normed, *inside, nn.ReLU(), up, norm(width(number - 1))]
        self.model = nn.Sequential(*parts)

    def forward(self, x):
        y = self.model(x)
        if self.outermost:
            return y
        return torch.cat([x, y] if self.skip_first else [y, x], 1)


class Generator(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model = Level(c, 1)


def golden(name, config):
    net = fill(Generator(config))
    net.train(config["statistics"] == "batch")
    size = config["image_size"]
    shape = [2, config.get("input_nc", 3), size, size]
    with torch.no_grad():
        out = net.model(data("input", shape))
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "pix2pix", **config}, indent=1) + "\n")
    values = [float(f"{v:.7g}") for v in out.flatten().tolist()]
    expected = {"inputs": {"input": {"shape": shape}}, "outputs": {"output": {"shape": list(out.shape), "values": values}}}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(name, float(out.std()))


base = {"num_downs": 5, "ngf": 4, "image_size": 32, "output_nc": 1, "torch_dtype": "float32"}
golden("pix2pix", {**base, "statistics": "batch"})
golden("pix2pix_keras", {**base, "num_downs": 4, "input_nc": 2, "bias": True, "innermost_norm": True, "skip_first": False,
                         "norm_eps": 1e-3, "statistics": "running"})
