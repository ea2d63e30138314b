"""Windows of token ids for the reference scripts, from a text file whose first half calibrates and second evaluates.

Usage: make_reference_tokens.py --gguf MODEL.gguf --text valid.txt --out tokens.json [--seed 1234]
Lines 1-1880 give 10 random windows of 128 tokens, without overlap; the rest gives its first 24 windows of 512."""

import argparse
import json
import random

from reference_llama import load_tokenizer

CALIBRATION_LINES = 1880


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1234)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.gguf)
    with open(args.text, encoding="utf-8", newline="") as file:
        lines = file.readlines()
    first, second = ("".join(half) for half in (lines[:CALIBRATION_LINES], lines[CALIBRATION_LINES:]))
    ids = tokenizer.encode(first, add_special_tokens=False).ids
    starts = random.Random(args.seed).sample(range(len(ids) // 128), 10)
    windows = {"calibration": [ids[start * 128 : start * 128 + 128] for start in starts]}
    ids = tokenizer.encode(second, add_special_tokens=False).ids
    windows["evaluation"] = [ids[start : start + 512] for start in range(0, 24 * 512, 512)]
    with open(args.out, "w") as file:
        json.dump(windows, file)


if __name__ == "__main__":
    main()
