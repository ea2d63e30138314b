"""A small CIFAR ResNet as PyTorch saves it: `net.th` in the legacy format, nested, of a wrapped model and with counters of batches;
`net.pth` as a zip, with transposed and shared storages. The weights are those of `vision/resnet_cifar_a` (a function of their names), so
that its golden is theirs too. `module.pth` is a whole pickled module, which nobody should load.

    python crates/pomona-task/tests/state_dict/make_files.py
"""
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "diffusers"))
from seeded import weight  # noqa: E402

WIDTH, LAYERS = 4, (1, 1, 2)


def shapes():
    yield "conv1.weight", (WIDTH, 3, 3, 3)
    yield from norm("bn1", WIDTH)
    before = WIDTH
    for stage, count in enumerate(LAYERS):
        width = WIDTH << stage
        for i in range(count):
            at = f"layer{stage + 1}.{i}"
            yield f"{at}.conv1.weight", (width, before, 3, 3)
            yield from norm(f"{at}.bn1", width)
            yield f"{at}.conv2.weight", (width, width, 3, 3)
            yield from norm(f"{at}.bn2", width)
            before = width
    yield "linear.weight", (10, before)
    yield "linear.bias", (10,)


def norm(name, n):
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (n,)


def main():
    state = {name: torch.from_numpy(weight(name, shape).copy()) for name, shape in shapes()}
    wrapped = {f"module.{name}": value for name, value in state.items()}
    wrapped.update({f"module.{n[:-len('running_var')]}num_batches_tracked": torch.tensor(7) for n in state if n.endswith("running_var")})
    torch.save({"state_dict": wrapped, "epoch": 3, "best_prec1": 81.5}, HERE / "net.th", _use_new_zipfile_serialization=False)
    views = dict(state)
    views["linear.weight"] = state["linear.weight"].t().contiguous().t()
    whole = torch.cat([state["bn1.weight"], state["bn1.bias"]])
    views["bn1.weight"], views["bn1.bias"] = whole[:WIDTH], whole[WIDTH:]
    torch.save(views, HERE / "net.pth")
    torch.save(torch.nn.Linear(2, 2), HERE / "module.pth")


main()
