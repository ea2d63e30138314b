"""SNP: its scores of DeiT-B beside a plain PyTorch implementation of the same formulas, and each kind of cut on a trained ViT-S/14.

    python scripts/snp_evidence.py POMONA DATA MODELS WORK [REPO]

POMONA is the built program, DATA holds facades/, MODELS holds focus.onnx (`scripts/fetch-onnx-nets.sh`). One JSON a row goes to
docs/results/snp; a row that is there is not measured again. The table of docs/snp.md between `<!-- kinds -->` and
`<!-- end of kinds -->` is made from the rows. Needs numpy, torch, timm, onnxruntime, safetensors, Pillow.

DeiT-B: weights are seeded (`pomona init`). The peer (this file with `--peer`) runs timm's network and takes thin QR and a small SVD of each
head's queries and keys in f64, as Pomona does. Runs are interleaved; seconds are whole commands, loading included; memory is the
peak of the resident set, mapped files included.

ViT-S/14: 16 photos of the training part calibrate, 20 of the validation part measure, in ONNX Runtime. No retraining.
"""
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

ARCHITECTURE, PICTURES, BATCH, ROUNDS, SEED, THREADS = "deit_base_patch16_224", 32, 7, 3, 1234, 2
# The shares of each kind that are cut, in per cent. A third of six heads.
KINDS = {"qk": (25, 50), "v": (25,), "ffn": (25,), "stream": (25,), "heads": (33,)}
CRITERIA, SEEDS = ("snp", "reverse", "l1", "random"), (1, 2, 3)


def peer(weights, data, out):
    """Scores of every group by name, as Pomona names them: `gamma` is every component above 1 % of the largest."""
    import timm
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(THREADS)
    model = timm.create_model(ARCHITECTURE).eval()
    model.load_state_dict(load_file(weights))
    pictures = load_file(data)["pixel_values"]
    heads = model.blocks[0].attn.num_heads
    sums = [0.0] * len(model.blocks)

    def hook(block):
        def seen(_module, _input, joint):
            b, n, width = joint.shape
            q, k, _ = joint.double().reshape(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
            sums[block] = sums[block] + worth(q, k).sum(0).flatten()
        return seen

    def worth(q, k):
        r, p = torch.linalg.qr(q, mode="r").R, torch.linalg.qr(k, mode="r").R
        u, s, vt = torch.linalg.svd(r @ p.transpose(-1, -2), full_matrices=False)
        leads = (s > 0.01 * s[..., :1]).double().unsqueeze(-1)
        along = ((u.transpose(-1, -2) @ r) * (vt @ p)).abs() * leads
        return along.sum(-2) / (q.norm(dim=-2) * k.norm(dim=-2))

    for i, block in enumerate(model.blocks):
        block.attn.qkv.register_forward_hook(hook(i))
    with torch.no_grad():
        for start in range(0, len(pictures), BATCH):
            model(pictures[start:start + BATCH])

    def redundancy(rows):
        unit = torch.nn.functional.normalize(rows.flatten(1), dim=1)
        return (1 - (unit @ unit.T).abs()).double().sum(1)

    found, w = {}, dict(model.named_parameters())
    with torch.no_grad():
        for i in range(len(model.blocks)):
            joint = w[f"blocks.{i}.attn.qkv.weight"]
            width = joint.shape[1]
            found[f"blocks.{i}.attn.qkv.weight:0"] = sums[i] / len(pictures)
            found[f"blocks.{i}.attn.qkv.weight:0@{2 * width}"] = redundancy(joint[2 * width:])
            found[f"blocks.{i}.mlp.fc1.weight:0"] = redundancy(w[f"blocks.{i}.mlp.fc1.weight"])
        layers = ["patch_embed.proj"] + [f"blocks.{i}.{m}" for i in range(len(model.blocks)) for m in ("attn.proj", "mlp.fc2")]
        shares = [(r / r.sum()) for r in (redundancy(w[f"{m}.weight"]) for m in layers)]
        found["stream"] = torch.stack(shares).mean(0)
    Path(out).write_text(json.dumps({k: v.tolist() for k, v in found.items()}))


def timed(command):
    """Seconds, seconds of the processor, and the peak of the resident set in bytes."""
    began = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, os.environ | {"RAYON_NUM_THREADS": str(THREADS)}, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command}: {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def pomona(*args):
    done = subprocess.run([POMONA, "--quiet", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pomona {' '.join(map(str, args))}: {done.stderr}")


def photo(path, half):
    """As the networks' own packages prepare them: the whole, or the photo of a pair with black around."""
    from PIL import Image

    image, square = Image.open(path).convert("RGB"), np.zeros((224, 224, 3), np.float32)
    if half:
        image = image.crop((0, 0, image.width // 2, image.height))
    scale = 224 / max(image.size) if half else None
    size = (round(image.width * scale), round(image.height * scale)) if half else (224, 224)
    image = image.resize(size, Image.Resampling.BOX if half else Image.Resampling.BICUBIC)
    top, left = (224 - image.height) // 2, (224 - image.width) // 2
    square[top:top + image.height, left:left + image.width] = np.asarray(image, np.float32) / 255
    return ((square - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])).transpose(2, 0, 1)


def photos(part, count, half):
    files = sorted((DATA / "facades/facades" / part).glob("*.jpg"), key=lambda p: int(p.stem))[:count]
    return np.stack([photo(p, half) for p in files])


def write(name, row, command):
    row |= {"command": command, "seed": SEED, "machine": f"{platform.machine()}, 2 cores", "date": datetime.date.today().isoformat()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(name, {k: v for k, v in row.items() if not isinstance(v, (dict, list))}, flush=True)


def have(name):
    return (RESULTS / f"{name}.json").exists()


def compare(ours, theirs):
    """Largest difference as a share of the group's largest score; how many groups have the same order of channels."""
    worst, same, groups = 0.0, 0, 0
    for group in ours["groups"]:
        own = np.array(group["scores"])
        other = np.array(theirs.get(group["name"], theirs["stream"]))
        own, other = own / own.sum(), other / other.sum()
        worst = max(worst, float(np.abs(own - other).max() / np.abs(other).max()))
        half = len(own) // 2
        same += set(np.argsort(own)[:half]) == set(np.argsort(other)[:half])
        groups += 1
    return worst, same, groups


def race():
    from safetensors.numpy import save_file

    config, model, pictures = WORK / "config", WORK / "deit-base", WORK / "pictures.safetensors"
    config.mkdir(parents=True, exist_ok=True)
    (config / "config.json").write_text(json.dumps({"architecture": ARCHITECTURE}))
    if not model.exists():
        pomona("init", config / "config.json", "--seed", SEED, "--dtype", "f32", "-o", model)
    save_file({"pixel_values": photos("train", PICTURES, False)}, pictures)
    scores, other = WORK / "scores.json", WORK / "peer.json"
    ours = [POMONA, "-q", "score", model, "--method", "snp", "--data", pictures, "--samples", PICTURES, "-o", scores]
    theirs = [sys.executable, Path(__file__).resolve(), "--peer", model / "model.safetensors", pictures, other]
    runs = {"pomona": [str(c) for c in ours], "torch": [str(c) for c in theirs]}
    found = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, command in runs.items():
            scores.unlink(missing_ok=True)
            found[name].append(timed(command))
            print(name, found[name][-1], flush=True)
            if name == "pomona":
                own = json.loads(scores.read_text())
    worst, same, groups = compare(own, json.loads(other.read_text()))
    row = {"what": f"SNP's scores of {ARCHITECTURE} (seeded weights) on {PICTURES} pictures, whole commands", "rounds": ROUNDS}
    for name, runs in found.items():
        seconds, processor, peak = zip(*runs)
        row |= {f"{name}_seconds": [round(s, 2) for s in seconds], f"{name}_median": round(statistics.median(seconds), 2),
                f"{name}_processor_median": round(statistics.median(processor), 2), f"{name}_peak_rss_bytes": max(peak)}
    row |= {"ratio": round(row["pomona_median"] / row["torch_median"], 3),
            "ratio_processor": round(row["pomona_processor_median"] / row["torch_processor_median"], 3),
            "largest_difference_of_scores": worst, "groups": groups, "groups_with_the_same_lower_half": same,
            "load_average": round(os.getloadavg()[0], 1)}
    write("score-deit-base", row, "python scripts/snp_evidence.py POMONA DATA MODELS WORK")


def outputs(path, pictures):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    s = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = s.get_inputs()[0].name
    return np.concatenate([s.run(None, {name: pictures[i:i + 4]})[0] for i in range(0, len(pictures), 4)])


def kinds():
    """One kind of group at a time: the distance of the output to the dense one's."""
    from safetensors.numpy import save_file

    model, calibration = MODELS / "focus.onnx", WORK / "calibration.safetensors"
    wanted = [(kind, share, c) for kind, shares in KINDS.items() for share in shares for c in CRITERIA if (kind, c) != ("heads", "l1")]
    if all(have(f"focus-{kind}-{share}-{c}") for kind, share, c in wanted):
        return
    WORK.mkdir(parents=True, exist_ok=True)
    save_file({"input_image": photos("train", 16, True)}, calibration)
    pictures = photos("val", 20, True)
    dense = outputs(model, pictures)
    for kind, share, criterion in wanted:
        name, method = f"focus-{kind}-{share}-{criterion}", "heads" if kind == "heads" else "snp"
        if have(name):
            continue
        rows = []
        for seed in SEEDS if criterion == "random" else (SEED,):
            scores, plan, out = WORK / f"{method}-{criterion}-{seed}.json", WORK / f"{name}.plan.json", WORK / name
            if not scores.exists():
                data = ["--data", calibration] if criterion in ("snp", "reverse") else []
                pomona("score", model, "--method", method, "--criterion", criterion, *data, "--seed", seed, "-o", scores)
            pomona("plan", model, "--method", method, "--scores", scores, "--ratio", f"{kind}={share}%", "-o", plan, "--force")
            shutil.rmtree(out, ignore_errors=True)
            pomona("apply", model, "--plan", plan, "-o", out)
            got, after = outputs(out / "model.onnx", pictures), json.loads(plan.read_text())["after"]
            shutil.rmtree(out)
            alike = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(dense, got)]
            rows.append({"seed": seed, "parameters": after["parameters"], "macs": after["macs"], "correlation": round(statistics.mean(alike), 4),
                         "relative_l2": round(float(np.linalg.norm(got - dense) / np.linalg.norm(dense)), 4)})
        row = {"what": f"focus.onnx without {share} % of its {kind}, no retraining", "criterion": criterion, "samples": len(pictures)}
        row |= {k: round(statistics.mean(r[k] for r in rows), 4) for k in rows[0] if k != "seed"} | {"runs": rows}
        write(name, row, f"pomona score focus.onnx --method {method} --criterion {criterion} --data calibration.safetensors -o scores.json && "
              f"pomona plan focus.onnx --method {method} --scores scores.json --ratio {kind}={share}% -o plan.json && "
              "pomona apply focus.onnx --plan plan.json -o OUT")


def table():
    lines = ["| what goes | MACs | SNP | `reverse` | `l1` | `random`, mean of 3 |", "|---|---|---|---|---|---|"]
    for kind, shares in KINDS.items():
        for share in shares:
            cells = []
            for criterion in CRITERIA:
                path = RESULTS / f"focus-{kind}-{share}-{criterion}.json"
                row = json.loads(path.read_text()) if path.exists() else None
                cells.append(f"{row['relative_l2']:.3f} ({row['correlation']:.3f})" if row else "-")
                macs = row["macs"] if row else macs
            lines.append(f"| {share} % of `{kind}` | {100 * macs / 7601005568:.1f} % | {' | '.join(cells)} |")
    page = REPO / "docs/snp.md"
    text = page.read_text()
    begin, end = "<!-- kinds -->\n", "<!-- end of kinds -->"
    head, rest = text.split(begin)
    page.write_text(head + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])


if sys.argv[1:2] == ["--peer"]:
    peer(*sys.argv[2:5])
else:
    POMONA, DATA, MODELS, WORK = (Path(a).resolve() for a in sys.argv[1:5])
    REPO = Path(sys.argv[5] if len(sys.argv) > 5 else ".").resolve()
    RESULTS = REPO / "docs/results/snp"
    kinds()
    table()
    if not have("score-deit-base"):
        race()
