"""Small pictures as files and as Pillow decodes and resamples them, and as transformers and timm prepare them.

    python make_goldens.py      # writes expected.json beside itself

Made with Pillow 13, transformers 5.23, timm 1.0.
"""
import base64
import io
import json
import pathlib

import numpy as np
from PIL import Image
from timm.data import create_transform
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(5)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 3 + k) + np.cos(y / (2 + k)) for k in range(3)]
    noise = rng.integers(0, 60, (height, width, 3))
    return np.clip(np.stack(waves, -1) * 60 + 100 + noise, 0, 255).astype(np.uint8)


def packed(data):
    return base64.b16encode(bytes(data)).decode().lower()


def file(image, **options):
    out = io.BytesIO()
    image.save(out, **options)
    return packed(out.getvalue())


picture = Image.fromarray(smooth(21, 30))
grey = picture.convert("L")
out = {"width": 30, "height": 21, "pixels": packed(picture.tobytes()), "files": [], "resized": [], "prepared": []}
for name, image, options in [
    ("rgb.png", picture, {"format": "PNG"}),
    ("grey.png", grey, {"format": "PNG"}),
    ("palette.png", picture.quantize(16), {"format": "PNG"}),
    ("rgb.jpg", picture, {"format": "JPEG", "quality": 95, "subsampling": 0}),
    ("grey.jpg", grey, {"format": "JPEG", "quality": 95}),
]:
    data = file(image, **options)
    again = Image.open(io.BytesIO(bytes.fromhex(data))).convert("RGB")
    out["files"].append({"name": name, "bytes": data, "pixels": packed(again.tobytes())})
filters = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
for name, kind in filters.items():
    for size in [(13, 9), (41, 33), (30, 7)]:
        out["resized"].append({"filter": name, "size": size, "pixels": packed(picture.resize(size, kind).tobytes())})


def prepared(config, model_config, values):
    values = np.asarray(values, np.float32)
    out["prepared"].append({"preprocessor": config, "config": model_config, "shape": list(values.shape),
                            "values": [float(f"{v:.6g}") for v in values.flatten().tolist()]})


deit = {"size": {"height": 18, "width": 18}, "crop_size": {"height": 8, "width": 8}, "resample": 3,
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
prepared(deit, {}, DeiTImageProcessorPil(**deit)(picture, return_tensors="np")["pixel_values"][0])
cfg = {"input_size": [3, 8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic",
       "crop_pct": 0.6}
transform = create_transform(**cfg)
prepared(None, {"pretrained_cfg": cfg}, transform(picture))
(HERE / "expected.json").write_text(json.dumps(out) + "\n")
