"""The PyTorch side of the race `pomona-bench score-blocks`: leave-one-out perplexity of every block by whole passes.

Usage: score_blocks_torch.py --gguf MODEL.gguf --tokens tokens.json [--threads 2] [--repeats 1]
Prints one JSON document: scores (perplexity without block n), seconds (median over repeats), peak RSS in MB.
Runs in an environment with torch, transformers and gguf."""

import argparse
import json
import statistics
import time

import torch
from reference_llama import load_model, load_tokens, peak_rss_mb, perplexity, sublayers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    model = load_model(args.gguf)
    calibration, _ = load_tokens(args.tokens)
    load_seconds = time.perf_counter() - started
    parts = sublayers(model)
    dense = perplexity(model, calibration, parts, len(calibration))
    seconds = []
    for _ in range(args.repeats):
        started = time.perf_counter()
        scores = [
            perplexity(model, calibration, [part for part in parts if part[0] != block], len(calibration))
            for block in range(len(model.model.layers))
        ]
        seconds.append(time.perf_counter() - started)
    order = sorted(range(len(scores)), key=lambda block: scores[block])
    print(json.dumps({
        "tool": f"torch {torch.__version__}",
        "threads": args.threads,
        "windows": list(calibration.shape),
        "seconds": statistics.median(seconds),
        "seconds_all": seconds,
        "load_seconds": load_seconds,
        "peak_rss_mb": peak_rss_mb(),
        "dense": dense,
        "scores": scores,
        "order": order,
    }))


if __name__ == "__main__":
    main()
