"""Golden files of the PyTorch reader: state dicts as torch.save writes them, and expected.json with their values.

Run in this directory with PyTorch 2.x:  python make_goldens.py
"""
import json
from collections import OrderedDict

import torch

torch.manual_seed(3)


def numbers(*shape):
    return torch.randn(*shape)


expected = {}


def save(file, thing, tensors, **options):
    torch.save(thing, file, **options)
    expected[file] = {
        name: {
            "dtype": str(t.dtype).removeprefix("torch."),
            "shape": list(t.shape),
            # Complex numbers are compared by their parts, small integers are exact in f32.
            "values": t.detach().contiguous().to(torch.float64).flatten().tolist(),
        }
        for name, t in tensors.items()
    }


base = numbers(4, 6)
types = OrderedDict(
    f64=numbers(3).double(),
    f32=numbers(2, 3),
    f16=numbers(5).half(),
    bf16=numbers(5).bfloat16(),
    i64=torch.tensor([1, -2, 1 << 20]),
    i32=torch.tensor([1, -2], dtype=torch.int32),
    i16=torch.tensor([300, -2], dtype=torch.int16),
    i8=torch.tensor([100, -2], dtype=torch.int8),
    u8=torch.tensor([200, 2], dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    scalar=torch.tensor(0.25),
    empty=torch.zeros(0, 3),
)
views = OrderedDict(
    base=base,
    transposed=base.t(),
    columns=base[:, 1:4],
    row=base[2],
    every_other=base[::2, ::3],
    permuted=numbers(2, 3, 4).permute(2, 0, 1),
    expanded=numbers(3, 1).expand(3, 4),
    tied=base,
    one=base[1:2, 2:3],
)
parameter = torch.nn.Parameter(numbers(2, 2))
nested = {
    "epoch": 7,
    "loss": 0.5,
    "best": None,
    "args": {"lr": 1e-3, "name": "run"},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": numbers(2)}}, "param_groups": [{"lr": 0.1}]},
    "state_dict": OrderedDict(w=parameter, inner={"a": types["f32"], "b": [base, types["i64"]]}),
}
inside = {"w": parameter, "inner.a": types["f32"], "inner.b.0": base, "inner.b.1": types["i64"]}
model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))

for form, new in [("zip", True), ("legacy", False)]:
    options = {"_use_new_zipfile_serialization": new}
    save(f"types_{form}.pth", types, types, **options)
    save(f"views_{form}.pth", views, views, **options)
    save(f"nested_{form}.pth", nested, inside, **options)
    save(f"module_{form}.pth", model.state_dict(), model.state_dict(), **options)
save("protocol4_zip.pt", types, types, pickle_protocol=4)
save("protocol4_legacy.pt", types, types, pickle_protocol=4, _use_new_zipfile_serialization=False)
float8 = {"w": numbers(4).to(torch.float8_e4m3fn), "u": torch.tensor([7, 40000], dtype=torch.uint16)}
save("untyped_zip.pt", float8, float8)
save("ema_zip.pth", {"params": {"w": numbers(2)}, "params_ema": {"w": base}}, {"w": base})

with open("expected.json", "w") as f:
    json.dump(expected, f, separators=(",", ":"))
    f.write("\n")
