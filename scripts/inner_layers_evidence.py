"""Cut Inner Layers on the trained edges2cats generator: sensitivity, inner against global pruning, pictures.

    python scripts/inner_layers_evidence.py POMONA RUN_TENSORS CATS WORK [REPO]

POMONA and RUN_TENSORS are the built programs (`cargo build --release`, and `--example run_tensors -p pomona-task`); CATS is what
scripts/edges2cats.py wrote. A result whose file is in docs/results/inner-layers is not measured again; delete it to repeat.
Writes docs/inner-layers-sensitivity.svg, docs/inner-layers-pictures.png and one JSON a row. Needs numpy, safetensors, Pillow,
scikit-image, torch.
"""
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from skimage.metrics import structural_similarity
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

POMONA, RUN, CATS, WORK = (Path(a).resolve() for a in sys.argv[1:5])
REPO = Path(sys.argv[5] if len(sys.argv) > 5 else ".").resolve()
RESULTS = REPO / "docs/results/inner-layers"
SHARES = (25, 50, 75)
SEED = 1234


def run(*command):
    print("$", " ".join(Path(str(c)).name if "/" in str(c) else str(c) for c in command), flush=True)
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def shown(command):
    names = {str(POMONA): "pomona", str(CATS / "model"): "CATS/model", str(CATS / "drawings.safetensors"): "CATS/drawings.safetensors"}
    return " ".join(names.get(str(c), str(c).replace(f"{WORK}/", "")) for c in command)


def reference(tensors, x):
    """The network of the nested modules, widths read off the weights, by PyTorch."""
    t = {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}

    def norm(x, p):
        # batch_norm refuses the one position of the bottleneck.
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-3).sqrt()
        return x * t[f"{p}.weight"][:, None, None] + t[f"{p}.bias"][:, None, None]

    def level(path, x, outermost=False):
        conv, inner = ("0", "1") if outermost else ("1", "3")
        h = conv2d(x if outermost else leaky_relu(x, 0.2), t[f"{path}.{conv}.weight"], t[f"{path}.{conv}.bias"], 2, 1)
        if outermost:
            h = level(f"{path}.{inner}.model", h)
            return conv_transpose2d(h.relu(), t[f"{path}.3.weight"], t[f"{path}.3.bias"], 2, 1).tanh()
        h = norm(h, f"{path}.2")
        innermost = not any(k.startswith(f"{path}.3.model") for k in t)
        up = 4
        if not innermost:
            h, up = level(f"{path}.3.model", h), 5
        elif f"{path}.{up}.weight" not in t or t[f"{path}.{up}.weight"].ndim != 4:
            up = 5
        h = conv_transpose2d(h.relu(), t[f"{path}.{up}.weight"], t[f"{path}.{up}.bias"], 2, 1)
        return torch.cat([norm(h, f"{path}.{up + 1}"), x], 1)

    with torch.no_grad():
        return torch.cat([level("model.model", x[i : i + 1], True) for i in range(len(x))]).numpy()


def pictures(model, name):
    out = WORK / f"{name}.safetensors"
    if not out.exists():
        run(RUN, model, CATS / "drawings.safetensors", out)
    return load_file(out)["output"]


def distances(a, b):
    span = float(a.max() - a.min())
    ssim = [structural_similarity(p, q, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            for x, y in zip(a.astype(np.float64), b.astype(np.float64)) for p, q in zip(x, y)]
    error = float(((a - b) ** 2).mean())
    return {"l1": float(np.abs(a - b).mean()), "psnr": float(10 * np.log10(span**2 / error)) if error else None,
            "ssim": float(np.mean(ssim))}


def pruned(name, *options):
    """The plan's row and the pictures of its output."""
    out = WORK / name
    command = [POMONA, "compress", CATS / "model", *options, "--seed", SEED, "-o", out]
    if not out.exists():
        run(*command, "--quiet")
    plan = json.loads((WORK / f"{name}.plan.json").read_text())
    return plan, pictures(out, name), shown(command)


def keep(name, row):
    RESULTS.mkdir(parents=True, exist_ok=True)
    row |= {"seed": SEED, "machine": f"{platform.machine()}, 2 cores", "date": datetime.date.today().isoformat()}
    (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    drawings = load_file(CATS / "drawings.safetensors")["input"]
    dense = pictures(CATS / "model", "dense")
    theirs = reference(load_file(CATS / "model/model.safetensors"), torch.from_numpy(drawings))
    gap = float(np.abs(dense - theirs).max())
    print(f"dense output against PyTorch: {gap:.2e}")
    keep("dense", {"what": "dense output against PyTorch on the same weights", "largest_gap": gap,
                   "pictures": len(drawings), "command": "run_tensors CATS/model CATS/drawings.safetensors"})
    sweep = [POMONA, "score", CATS / "model", "--method", "inner-layers", "--criterion", "l1", "--aggregate", "makers", "--data",
             CATS / "drawings.safetensors", "--samples", len(drawings), "--seed", SEED, "-o", WORK / "sensitivity.json"]
    chart = REPO / "docs/inner-layers-sensitivity.svg"
    found = json.loads(run(*sweep, "--chart", chart, "--json", "--quiet"))
    keep("sensitivity", {"what": "each layer alone, no retraining", "command": shown(sweep),
                         "data": found["data"]["source"], "rows": found["rows"]})
    sheet = {"drawing": drawings, "dense": dense}
    for share in SHARES:
        row = {}
        plan, images, command = pruned(f"inner-{share}", "--method", "inner-layers", "--criterion", "l1", "--aggregate", "makers",
                                       "--from-level", 4, "--ratio", f"{share}%")
        parameters = plan["after"]["parameters"]
        ours = reference(load_file(WORK / f"inner-{share}/model.safetensors"), torch.from_numpy(drawings))
        row["inner"] = {"command": command, "parameters": parameters, "macs": plan["after"]["macs"],
                        "gap_to_pytorch": float(np.abs(ours - images).max()), **distances(dense, images)}
        sheet[f"inner {share} %"] = images
        # The same parameters, taken where the whole network's ranking takes them, or evenly.
        for name, extra in (("global", ["--global"]), ("uniform", [])):
            plan, images, command = pruned(f"{name}-{share}", "--method", "filters", "--criterion", "l1", "--aggregate", "makers",
                                           "--target", f"params={parameters}", *extra)
            row[name] = {"command": command, "parameters": plan["after"]["parameters"], "macs": plan["after"]["macs"],
                         **distances(dense, images)}
            sheet[f"{name}, same size as {share} %"] = images
        row["before"] = plan["before"]
        keep(f"cut-{share}", {"what": f"{share} % of the filters of levels 4 to 8 against other cuts of the same size", **row})
    for drop in (1, 2, 3, 4):
        plan, images, command = pruned(f"drop-{drop}", "--method", "inner-layers", "--drop-levels", drop)
        keep(f"drop-{drop}", {"what": f"{drop} innermost levels taken out, no retraining", "command": command,
                              "parameters": plan["after"]["parameters"], "macs": plan["after"]["macs"], **distances(dense, images)})
        sheet[f"{drop} level{'s' if drop > 1 else ''} out"] = images
    draw(sheet, REPO / "docs/inner-layers-pictures.png")


def draw(sheet, path):
    from PIL import ImageDraw

    size, columns, label = 96, (0, 1, 2, 5, 8), 150
    board = Image.new("RGB", (label + size * len(columns), size * len(sheet)), "white")
    pen = ImageDraw.Draw(board)
    for y, (name, images) in enumerate(sheet.items()):
        pen.multiline_text((6, y * size + size // 2 - 8), name.replace(", ", ",\n"), fill="black")
        for x, i in enumerate(columns):
            picture = Image.fromarray(((images[i].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8))
            board.paste(picture.resize((size, size), Image.LANCZOS), (label + x * size, y * size))
    board.quantize(64).save(path, optimize=True)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
