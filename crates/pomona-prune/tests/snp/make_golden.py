"""SNP's scores of two small networks by their definitions, with the logits formed and every cosine taken entry by entry.

    python make_golden.py     # writes expected.json beside itself

Weights and pictures are by name (pomona-task/tests/diffusers/seeded.py), the networks those of pomona-task/tests/vision: one
of timm with a joint projection, one of transformers with a head width of its own. Made with timm 1.0, transformers 5.23, torch 2.15.
"""
import json
import pathlib
import sys

import numpy as np
import timm
import torch
import transformers

HERE = pathlib.Path(__file__).parent
TASK = HERE.parents[2] / "pomona-task" / "tests"
sys.path.insert(0, str(TASK / "diffusers"))
sys.path.insert(0, str(TASK / "vision"))
from make_goldens import by_file_names  # noqa: E402
from seeded import data, fill  # noqa: E402

HEADS = 3


def cosine(a, b):
    return float((a.ravel() @ b.ravel()) / np.sqrt((a.ravel() @ a.ravel()) * (b.ravel() @ b.ravel())))


def attention(q, k, gamma):
    """Mean over pictures of each neuron's sum of |cos| with the leading components of its head's logits."""
    pictures, _, width = q.shape
    d = width // HEADS
    out = np.zeros(width)
    for p in range(pictures):
        for h in range(HEADS):
            own = slice(h * d, (h + 1) * d)
            qh, kh = q[p, :, own].astype(np.float64), k[p, :, own].astype(np.float64)
            u, s, vt = np.linalg.svd(qh @ kh.T)
            count = sum(s > 1e-12 * s[0])
            count = min(count, gamma) if gamma >= 1 else sum(s > gamma * s[0])
            for i in range(d):
                part = np.outer(qh[:, i], kh[:, i])
                out[h * d + i] += sum(abs(cosine(s[j] * np.outer(u[:, j], vt[j]), part)) for j in range(count))
    return out / pictures


def redundancy(rows):
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    return np.array([sum(1 - abs(cosine(a, b)) for b in rows) for a in rows])


def stream(layers):
    return np.mean([r / r.sum() for r in map(redundancy, layers)], axis=0)


def catch(modules, run):
    found = []
    hooks = [m.register_forward_hook(lambda _m, _i, o: found.append(o.detach().numpy())) for m in modules]
    with torch.no_grad():
        run()
    for h in hooks:
        h.remove()
    return found


def timm_vit(gamma):
    config = json.loads((TASK / "vision/timm_vit/config.json").read_text())
    model = fill(timm.create_model(config["architecture"], num_classes=5, **config["model_args"]))
    joint = catch([b.attn.qkv for b in model.blocks], lambda: model(data("pixel_values", (2, 3, 16, 24))))
    w = {k: v.numpy() for k, v in model.state_dict().items()}
    out = {}
    for b, value in enumerate(joint):
        width = value.shape[-1] // 3
        name = f"blocks.{b}.attn.qkv.weight"
        out[f"{name}:0"] = attention(value[..., :width], value[..., width : 2 * width], gamma)
        out[f"{name}:0@{2 * width}"] = redundancy(w[name][2 * width :])
        out[f"blocks.{b}.mlp.fc1.weight:0"] = redundancy(w[f"blocks.{b}.mlp.fc1.weight"])
    layers = ["patch_embed.proj"] + [f"blocks.{b}.{m}" for b in (0, 1) for m in ("attn.proj", "mlp.fc2")]
    out["stream"] = stream([w[f"{m}.weight"] for m in layers])
    return out


def vit_heads(gamma):
    config = json.loads((TASK / "vision/vit_heads/config.json").read_text())
    own = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    model = by_file_names(transformers.ViTForImageClassification, transformers.ViTConfig(**own))
    w = {k: v.numpy() for k, v in model.state_dict().items()}
    modules = dict(model.named_modules())
    linear = [n for n, m in modules.items() if isinstance(m, torch.nn.Linear) and "classifier" not in n]
    # Six linear layers a block, in order: query, key, value, output, and the two of the feed-forward layer.
    names = [linear[i : i + 6] for i in range(0, len(linear), 6)]
    pairs = [modules[n] for block in names for n in block[:2]]
    found = catch(pairs, lambda: model(data("pixel_values", (2, 2, 16, 24))))
    out, layers = {}, [next(v for k, v in w.items() if "projection.weight" in k)]
    for b, (q, k, v, o, up, down) in enumerate(names):
        at = f"vit.encoder.layer.{b}"
        out[f"{at}.attention.attention.query.weight:0"] = attention(found[2 * b], found[2 * b + 1], gamma)
        out[f"{at}.attention.attention.value.weight:0"] = redundancy(w[f"{v}.weight"])
        out[f"{at}.intermediate.dense.weight:0"] = redundancy(w[f"{up}.weight"])
        layers += [w[f"{o}.weight"], w[f"{down}.weight"]]
    out["stream"] = stream(layers)
    return out


def listed(scores):
    return {k: [float(f"{x:.9g}") for x in v] for k, v in scores.items()}


found = {
    "timm_vit": {"1%": listed(timm_vit(0.01)), "2": listed(timm_vit(2))},
    "vit_heads": {"1%": listed(vit_heads(0.01)), "2": listed(vit_heads(2))},
}
(HERE / "expected.json").write_text(json.dumps(found, indent=0) + "\n")
print({k: {g: list(s) for g, s in v.items()} for k, v in found.items()})
