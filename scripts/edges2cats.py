"""The edges2cats generator as safetensors, with pictures to run it on.

    python scripts/edges2cats.py TFJS_DIRECTORY PHOTOS OUT [COUNT]

Reads a TensorFlow.js layers model (model.json with float32 shards), turns kernels from HWIO to PyTorch's order and names them as
UnetGenerator's modules. The generator was trained on edge drawings; the pictures made here are photos (CIFAR-10 cats, enlarged) put
through an edge filter (Canny, black lines on white), which is not quite what it was trained on; the first is the model's own
example drawing, where it lies beside the model, the second is made from scikit-image's photo of a cat.
Needs numpy, safetensors, Pillow, scikit-image.
"""
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from skimage.data import chelsea
from skimage.feature import canny

LEVELS = 8


def weights(directory):
    found = {}
    for group in json.loads((directory / "model.json").read_text())["weightsManifest"]:
        data = b"".join((directory / p).read_bytes() for p in group["paths"])
        at = 0
        for w in group["weights"]:
            assert w["dtype"] == "float32", w
            n = int(np.prod(w["shape"])) * 4
            found[w["name"]] = np.frombuffer(data[at : at + n], np.float32).reshape(w["shape"])
            at += n
        assert at == len(data)
    return found


def convert(w):
    out = {}

    def conv(path, name):
        # [h, w, in, out] of a convolution and [h, w, out, in] of a transposed one: both become what PyTorch stores.
        out[f"{path}.weight"] = np.ascontiguousarray(w[f"{name}/kernel"].transpose(3, 2, 0, 1))
        out[f"{path}.bias"] = w[f"{name}/bias"]

    def norm(path, number):
        names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        for ours, theirs in names.items():
            out[f"{path}.{ours}"] = w[f"batch_normalization_{number}/{theirs}"]

    path = "model.model"
    conv(f"{path}.0", "conv2d_1")
    conv(f"{path}.3", f"conv2d_transpose_{LEVELS}")
    path += ".1.model"
    for level in range(2, LEVELS + 1):
        conv(f"{path}.1", f"conv2d_{level}")
        norm(f"{path}.2", level - 1)
        inner = level == LEVELS
        conv(f"{path}.{4 if inner else 5}", f"conv2d_transpose_{LEVELS + 1 - level}")
        norm(f"{path}.{5 if inner else 6}", 2 * LEVELS - level)
        path += ".3.model"
    return out


def edges(picture):
    grey = np.asarray(ImageOps.grayscale(picture).resize((256, 256), Image.LANCZOS), np.float64) / 255
    lines = canny(grey, sigma=4, low_threshold=0.84, high_threshold=0.945, use_quantiles=True, mode="nearest")
    return Image.fromarray(np.where(lines, 0, 255).astype(np.uint8))


def main():
    source, photos, out = (Path(a) for a in sys.argv[1:4])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 16
    model = out / "model"
    model.mkdir(parents=True, exist_ok=True)
    tensors = convert(weights(source))
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "pix2pix", "num_downs": LEVELS, "ngf": 16, "input_nc": 3, "output_nc": 3, "image_size": 256,
        "bias": True, "innermost_norm": True, "skip_first": False, "norm_eps": 1e-3, "statistics": "batch",
        "torch_dtype": "float32",
    }
    (model / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    drawings = [Image.open(source.parent / "cat.png").convert("RGB").resize((256, 256), Image.BICUBIC)] \
        if (source.parent / "cat.png").exists() else []
    # scikit-image's own photo of a cat: its face, which is what the generator was trained to draw.
    drawings.append(edges(Image.fromarray(chelsea()[:, 60:360])).convert("RGB"))
    with tarfile.open(photos) as tar:
        names = sorted(m.name for m in tar if "/test/cat/" in f"/{m.name}" and m.isfile())
        for name in names:
            if len(drawings) == count:
                break
            drawings.append(edges(Image.open(tar.extractfile(name)).convert("RGB")).convert("RGB"))
    pixels = np.stack([np.asarray(d, np.float32).transpose(2, 0, 1) / 127.5 - 1 for d in drawings])
    save_file({"input": np.ascontiguousarray(pixels)}, out / "drawings.safetensors")
    print(f"{sum(t.size for n, t in tensors.items() if 'running' not in n):,} parameters; {len(drawings)} drawings")


if __name__ == "__main__":
    main()
