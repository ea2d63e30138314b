"""Goldens of generators and small auto-encoders, by PyTorch (pip install torch numpy).

    python make_goldens.py

Each network is written anew from its description, with the module names of the usual implementation. Weights and inputs are functions of their names (../diffusers/seeded.py); dropout is off, norms take the batch's own
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


    def forward(self, input):
        return self.model(input)


class Dcgan(nn.Module):
    """Both halves: a Sequential called `main`."""

    def __init__(self, c, generator):
        super().__init__()
        stages = c["image_size"].bit_length() - 4
        parts, before = [], c["nz"] if generator else c["nc"]
        for stage in reversed(range(stages + 1)) if generator else range(stages + 1):
            width = c["ngf" if generator else "ndf"] * 2 ** stage
            place = (4, 1, 0) if generator and stage == stages else (4, 2, 1)
            layer = nn.ConvTranspose2d if generator else nn.Conv2d
            parts.append(layer(before, width, *place, bias=False))
            if generator or stage:
                parts.append(nn.BatchNorm2d(width))
            parts.append(nn.ReLU() if generator else nn.LeakyReLU(0.2))
            before = width
        if generator:
            parts += [nn.ConvTranspose2d(before, c["nc"], 4, 2, 1, bias=False), nn.Tanh()]
        else:
            parts += [nn.Conv2d(before, 1, 4, 1, 0, bias=False), nn.Sigmoid(), nn.Flatten(0)]
        self.main = nn.Sequential(*parts)

    def forward(self, input):
        return self.main(input)


class Unit(nn.Module):
    """Convolution, norm, what it read where it is residual, ReLU."""

    def __init__(self, layer, residual=False):
        super().__init__()
        self.conv_block = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
        self.residual = residual

    def forward(self, x):
        y = self.conv_block(x)
        return torch.relu(y + x if self.residual else y)


class Wav2Lip(nn.Module):
    def __init__(self, c):
        super().__init__()
        e, a, d, last = c["nef"], c["naf"], c["ndf"], c["x_size"] // 32
        unit = lambda i, o, k=3, s=1, p=1: Unit(nn.Conv2d(i, o, k, s, p))
        more = lambda n, w: [Unit(nn.Conv2d(w, w, 3, 1, 1), True) for _ in range(n if c["residual"] else 0)]
        face = [nn.Sequential(unit(6, e, 7, 1, 3))]
        for i, n in enumerate([2, 3, 2, 2, 1]):
            w = e * 2 ** i
            face.append(nn.Sequential(unit(w, 2 * w, 3, 2, 1), *more(n, 2 * w)))
        face.append(nn.Sequential(unit(e * 32, e * 32, last, 1, 0), unit(e * 32, e * 32, 1, 1, 0)))
        self.face_encoder_blocks = nn.ModuleList(face)
        self.audio_encoder = nn.Sequential(
            unit(1, a), *more(2, a), unit(a, 2 * a, 3, (3, 1), 1), *more(2, 2 * a), unit(2 * a, 4 * a, 3, 3, 1),
            *more(2, 4 * a), unit(4 * a, 8 * a, 3, (3, 2), 1), *more(1, 8 * a), unit(8 * a, 16 * a, 3, 1, 0),
            unit(16 * a, 16 * a, 1, 1, 0))
        skips = [e * 2 ** min(i, 5) for i in range(7)]
        decoder, before = [nn.Sequential(unit(16 * a, 16 * a, 1, 1, 0))], 16 * a
        for i, w in enumerate([16, 16, 12, 8, 4, 2]):
            place = (last, 1, 0, 0) if i == 0 else (3, 2, 1, 1)
            up = Unit(nn.ConvTranspose2d(before + skips.pop(), w * d, *place))
            decoder.append(nn.Sequential(up, *more(1 if i == 0 else 2, w * d)))
            before = w * d
        self.face_decoder_blocks = nn.ModuleList(decoder)
        self.output_block = nn.Sequential(unit(before + e, d), nn.Conv2d(d, 3, 1), nn.Sigmoid())

    def forward(self, audio_sequences, face_sequences):
        features, x = [], face_sequences
        for block in self.face_encoder_blocks:
            x = block(x)
            features.append(x)
        x = self.audio_encoder(audio_sequences)
        for block in self.face_decoder_blocks:
            x = torch.cat([block(x), features.pop()], 1)
        return self.output_block(x)


class Tiny(nn.Module):
    """A block of a tiny auto-encoder."""

    def __init__(self, w, pooled):
        super().__init__()
        same = lambda: nn.Conv2d(w, w, 3, padding=1)
        self.conv = nn.Sequential(same(), nn.ReLU(), same(), nn.ReLU(), same())
        point = lambda i, o: nn.Conv2d(i, o, 1, bias=False)
        self.pool = nn.Sequential(point(w, 4 * w), nn.GroupNorm(4, 4 * w), nn.ReLU(), point(4 * w, w)) if pooled else None

    def forward(self, x):
        x = x if self.pool is None else x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x):
        return 3 * torch.tanh(x / 3)


def tiny_encoder(c):
    w, last = c["width"], c["mid_pool"]
    conv = lambda i, o, **k: nn.Conv2d(i, o, 3, padding=1, **k)
    down = lambda: conv(w, w, stride=2, bias=False)
    blocks = lambda n, pooled=False: [Tiny(w, pooled) for _ in range(n)]
    return nn.Sequential(conv(3, w), *blocks(1), down(), *blocks(3), down(), *blocks(3), down(), *blocks(3, last),
                         conv(w, c["latent_channels"]))


def tiny_decoder(c):
    w, last = c["width"], c["mid_pool"]
    conv = lambda i, o, **k: nn.Conv2d(i, o, 3, padding=1, **k)
    up = lambda: [nn.Upsample(scale_factor=2), conv(w, w, bias=False)]
    blocks = lambda n, pooled=False: [Tiny(w, pooled) for _ in range(n)]
    return nn.Sequential(Clamp(), conv(c["latent_channels"], w), nn.ReLU(), *blocks(3, last), *up(), *blocks(3), *up(),
                         *blocks(3), *up(), *blocks(1), conv(w, 3))


def golden(name, architecture, net, config, shapes, output="output"):
    """Inputs in the order of `forward`."""
    fill(net).train(config.get("statistics") == "batch")
    with torch.no_grad():
        out = net(*(data(n, s) for n, s in shapes.items()))
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, **config}, indent=1) + "\n")
    # An input that does not show in the output is not tested.
    for n, s in shapes.items():
        with torch.no_grad():
            less = net(*(data(m, t) * (m != n) for m, t in shapes.items()))
        assert (less - out).abs().max() > 1e-3, (name, n)
    values = [float(f"{v:.7g}") for v in out.flatten().tolist()]
    inputs = {n: {"shape": s} for n, s in shapes.items()}
    expected = {"inputs": inputs, "outputs": {output: {"shape": list(out.shape), "values": values}}}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(name, float(out.std()))


def pix2pix(name, config):
    size = config["image_size"]
    golden(name, "pix2pix", Generator(config), config, {"input": [2, config.get("input_nc", 3), size, size]})


base = {"num_downs": 5, "ngf": 4, "image_size": 32, "output_nc": 1, "torch_dtype": "float32"}
pix2pix("pix2pix", {**base, "statistics": "batch"})
pix2pix("pix2pix_keras", {**base, "num_downs": 4, "input_nc": 2, "bias": True, "innermost_norm": True, "skip_first": False,
                          "norm_eps": 1e-3, "statistics": "running"})

dcgan = {"nz": 10, "ngf": 4, "ndf": 4, "nc": 3, "image_size": 32, "torch_dtype": "float32"}
golden("dcgan_generator", "dcgan_generator", Dcgan(dcgan, True), dcgan, {"input": [2, 10, 1, 1]})
golden("dcgan_discriminator", "dcgan_discriminator", Dcgan(dcgan, False), dcgan, {"input": [2, 3, 32, 32]})
larger = {**dcgan, "ngf": 2, "ndf": 2, "nc": 1, "image_size": 64, "statistics": "batch"}
golden("dcgan_generator_64", "dcgan_generator", Dcgan(larger, True), larger, {"input": [2, 10, 1, 1]})
golden("dcgan_discriminator_64", "dcgan_discriminator", Dcgan(larger, False), larger, {"input": [2, 1, 64, 64]})
mouths = {"nef": 4, "naf": 4, "ndf": 4, "x_size": 96, "residual": True, "torch_dtype": "float32"}
for name, architecture, config in [
        ("wav2lip", "wav2lip", mouths),
        ("nota_wav2lip", "nota_wav2lip", {**mouths, "naf": 6, "x_size": 128, "residual": False})]:
    side = config["x_size"]
    golden(name, architecture, Wav2Lip(config), config,
           {"audio_sequences": [1, 1, 80, 16], "face_sequences": [1, 6, side, side]})
for kind, latent, pooled in [("taesd", 4, False), ("taef2", 6, True)]:
    config = {"latent_channels": latent, "width": 8, "mid_pool": pooled, "torch_dtype": "float32"}
    golden(f"{kind}_encoder", f"{kind}_encoder", tiny_encoder(config), config, {"image": [1, 3, 40, 24]}, "latent")
    golden(f"{kind}_decoder", f"{kind}_decoder", tiny_decoder(config), config, {"latent": [1, latent, 5, 3]}, "image")
