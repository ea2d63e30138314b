"""An ONNX file with more than 2 GB of external data: scored, planned and cut with little memory, then run by ONNX Runtime.

    python scripts/onnx_large.py POMONA WORK [REPO]

Makes WORK/large.onnx (random weights, seven residual blocks of two products, 3.5 GiB beside the file), cuts 30 % of the hidden
channels by l1 with the data segment of every step limited to the largest tensor and 64 MiB (`prlimit --data`: mapped files do not count),
checks what is written by path with onnx.checker, and compares ONNX Runtime's outputs with those of the source whose removed channels are
zero. Writes docs/results/onnx/external-data.json and deletes the files. Needs numpy, onnx, onnxruntime, 7 GB of disk.
"""
import datetime
import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

POMONA, WORK = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
REPO = Path(sys.argv[3] if len(sys.argv) > 3 else ".").resolve()
SEED, BLOCKS, WIDTH, HIDDEN = 1234, 7, 4096, 16384
LIMIT = 4 * WIDTH * HIDDEN + (64 << 20)


def outside(name, shape, offset):
    t = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "large.bin"), ("offset", offset), ("length", 4 * int(np.prod(shape)))):
        t.external_data.add(key=key, value=str(value))
    return t


def make(path):
    """The file, and the places of its weights."""
    draw, nodes, tensors, places, offset, x = np.random.default_rng(SEED), [], [], {}, 0, "x"
    with (path.parent / "large.bin").open("wb") as data:
        for b in range(BLOCKS):
            for name, shape in ((f"blocks.{b}.up.weight", (WIDTH, HIDDEN)), (f"blocks.{b}.down.weight", (HIDDEN, WIDTH))):
                values = draw.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
                data.write(values.tobytes())
                tensors.append(outside(name, shape, offset))
                places[name] = (offset, shape)
                offset += values.nbytes
            nodes += [helper.make_node("MatMul", [x, f"blocks.{b}.up.weight"], [f"h{b}"], name=f"/blocks.{b}/up/MatMul"),
                      helper.make_node("Relu", [f"h{b}"], [f"a{b}"], name=f"/blocks.{b}/act/Relu"),
                      helper.make_node("MatMul", [f"a{b}", f"blocks.{b}.down.weight"], [f"d{b}"], name=f"/blocks.{b}/down/MatMul"),
                      helper.make_node("Add", [x, f"d{b}"], [f"x{b}"], name=f"/blocks.{b}/Add")]
            x = f"x{b}"
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", WIDTH]) for n in ("x", x)]
    graph = helper.make_graph(nodes, "large", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return places, offset


def limited(*args):
    start = time.time()
    done = subprocess.run(["prlimit", f"--data={LIMIT}", "--", POMONA, "--quiet", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pomona {' '.join(map(str, args))}: {done.returncode} {done.stderr}")
    return round(time.time() - start, 1)


def masked(path, places, kept, x):
    """What the source computes with the channels that were removed left out, block by block."""
    for b in range(BLOCKS):
        up, down = (np.memmap(path.parent / "large.bin", np.float32, "r", places[f"blocks.{b}.{w}.weight"][0],
                              places[f"blocks.{b}.{w}.weight"][1]) for w in ("up", "down"))
        h = np.maximum(x @ np.asarray(up), 0)
        h[:, [i for i in range(HIDDEN) if i not in kept[b]]] = 0
        x = x + h @ np.asarray(down)
    return x


def kept_channels(path, places):
    """The hidden channels of largest l1 norm of what makes them and what reads them are not asked of the plan: the columns that were
    written are looked up among the source's."""
    model, kept = onnx.load(str(path), load_external_data=False), []
    found = {t.name: t for t in model.graph.initializer}
    for b in range(BLOCKS):
        t = next(v for k, v in found.items() if k.endswith(f"blocks.{b}.up.weight"))
        at = {e.key: e.value for e in t.external_data}
        new = np.memmap(path.parent / at["location"], np.float32, "r", int(at["offset"]), tuple(t.dims))
        offset, shape = places[f"blocks.{b}.up.weight"]
        old = np.memmap(WORK / "large.bin", np.float32, "r", offset, shape)
        new_rows = np.asarray(new[:4]) if new.shape[0] == WIDTH else np.asarray(new[:, :4]).T
        index = {c.tobytes(): i for i, c in enumerate(np.ascontiguousarray(old[:4].T))}
        kept.append({index[c.tobytes()] for c in np.ascontiguousarray(new_rows.T)})
    return kept


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    source, scores, plan, out = WORK / "large.onnx", WORK / "scores.json", WORK / "plan.json", WORK / "out"
    try:
        places, size = make(source)
        seconds = {
            "score": limited("score", source, "--method", "filters", "--criterion", "l1", "-o", scores),
            "plan": limited("plan", source, "--method", "filters", "--scores", scores, "--ratio", "0.3", "-o", plan),
            "apply": limited("apply", source, "--plan", plan, "-o", out),
        }
        file = out / "model.onnx"
        onnx.checker.check_model(str(file), full_check=True)
        x = np.random.default_rng(SEED + 1).standard_normal((2, WIDTH), dtype=np.float32)
        kept = kept_channels(file, places)
        want = masked(source, places, kept, x)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        got = session.run(None, {"x": x})[0]
        share = float(np.abs(got - want).max() / (1e-4 * max(1.0, np.abs(want).max())))
        row = {"what": "external data over 2 GB: read, cut, written under a limit of the data segment", "bytes_outside": size,
               "bytes_written_outside": (out / "model.onnx.data").stat().st_size, "largest_tensor": 4 * WIDTH * HIDDEN,
               "limit": LIMIT, "hidden": HIDDEN, "hidden_kept": [len(k) for k in kept], "seconds": seconds,
               "checker": "full check by path passed", "share_of_tolerance_onnxruntime": round(share, 4),
               "command": "scripts/onnx_large.py", "seed": SEED, "machine": f"{platform.machine()}, 2 cores",
               "onnxruntime": onnxruntime.__version__, "date": datetime.date.today().isoformat()}
        if share > 1:
            sys.exit(f"not close: {row}")
        (REPO / "docs/results/onnx").mkdir(parents=True, exist_ok=True)
        (REPO / "docs/results/onnx/external-data.json").write_text(json.dumps(row, indent=1) + "\n")
        print(json.dumps(row))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


main()
