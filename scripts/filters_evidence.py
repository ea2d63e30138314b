"""ResNet-56 on CIFAR-10 pictures after filter pruning without retraining, with Torch-Pruning beside it.

    python scripts/filters_evidence.py POMONA RUN_TENSORS DATA WORK [REPO]

POMONA and RUN_TENSORS are the built programs (`cargo build --release`, and `--example run_tensors -p pomona-task`); DATA holds
cifar10-resnets/ and cifar10-jpg/. One JSON a row goes to docs/results/filters; a row that is there is not measured again. `inside`
cuts the first layer of every residual block only, as the literature does and as Torch-Pruning can here (zeros are added where the
streams widen); `all` cuts the streams too. Calibration reads training pictures, accuracy test pictures. Needs numpy, safetensors, Pillow, torch, torch-pruning.
"""
import datetime
import io
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn.functional import pad

POMONA, RUN, DATA, WORK = (Path(a).resolve() for a in sys.argv[1:5])
REPO = Path(sys.argv[5] if len(sys.argv) > 5 else ".").resolve()
RESULTS = REPO / "docs/results/filters"
CRITERIA = ("l1", "l2", "geometric-median", "bn-scale", "taylor", "random", "reverse")
THEIRS = {"l1": tp.importance.GroupMagnitudeImportance(p=1), "l2": tp.importance.GroupMagnitudeImportance(p=2),
          "bn-scale": tp.importance.BNScaleImportance(), "geometric-median": tp.importance.FPGMImportance(),
          "taylor": tp.importance.GroupTaylorImportance()}
CALIBRATION, TEST, SEED = 200, 2000, 1234
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Block(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.more = width - before

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.more:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return (x + y).relu()


class ResNet(nn.Module):
    def __init__(self, blocks=9):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        before = 16
        for stage, width in enumerate((16, 32, 64)):
            layers = []
            for i in range(blocks):
                layers.append(Block(before, width, 2 if stage and not i else 1))
                before = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def prepare():
    model = WORK / "resnet56"
    model.mkdir(parents=True, exist_ok=True)
    file = next((DATA / "cifar10-resnets/pretrained_models").glob("resnet56*"))
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    state = {k.removeprefix("module."): v.float().numpy() for k, v in state.items() if "num_batches" not in k}
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})
    (model / "config.json").write_text('{"architecture": "resnet56", "torch_dtype": "float32"}\n')
    wanted = {"train": CALIBRATION, "test": TEST}
    if all((WORK / f"{part}.safetensors").exists() for part in wanted):
        return model
    found = {part: {} for part in wanted}
    with tarfile.open(DATA / "cifar10-jpg/cifar10-jpg.tar.gz") as tar:
        for m in tar:
            parts = m.name.split("/")
            if m.isfile() and len(parts) >= 3 and parts[-3] in found:
                found[parts[-3]].setdefault(parts[-2], []).append((m.name, tar.extractfile(m).read()))
    for part, count in wanted.items():
        pixels, target = [], []
        for label, name in enumerate(sorted(found[part])):
            for _, data in sorted(found[part][name])[: count // 10]:
                picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) / 255
                pixels.append(((picture - MEAN) / STD).transpose(2, 0, 1))
                target.append(label)
        # Mixed classes, so that a prefix has all of them.
        order = np.random.default_rng(SEED).permutation(len(target))
        save_file({"pixel_values": np.ascontiguousarray(np.stack(pixels)[order]), "target": np.float32(target)[order]},
                  WORK / f"{part}.safetensors")
    return model


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def shown(command):
    names = {str(POMONA): "pomona"}
    return " ".join(names.get(str(c), str(c).replace(f"{WORK}/", "")) for c in command)


def accuracy(logits, target):
    return float((logits.argmax(1) == target).mean())


def ours(model):
    out = WORK / "logits.safetensors"
    run(RUN, model, WORK / "test.safetensors", out, 100)
    return load_file(out)["logits"]


def keep(name, row):
    RESULTS.mkdir(parents=True, exist_ok=True)
    row |= {"seed": SEED, "machine": f"{platform.machine()}, 2 cores", "date": datetime.date.today().isoformat()}
    (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(name, {k: v for k, v in row.items() if k in ("accuracy", "macs", "torch_pruning")}, flush=True)


def dense_torch():
    net = ResNet()
    net.load_state_dict({k: torch.from_numpy(v) for k, v in load_file(WORK / "resnet56/model.safetensors").items()}, strict=False)
    return net.eval()


def torch_pruning(criterion, kept, data):
    """The same counts by Torch-Pruning's importance: how many layers keep the same channels, and its accuracy."""
    net = dense_torch()
    x, target = torch.from_numpy(data["pixel_values"]), torch.from_numpy(data["target"]).long()
    calibration = load_file(WORK / "train.safetensors")
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=x[:1])
    if criterion == "taylor":
        loss = nn.functional.cross_entropy(net(torch.from_numpy(calibration["pixel_values"])),
                                           torch.from_numpy(calibration["target"]).long())
        loss.backward()
    scores, with_norm = {}, {}
    for name in kept:
        layer = net.get_submodule(name)
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
        scores[name] = THEIRS[criterion](group).detach().numpy()
        if criterion == "taylor":
            # Their Taylor leaves the BatchNorm's scale out; with it the formula is ours.
            following, norm = net.get_submodule(name.replace("conv1", "conv2")), net.get_submodule(name.replace("conv1", "bn1"))
            terms = [(layer.weight * layer.weight.grad).abs().sum((1, 2, 3)), (norm.weight * norm.weight.grad).abs(),
                     (following.weight * following.weight.grad).abs().sum((0, 2, 3))]
            with_norm[name] = sum(terms).detach().numpy()
    equal = 0
    for name, indices in kept.items():
        layer = net.get_submodule(name)
        stays = np.argsort(-scores[name], kind="stable")[: len(indices)]
        equal += sorted(stays.tolist()) == indices
        gone = sorted(set(range(layer.out_channels)) - set(stays.tolist()))
        graph.get_pruning_group(layer, tp.prune_conv_out_channels, gone).prune()
    with torch.no_grad():
        logits = torch.cat([net(x[i : i + 500]) for i in range(0, len(x), 500)]).numpy()
    found = {"accuracy": accuracy(logits, target.numpy()), "layers_with_the_same_channels": f"{equal} of {len(kept)}"}
    if with_norm:
        same = (sorted(np.argsort(-with_norm[n], kind="stable")[: len(i)].tolist()) == i for n, i in kept.items())
        found["with_the_norm_s_scale_added"] = f"{sum(same)} of {len(kept)}"
    return found


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    model = prepare()
    data = load_file(WORK / "test.safetensors")
    if not (RESULTS / "dense.json").exists():
        logits = ours(model)
        with torch.no_grad():
            theirs = dense_torch()(torch.from_numpy(data["pixel_values"])).numpy()
        keep("dense", {"what": f"ResNet-56, {TEST} test pictures", "accuracy": accuracy(logits, data["target"]),
                       "largest_gap_to_pytorch": float(np.abs(logits - theirs).max()), "largest_logit": float(np.abs(theirs).max()),
                       "command": "run_tensors resnet56 test.safetensors logits.safetensors 100"})
    for criterion in CRITERIA:
        for how in ("normalised", "sum", "makers"):
            if criterion in ("random",) and how != "normalised":
                continue
            scores = WORK / f"scores-{criterion}-{how}.json"
            score = [POMONA, "score", model, "--method", "filters", "--criterion", criterion, "--aggregate", how, "--data",
                     WORK / "train.safetensors", "--samples", CALIBRATION, "--seed", SEED, "-o", scores]
            cases = [(cut, order, scope) for scope in ("inside", "all") for cut in (30, 50) for order in ("uniform", "global")]
            for cut, order, scope in cases:
                name = f"{criterion}-{how}-{order}-{cut}" + ("-all" if scope == "all" else "")
                if (RESULTS / f"{name}.json").exists():
                    continue
                if (order == "global" or scope == "all") and how != "normalised":
                    continue
                if not scores.exists():
                    run(*score, "--quiet")
                plan_file, out = WORK / f"{name}.plan.json", WORK / name
                plan = [POMONA, "plan", model, "--method", "filters", "--scores", scores, "--target", f"macs={100 - cut}%", "-o",
                        plan_file, *(["--global"] if order == "global" else []),
                        *(["--protect-groups", "*.conv2"] if scope == "inside" else [])]
                run(*plan, "--force", "--quiet")
                run(POMONA, "apply", model, "--plan", plan_file, "-o", out, "--force", "--quiet")
                made = json.loads(plan_file.read_text())
                row = {"what": f"ResNet-56, {cut} % fewer MACs, no retraining", "criterion": criterion, "aggregate": how,
                       "order": order, "scope": scope, "cut": cut, "parameters": made["after"]["parameters"], "macs": made["after"]["macs"],
                       "macs_dense": made["before"]["macs"], "accuracy": accuracy(ours(out), data["target"]),
                       "command": shown(score) + " && " + shown(plan)}
                if how == "sum" and criterion in THEIRS:
                    kept = {e["group"].removesuffix(".weight:0"): e["indices"] for e in made["edits"]}
                    row["torch_pruning"] = torch_pruning(criterion, kept, data)
                keep(name, row)


if __name__ == "__main__":
    main()
