"""SNP's scores of DeiT-B, beside a plain PyTorch implementation of the same formulas: seconds, memory, and the scores themselves.

    python scripts/snp_evidence.py POMONA DATA WORK [REPO]

POMONA is the built program, DATA holds facades/. Weights are seeded (`pomona init`), pictures are 64 photos of the training part.
Writes docs/results/snp/score-deit-base.json. The peer (this file with `--peer`) runs timm's network and takes thin QR and a small
SVD of each head's queries and keys in f64, as Pomona does; `--naive` forms the N x N logits, as the formula is written. Runs
are interleaved (the naive one once); seconds are whole commands, memory is the peak of the resident set. Needs torch, timm, safetensors, Pillow.
"""
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ARCHITECTURE, PICTURES, BATCH, ROUNDS, SEED, THREADS = "deit_base_patch16_224", 64, 8, 3, 1234, 2


def peer(weights, data, out, naive):
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
            sums[block] = sums[block] + (worth_naive if naive else worth)(q, k).sum(0).flatten()
        return seen

    def led(s):
        return (s > 0.01 * s[..., :1]).double().unsqueeze(-1)

    def worth(q, k):
        r, p = torch.linalg.qr(q, mode="r").R, torch.linalg.qr(k, mode="r").R
        u, s, vt = torch.linalg.svd(r @ p.transpose(-1, -2), full_matrices=False)
        along = ((u.transpose(-1, -2) @ r) * (vt @ p)).abs() * led(s)
        return along.sum(-2) / (q.norm(dim=-2) * k.norm(dim=-2))

    def worth_naive(q, k):
        u, s, vt = torch.linalg.svd(q @ k.transpose(-1, -2), full_matrices=False)
        along = ((u.transpose(-1, -2) @ q) * (vt @ k)).abs() * led(s)
        # What is beyond the rank is rounding.
        along = along[..., : q.shape[-1], :]
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
    """Seconds, and the peak of the resident set in bytes."""
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ | {"RAYON_NUM_THREADS": str(THREADS)})
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command}: {status}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def photo(path):
    from PIL import Image

    image = np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    return ((image - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])).transpose(2, 0, 1)


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


def main():
    pomona, data, work = (Path(a).resolve() for a in sys.argv[1:4])
    repo = Path(sys.argv[4] if len(sys.argv) > 4 else ".").resolve()
    from safetensors.numpy import save_file

    work.mkdir(parents=True, exist_ok=True)
    (work / "config").mkdir(exist_ok=True)
    (work / "config/config.json").write_text(json.dumps({"architecture": ARCHITECTURE}))
    model, pictures = work / "deit-base", work / "pictures.safetensors"
    if not model.exists():
        subprocess.run([pomona, "-q", "init", work / "config/config.json", "--seed", str(SEED), "--dtype", "f32", "-o", model], check=True)
    photos = sorted((data / "facades/facades/train").glob("*.jpg"), key=lambda p: int(p.stem))[:PICTURES]
    save_file({"pixel_values": np.stack([photo(p) for p in photos])}, pictures)
    scores, other = work / "scores.json", work / "peer.json"
    ours = [pomona, "-q", "score", model, "--method", "snp", "--data", pictures, "--samples", PICTURES, "-o", scores]
    theirs = [sys.executable, Path(__file__).resolve(), "--peer", model / "model.safetensors", pictures, other]
    runs = {"pomona": ours, "torch": theirs, "torch_naive": [*theirs, "--naive"]}
    runs = {name: [str(c) for c in command] for name, command in runs.items()}
    found = {name: [] for name in runs}
    for turn in range(ROUNDS):
        for name, command in runs.items():
            # Minutes: once is enough.
            if turn and name == "torch_naive":
                continue
            scores.unlink(missing_ok=True)
            found[name].append(timed(command))
            print(name, found[name][-1], flush=True)
            if name == "torch":
                plain = json.loads(other.read_text())
            if name == "pomona":
                own = json.loads(scores.read_text())
    worst, same, groups = compare(own, plain)
    median = {n: statistics.median(s for s, _ in r) for n, r in found.items()}
    peak = {n: max(m for _, m in r) for n, r in found.items()}
    row = {"what": f"SNP's scores of {ARCHITECTURE} (seeded weights) on {PICTURES} pictures, whole commands", "rounds": ROUNDS}
    for name in runs:
        row |= {f"{name}_seconds": [round(s, 2) for s, _ in found[name]], f"{name}_median": round(median[name], 2),
                f"{name}_peak_rss_bytes": peak[name]}
    row |= {"ratio": round(median["pomona"] / median["torch"], 3), "ratio_naive": round(median["pomona"] / median["torch_naive"], 3),
            "largest_difference_of_scores": worst, "groups": groups, "groups_with_the_same_lower_half": same,
            "load_average": os.getloadavg()[0], "command": "python scripts/snp_evidence.py POMONA DATA WORK", "seed": SEED,
            "machine": f"{platform.machine()}, {THREADS} cores", "date": datetime.date.today().isoformat()}
    results = repo / "docs/results/snp"
    results.mkdir(parents=True, exist_ok=True)
    (results / "score-deit-base.json").write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if sys.argv[1:2] == ["--peer"]:
    peer(*sys.argv[2:5], naive="--naive" in sys.argv)
else:
    main()
