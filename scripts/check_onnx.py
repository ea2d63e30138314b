#!/usr/bin/env python3
"""Checks an ONNX file with onnx.checker (full check) and compares its outputs with another's in ONNX Runtime.

    scripts/check_onnx.py OURS.onnx [--against ORIGINAL.onnx] [--size name=n,...] [--seed 0] [--positive NAME,...]

    scripts/check_onnx.py --cases DIR      every DIR/NAME/model.onnx against DIR/NAME/case.safetensors

Inputs are drawn from the seed: normal floats, integers 0 to 7. Prints the largest distance, and its share of what counts as
close (1e-4 of the largest output, at least 1e-4). Exits with 1 where the checker refuses or the outputs are not close.
Needs onnx, onnxruntime and numpy.
"""
import argparse
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
         "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if any(n.op_type == "QuantizeLinear" for n in onnx.load(path, load_external_data=False).graph.node):
        # As the file says: the optimiser's integer kernels saturate, and two files that say the same end a step of rounding apart.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds(s, sizes, seed, positive):
    draw = np.random.RandomState(seed)
    out = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) else sizes.get(d, 1) for d in i.shape]
        kind = TYPES[i.type]
        if np.issubdtype(kind, np.floating):
            x = draw.standard_normal(shape)
            out[i.name] = (np.abs(x) + 0.1 if i.name in positive else x).astype(kind)
        else:
            out[i.name] = draw.randint(0, 8 if kind != np.bool_ else 2, shape).astype(kind)
    return out


def cases(folder, tolerance):
    """Files that `cargo test -p pomona-task --test onnx_architectures` kept (POMONA_ONNX_OUT)."""
    from safetensors.numpy import load_file
    bad = 0
    for case in sorted(pathlib.Path(folder).glob("*/case.safetensors")):
        path, data = str(case.parent / "model.onnx"), load_file(case)
        try:
            onnx.checker.check_model(path, full_check=True)
            s = session(path)
            names = [k[4:] for k in data if k.startswith("out.")]
            got = s.run(names, {i.name: data["in." + i.name] for i in s.get_inputs()})
        except Exception as e:  # noqa: BLE001, every failure is a line of the report
            print(f"{case.parent.name}: FAILED {str(e)[:300]}")
            bad = 1
            continue
        worst = 0.0
        for n, g in zip(names, got):
            want = data["out." + n].astype(np.float64)
            worst = max(worst, np.abs(g.astype(np.float64) - want).max() / (tolerance * max(1.0, np.abs(want).max())))
        print(f"{case.parent.name}: accepted, {worst:.3f} of the tolerance{'' if worst <= 1 else ' FAILED'}")
        bad |= int(not worst <= 1)
    return bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ours", nargs="?")
    p.add_argument("--cases")
    p.add_argument("--against")
    p.add_argument("--size", default="")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--positive", default="sigma")
    p.add_argument("--tolerance", type=float, default=1e-4)
    a = p.parse_args()
    if a.cases:
        return cases(a.cases, a.tolerance)
    onnx.checker.check_model(a.ours, full_check=True)
    sizes = {k: int(v) for k, v in (kv.split("=") for kv in a.size.split(",") if kv)}
    s = session(a.ours)
    against = session(a.against) if a.against else None
    given = feeds(against or s, sizes, a.seed, a.positive.split(","))
    ours = s.run(None, {i.name: given[i.name] for i in s.get_inputs()})
    nodes = len(onnx.load(a.ours, load_external_data=False).graph.node)
    print(f"{a.ours}: accepted by the checker, {nodes} nodes")
    if not against:
        finite = all(np.isfinite(o).all() for o in ours if np.issubdtype(o.dtype, np.floating))
        print(f"outputs {[tuple(o.shape) for o in ours]}, {'finite' if finite else 'NOT FINITE'}")
        return 0 if finite else 1
    names = [o.name for o in against.get_outputs()]
    theirs = against.run(names, given)
    mine = dict(zip([o.name for o in s.get_outputs()], ours))
    bad = 0
    for name, want in zip(names, theirs):
        got = mine[name]
        if got.shape != want.shape:
            print(f"{name}: shape {got.shape}, {want.shape} was expected")
            bad = 1
            continue
        want, got = want.astype(np.float64), got.astype(np.float64)
        gap = np.abs(want - got).max() if want.size else 0.0
        share = gap / (a.tolerance * max(1.0, np.abs(want).max() if want.size else 0.0))
        print(f"{name}: largest distance {gap:.3g}, {share:.3f} of the tolerance")
        bad |= int(not share <= 1)
    return bad


if __name__ == "__main__":
    sys.exit(main())
