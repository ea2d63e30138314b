"""Ids by transformers' CLIPTokenizer.

Usage: make_clip_tokenizer_goldens.py bpe_simple_vocab_16e6.txt.gz    (an environment with transformers 5)
Writes into tokenizer/
  clip.hashes.json         FNV-1a of the ids of each line of lines.json as compact JSON, CLIP's own vocabulary
  clip_tiny/merges.txt     the first 400 of CLIP's merges (MIT licence, OpenAI), enough to run without it
  clip_tiny/ids.json       ids of every tenth line with these
The full test wants POMONA_CLIP, a directory with that file unpacked as merges.txt."""

import gzip
import json
import pathlib
import sys

from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__).parent / "tokenizer"


def byte_characters():
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(others))]


def tokenizer(pairs):
    single = byte_characters()
    tokens = single + [c + "</w>" for c in single] + ["".join(p) for p in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs)


def fnv1a(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def main():
    lines = json.loads((HERE / "lines.json").read_text())
    merges = gzip.open(sys.argv[1]).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    pairs = [tuple(m.split()) for m in merges]
    full = tokenizer(pairs)
    ids = [full(line)["input_ids"] for line in lines]
    (HERE / "clip.hashes.json").write_text(json.dumps([fnv1a(json.dumps(r, separators=(",", ":"))) for r in ids]) + "\n")
    tiny = HERE / "clip_tiny"
    tiny.mkdir(exist_ok=True)
    (tiny / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(p) for p in pairs[:400]) + "\n")
    small = tokenizer(pairs[:400])
    rows = [{"ids": small(line)["input_ids"], "text": small.decode(small(line)["input_ids"], skip_special_tokens=True)}
            for line in lines[::10]]
    (tiny / "ids.json").write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
