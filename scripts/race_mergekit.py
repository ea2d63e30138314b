"""Removes blocks from a Hugging Face directory with mergekit (passthrough slices): the peer of
`pomona-bench depth-apply`.

Usage: race_mergekit.py --mergekit VENV --model DIR --remove 24,25,26 --out OUT [--keep]
VENV: a Python environment with mergekit. OUT must not exist; it is deleted after the measurement unless --keep.
Prints one JSON document: seconds (until mergekit ends), synced_seconds (until the bytes are on disk too), peak_rss_mb
(mapped files counted), peak_anonymous_mb (sampled ten times a second), written_bytes."""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time


def slices(blocks, removed):
    """Half-open ranges of the blocks that stay."""
    ranges, start = [], None
    for block in range(blocks + 1):
        stays = block < blocks and block not in removed
        if stays and start is None:
            start = block
        elif not stays and start is not None:
            ranges.append((start, block))
            start = None
    return ranges


def configuration(model, ranges, dtype):
    lines = ["slices:"]
    for first, last in ranges:
        lines += ["  - sources:", f"      - model: {json.dumps(os.path.abspath(model))}", f"        layer_range: [{first}, {last}]"]
    return "\n".join([*lines, "merge_method: passthrough", f"dtype: {dtype}", ""])


def watch_anonymous(pid, stop, peak):
    while not stop.wait(0.1):
        try:
            with open(f"/proc/{pid}/status") as file:
                for line in file:
                    if line.startswith("RssAnon:"):
                        peak[0] = max(peak[0], int(line.split()[1]) / 1024)
        except OSError:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--remove", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    if os.path.exists(args.out):
        sys.exit(f"{args.out} exists already: name another --out")
    with open(os.path.join(args.model, "config.json")) as file:
        config = json.load(file)
    removed = {int(block) for block in args.remove.split(",")}
    blocks = config["num_hidden_layers"]
    if not all(0 <= block < blocks for block in removed):
        sys.exit(f"--remove {args.remove}: the model has blocks 0 to {blocks - 1}")
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as plan:
        plan.write(configuration(args.model, slices(blocks, removed), dtype))
        plan.flush()
        command = [os.path.join(args.mergekit, "bin/python"), "-m", "mergekit.scripts.run_yaml", plan.name, args.out,
                   "--lazy-unpickle", "--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
        environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
        stop, peak = threading.Event(), [0.0]
        watcher = threading.Thread(target=watch_anonymous, args=(process.pid, stop, peak))
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        stop.set()
        watcher.join()
    if code != 0:
        sys.exit(f"mergekit ended with code {code}")
    subprocess.run(["sync", "-f", args.out], check=True)
    synced = time.perf_counter() - started
    with open(os.path.join(args.out, "config.json")) as file:
        depth = json.load(file)["num_hidden_layers"]
    written = sum(os.path.getsize(os.path.join(args.out, name)) for name in os.listdir(args.out))
    if not args.keep:
        shutil.rmtree(args.out)
    if depth != blocks - len(removed):
        sys.exit(f"mergekit left {depth} blocks, expected {blocks - len(removed)}")
    print(json.dumps({
        "tool": "mergekit", "seconds": seconds, "synced_seconds": synced, "blocks": depth, "written_bytes": written,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "peak_anonymous_mb": peak[0],
    }))


if __name__ == "__main__":
    main()
