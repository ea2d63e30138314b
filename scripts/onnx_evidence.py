"""Two trained ONNX networks: what is found in them, written again, and with 30 % fewer MACs.

    python scripts/onnx_evidence.py POMONA RUN_TENSORS MODELS DATA WORK [REPO]

POMONA and RUN_TENSORS are the built programs (`cargo build --release --workspace --bins --examples`); MODELS holds terrain.onnx and
focus.onnx (`scripts/fetch-onnx-nets.sh`); DATA holds facades/. One JSON a row goes to docs/results/onnx; a row that is there is not
measured again. The tables of docs/onnx.md between `<!-- NAME -->` and `<!-- end of NAME -->` are made from the rows, and
docs/onnx-terrain.png from the networks. Needs numpy, onnx, onnxruntime, safetensors, Pillow.

Inputs are what the networks' own packages feed them. Terrain: seeded normal noise times sigma 80, difficulty labels 0 to 1. Focus: photos
with the longer side scaled to 224, padded with black to a square, normalised as for ImageNet (Pillow's box filter stands for OpenCV's
area filter). Latency: ONNX Runtime with 1 thread, all variants of a network in turn, round after round; what counts is the time that the
thread had a core, which other work on the machine changes little.
"""
import collections
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

POMONA, RUN, MODELS, DATA, WORK = (Path(a).resolve() for a in sys.argv[1:6])
REPO = Path(sys.argv[6] if len(sys.argv) > 6 else ".").resolve()
RESULTS = REPO / "docs/results/onnx"
SEED, SEEDS, ROUNDS = 1234, (1, 2, 3), {1: 5, 4: 3}
NETS = ("terrain", "focus")
# What must be found: operators of the graph by kind. What they were decomposed into must be gone.
EXPECTED = {
    "terrain": {"Attention": 28, "GroupNorm": 139, "silu": 114, "Softmax": 0, "InstanceNorm": 0, "sigmoid": 0, "MatMul": 0},
    "focus": {"Attention": 12, "LayerNorm": 25, "gelu": 12, "Softmax": 0, "MatMul": 0, "Reduce": 0, "erf": 0},
}
# What an `inside` cut leaves whole: the streams that blocks add to, and the embeddings of sigma and difficulty.
STREAMS = {"terrain": ("network.time_embed", "network.label_emb", "*unsqueeze_4", "*.out_layers.3", "network.input_blocks.0.0"),
           "focus": ("backbone.embeddings.patch_embeddings.projection",)}
TITLES = {"l1": "l1", "random": "random (mean of 3 seeds)", "snp": "SNP", "reverse": "SNP, most important first"}


def pomona(*args):
    done = subprocess.run([POMONA, "--quiet", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pomona {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout


def session(path, threads=2):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(net):
    """Samples along the first axis."""
    if net == "terrain":
        noise = np.random.default_rng(SEED).standard_normal((8, 1, 128, 128), dtype=np.float32)
        return {"noisy": noise * np.float32(80.0), "sigma": np.full(8, 80.0, np.float32),
                "difficulty": np.linspace(0, 1, 8, dtype=np.float32)}
    photos = sorted((DATA / "facades/facades/val").glob("*.jpg"), key=lambda p: int(p.stem))[:20]
    return {"input_image": np.stack([photo(p) for p in photos])}


def photo(path):
    image = Image.open(path).convert("RGB")
    image = image.crop((0, 0, image.width // 2, image.height))
    scale = 224 / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)
    square = np.zeros((224, 224, 3), np.float32)
    top, left = (224 - image.height) // 2, (224 - image.width) // 2
    square[top:top + image.height, left:left + image.width] = np.asarray(image, np.float32) / 255
    return ((square - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])).transpose(2, 0, 1)


def outputs(path, data):
    s, n = session(path), len(next(iter(data.values())))
    return np.concatenate([s.run(None, {k: v[i:i + 4] for k, v in data.items()})[0] for i in range(0, n, 4)])


def ours(model, data, name):
    """Outputs of Pomona's own executor for the first two samples."""
    given, made = WORK / f"{name}.in.safetensors", WORK / f"{name}.out.safetensors"
    save_file({k: np.ascontiguousarray(v[:2]) for k, v in data.items()}, given)
    subprocess.run([RUN, model, given, made], check=True, capture_output=True)
    return next(iter(load_file(made).values()))


def share(want, got):
    """Largest distance as a share of the closeness 1e-4 x max(1, max |reference|)."""
    return float(np.abs(want - got).max() / (1e-4 * max(1.0, np.abs(want).max())))


def apart(want, got):
    return {"relative_l2": round(float(np.linalg.norm(got - want) / np.linalg.norm(want)), 4),
            "max_distance": round(float(np.abs(got - want).max()), 4)}


def write(name, row, command):
    row |= {"command": command, "seed": SEED, "machine": f"{platform.machine()}, 2 cores",
            "onnxruntime": onnxruntime.__version__, "date": datetime.date.today().isoformat()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(name, {k: v for k, v in row.items() if not isinstance(v, (dict, list))}, flush=True)


def have(name):
    return (RESULTS / f"{name}.json").exists()


def structure(net):
    model, out = MODELS / f"{net}.onnx", WORK / f"{net}-graph"
    found = json.loads(pomona("inspect", model, "--groups", "--json"))
    shutil.rmtree(out, ignore_errors=True)
    pomona("export", model, "-o", out, "--format", "onnx")
    graph = json.loads((out / "pomona.json").read_text())
    kinds = collections.Counter(o["operator"] for o in found["operators"])
    kinds.update(activations(graph))
    wrong = {k: (kinds.get(k, 0), n) for k, n in EXPECTED[net].items() if kinds.get(k, 0) != n}
    if wrong:
        sys.exit(f"{net}: found and expected differ: {wrong}")
    groups = found["groups"]
    whole = [g for g in groups if g["locked"] and not g["locked"].startswith(
        ("it is an axis of the kernel", "each group has one channel", "it is a single index"))]
    write(f"structure-{net}", {
        "what": f"{net}.onnx: operators found", "nodes_in_file": len(onnx.load(model).graph.node), "operators": sum(
            o["operator"] != "Constant" for o in found["operators"]), "kinds": {k: kinds.get(k, 0) for k in EXPECTED[net]},
        "parameters": found["parameters"], "macs": found["macs"], "blocks": len(found["blocks"]),
        "groups_open": sum(g["locked"] is None for g in groups),
        "groups_whole": {g["name"]: g["locked"] for g in whole}}, f"pomona inspect {net}.onnx --groups --json")


def activations(document):
    """Functions of activation nodes, wherever the manifest keeps its graph."""
    found = collections.Counter()

    def walk(v):
        if isinstance(v, dict):
            if isinstance(v.get("function"), str):
                found[v["function"].split("_")[0]] += 1
            elif isinstance(v.get("function"), dict):
                found[next(iter(v["function"])).split("_")[0]] += 1
            for x in v.values():
                walk(x)
        elif isinstance(v, list):
            for x in v:
                walk(x)

    walk(document)
    return found


def roundtrip(net, opset, data):
    out = WORK / f"{net}-{opset}"
    shutil.rmtree(out, ignore_errors=True)
    pomona("export", MODELS / f"{net}.onnx", "-o", out, "--format", "onnx", "--opset", opset)
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
    row = {"what": f"{net}.onnx written again as operator set {opset}", "opset": opset, "checker": "full check passed"}
    for batch in (1, 4):
        part = {k: v[:batch] for k, v in data.items()}
        want = session(MODELS / f"{net}.onnx").run(None, part)[0]
        got = session(out / "model.onnx").run(None, part)[0]
        row[f"share_of_tolerance_batch_{batch}"] = round(share(want, got), 4)
    want = outputs(MODELS / f"{net}.onnx", {k: v[:2] for k, v in data.items()})
    row["share_of_tolerance_own_executor"] = round(share(want, ours(MODELS / f"{net}.onnx", data, net)), 4)
    if max(v for k, v in row.items() if k.startswith("share")) > 1:
        sys.exit(f"{net} as {opset}: not close: {row}")
    write(f"roundtrip-{net}-{opset}", row, f"pomona export {net}.onnx -o OUT --format onnx --opset {opset}")


def variants(net):
    """Name, criterion, which channels in which order, flags of the plan."""
    whole = [flag for name in STREAMS[net] for flag in ("--protect-groups", name)]
    for criterion in ("l1", "random") + (("snp",) if net == "focus" else ()):
        for order in ("uniform", "global"):
            for rounding in ("", "-round8"):
                flags = ["--global"] * (order == "global") + ["--round", "8"] * bool(rounding)
                yield f"{net}-{criterion}-{order}{rounding}", criterion, order, ["--target", "macs=70%", *flags]
        for cut in (30, 10):
            yield f"{net}-{criterion}-inside-{cut}", criterion, "inside", ["--target", f"macs={100 - cut}%", *whole]
    if net == "focus":
        yield "focus-reverse-uniform", "reverse", "uniform", ["--target", "macs=70%"]
        yield "focus-reverse-inside-10", "reverse", "inside", ["--target", "macs=90%", *whole]


def method_of(criterion):
    return "snp" if criterion in ("snp", "reverse") else "filters"


def timed(name):
    """Whose latency is measured: random cuts have the sizes of the others."""
    return ("-l1-" in name or "-snp-" in name) and not name.endswith("-10")


def pruned(net, name, criterion, flags, seed):
    """Plans and applies; the directory and the plan."""
    method = method_of(criterion)
    scores, plan = WORK / f"{net}-{method}-{criterion}-{seed}.scores.json", WORK / f"{name}-{seed}.plan.json"
    out, model = WORK / f"{name}-{seed}", MODELS / f"{net}.onnx"
    if not scores.exists():
        how = snp_data(net) if criterion in ("snp", "reverse") else []
        pomona("score", model, "--method", method, "--criterion", criterion, *how, "--seed", seed, "-o", scores)
    pomona("plan", model, "--method", method, "--scores", scores, *flags, "-o", plan, "--force")
    if not (out / "model.onnx").exists():
        shutil.rmtree(out, ignore_errors=True)
        pomona("apply", model, "--plan", plan, "-o", out)
    return out, json.loads(plan.read_text())


def snp_data(net):
    """Training photos, none of which the distances are measured on."""
    path = WORK / f"{net}-calibration.safetensors"
    if not path.exists():
        photos = sorted((DATA / "facades/facades/train").glob("*.jpg"), key=lambda p: p.stem)[:16]
        save_file({"input_image": np.stack([photo(p) for p in photos])}, path)
    return ["--data", path, "--samples", 16]


def cut(net, name, criterion, order, flags, data, dense):
    rows = []
    for seed in SEEDS if criterion == "random" else (SEED,):
        out, plan = pruned(net, name, criterion, flags, seed)
        file = out / "model.onnx"
        onnx.checker.check_model(str(file), full_check=True)
        got = outputs(file, data)
        rows.append({"seed": seed, **apart(dense, got), "parameters": plan["after"]["parameters"],
                     "macs": plan["after"]["macs"], "bytes": file.stat().st_size,
                     "own_executor_share_of_tolerance": round(share(got[:2], ours(out, data, name)), 4)})
    if max(r["own_executor_share_of_tolerance"] for r in rows) > 1:
        sys.exit(f"{name}: ONNX Runtime and the executor differ: {rows}")
    mean = {k: statistics.mean(r[k] for r in rows) for k in rows[0] if k != "seed"}
    before = plan["before"]
    method = method_of(criterion)
    write(name, {"what": f"{net}.onnx cut to {flags[1]}, no retraining", "criterion": criterion, "order": order,
                 "round": 8 if "8" in flags else 1, "parameters": round(mean["parameters"]), "macs": round(mean["macs"]),
                 "parameters_dense": before["parameters"], "macs_dense": before["macs"],
                 "relative_l2": round(mean["relative_l2"], 4), "max_distance": round(mean["max_distance"], 4),
                 "file_bytes": round(mean["bytes"]), "samples": len(dense), "runs": rows},
          f"pomona plan {net}.onnx --method {method} --scores scores.json {' '.join(flags)} -o plan.json && "
          f"pomona apply {net}.onnx --plan plan.json -o OUT".replace("  ", " "))


def latency(net, data):
    """All variants in turn, so that what else runs on the machine meets all alike."""
    files = {"original": MODELS / f"{net}.onnx", "written again": WORK / f"{net}-22" / "model.onnx"}
    for name, criterion, _, flags in variants(net):
        if timed(name):
            files[name] = pruned(net, name, criterion, flags, SEED)[0] / "model.onnx"
    path = RESULTS / f"latency-{net}.json"
    if path.exists() and set(json.loads(path.read_text())["milliseconds"]) == set(files):
        return
    if not files["written again"].exists():
        pomona("export", MODELS / f"{net}.onnx", "-o", WORK / f"{net}-22", "--format", "onnx", "--opset", 22)
    times, load = {}, [round(os.getloadavg()[0], 1)]
    for batch, rounds in ROUNDS.items():
        part = {k: v[:batch] for k, v in data.items()}
        sessions = {k: session(f, 1) for k, f in files.items()}
        for s in sessions.values():
            s.run(None, part)
        taken, clock = {k: [] for k in files}, {k: [] for k in files}
        for _ in range(rounds):
            for k, s in sessions.items():
                begun, start = time.perf_counter(), time.thread_time()
                s.run(None, part)
                taken[k].append(1000 * (time.thread_time() - start))
                clock[k].append(1000 * (time.perf_counter() - begun))
        for k, t in taken.items():
            times.setdefault(k, {})[f"batch_{batch}"] = {
                "median": round(statistics.median(t), 1), "min": round(min(t), 1), "clock_min": round(min(clock[k]), 1)}
    load.append(round(os.getloadavg()[0], 1))
    write(f"latency-{net}", {"what": f"{net}.onnx in ONNX Runtime, 1 thread, in turn", "rounds": ROUNDS,
                             "note": "milliseconds that the thread had a core, medians and minima; least time of the clock beside them. " + (
                                 "The machine was not quiet." if max(load) > 3 else "The machine was quiet."), "load_before_and_after": load,
                             "milliseconds": times}, "scripts/onnx_evidence.py")


def constant(dense):
    """How far the mean of the dense outputs is from each: what a network that ignores its input would reach."""
    return apart(dense, np.broadcast_to(dense.mean(axis=0), dense.shape))


def controls(net, dense):
    write(f"constant-{net}", {"what": f"{net}.onnx: the mean of its outputs in place of each", **constant(dense)},
          "scripts/onnx_evidence.py")


def relief(height):
    """A height map as a picture: colour by height, shade by slope."""
    unit = np.clip((height + 1) / 2, 0, 1)
    metres = 0.1 * np.sinh(unit * np.arcsinh(22.16864013671875 / 0.1))
    metres -= metres.min()
    dy, dx = np.gradient(metres / 0.1)
    shade = np.clip((dx + dy + 1.2 * np.hypot(1, 1)) / np.sqrt(dx ** 2 + dy ** 2 + 1) / 2.4, 0.15, 1)
    stops = np.float32([[46, 94, 70], [124, 156, 84], [196, 178, 120], [150, 118, 92], [240, 240, 240]])
    at = np.clip(metres / max(metres.max(), 1e-6), 0, 1) * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    colour = stops[low] + (stops[low + 1] - stops[low]) * (at - low)[..., None]
    return (colour * shade[..., None]).astype(np.uint8)


def picture(data, dense):
    rows = (1, 4, 7)
    columns = [("dense", dense)]
    for name, title in (("l1-uniform", "l1, uniform"), ("l1-inside-30", "l1, inside"), ("l1-inside-10", "l1, inside, 10 %")):
        columns.append((title, outputs(WORK / f"terrain-{name}-{SEED}" / "model.onnx", data)))
    sheet = Image.new("RGB", (132 * len(columns) + 4, 132 * len(rows) + 20), "white")
    draw = ImageDraw.Draw(sheet)
    for c, (title, values) in enumerate(columns):
        draw.text((8 + 132 * c, 4), title, fill="black")
        for r, i in enumerate(rows):
            sheet.paste(Image.fromarray(relief(values[i, 0])), (4 + 132 * c, 20 + 132 * r))
    sheet.quantize(128).save(REPO / "docs/onnx-terrain.png", optimize=True)


def row(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def ms(times, batch):
    if times is None:
        return ""
    t = times[f"batch_{batch}"]
    return f"{t['median']:.0f} ({t['min']:.0f})"


def table(net):
    times = row(f"latency-{net}")["milliseconds"]
    lines = ["| | parameters | MACs | relative L2 | largest distance | ms, batch 1 | ms, batch 4 |", "|---|---|---|---|---|---|---|"]
    found = row(f"structure-{net}")
    lines.append(f"| original file | {found['parameters']:,} | {found['macs']['full'] / 1e9:.2f} G | 0 | 0 | "
                 f"{ms(times['original'], 1)} | {ms(times['original'], 4)} |")
    lines.append(f"| written again | {found['parameters']:,} | {found['macs']['full'] / 1e9:.2f} G | 0.0000 | 0.0000 | "
                 f"{ms(times['written again'], 1)} | {ms(times['written again'], 4)} |")
    for name, criterion, order, _ in variants(net):
        r = row(name)
        title = f"{TITLES[criterion]}, {order}" + (", `--round 8`" if r["round"] == 8 else "")
        title += ", 10 % only" if name.endswith("-10") else ""
        lines.append(f"| {title} | {r['parameters']:,} | {r['macs'] / 1e9:.2f} G | {r['relative_l2']:.4f} | {r['max_distance']:.3f} | "
                     f"{ms(times.get(name), 1)} | {ms(times.get(name), 4)} |")
    c = row(f"constant-{net}")
    lines.append(f"| the mean of the outputs | | | {c['relative_l2']:.4f} | {c['max_distance']:.3f} | | |")
    return lines


def tables():
    page = REPO / "docs/onnx.md"
    text = page.read_text()
    for net in NETS:
        start, end = f"<!-- {net} -->\n", f"<!-- end of {net} -->"
        if start in text and end in text:
            head, rest = text.split(start, 1)
            text = head + start + "\n".join(table(net)) + "\n" + end + rest.split(end, 1)[1]
    page.write_text(text)


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    for net in NETS:
        data = inputs(net)
        dense = outputs(MODELS / f"{net}.onnx", data)
        if not have(f"structure-{net}"):
            structure(net)
        for opset in (17, 22):
            if not have(f"roundtrip-{net}-{opset}"):
                roundtrip(net, opset, data)
        if not have(f"constant-{net}"):
            controls(net, dense)
        for name, criterion, order, flags in variants(net):
            if not have(name):
                cut(net, name, criterion, order, flags, data, dense)
    for net in NETS:
        latency(net, inputs(net))
    data = inputs("terrain")
    picture(data, outputs(MODELS / "terrain.onnx", data))
    tables()


main()
