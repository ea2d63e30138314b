"""Tokenizer goldens of SmolLM2 beside those of llama.cpp in tokenizer/: control characters, odd spaces and chats.

Usage: make_tokenizer_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf   (an environment with transformers 5 and gguf)
Writes into tokenizer/
  smollm2.controls.json  [{text, ids}], ids by the `tokenizers` library, special tokens in the text recognised
  smollm2.chats.json     [{messages, add_generation_prompt, text, ids}], rendered by transformers
and fails unless `tokenizers` gives the ids of smollm2.ids.json (by llama.cpp) for each line of lines.json.
transformers' own reading of the GGUF is compared too, but only reported: it leaves out the split of single digits
that the `smollm` pre-tokenizer makes, so a run of spaces before a digit gets other ids there."""

import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../../scripts"))

from reference_llama import load_tokenizer  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

CHATS = [
    [{"role": "user", "content": "What is 17 x 23?"}],
    [
        {"role": "system", "content": "You prune trees.\nBe brief."},
        {"role": "user", "content": "When do I cut an apple tree?  🌳"},
        {"role": "assistant", "content": "In late winter, before the buds open."},
        {"role": "user", "content": "And a cherry? <b>Why</b> & \"how\"?"},
    ],
    [
        {"role": "user", "content": "  two leading spaces, a trailing newline\n"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "<|im_end|> inside, então 12 ½ 東京"},
    ],
]


def control_lines():
    rng = random.Random(77)
    controls = [chr(code) for code in (*range(0x00, 0x20), 0x7F, 0x80, 0x85, 0x9F, 0xAD)]
    odd = list("\u00a0\u1680\u2000\u2003\u2007\u200b\u200d\u2028\u2029\u202e\u205f\u2060\u3000\ufeff\ufffd")
    beyond = ["\U0001f469\u200d\U0001f4bb", "\U00020000", "\U0010ffff", "e\u0301\u0323", "\u1100\u1161", "\u0e33"]
    words = ["tree", " root", "'s", "'LL", "x_1", "10", " 7", "007", "  9", "\t3", "if", "::", "\u2167", "\u00b2", "\u0663"]
    lines = [before + control + after for control in controls + odd for before, after in (("a", "b"), (" ", " 5"))]
    while len(lines) < 240:
        pool = rng.choice([controls, odd, beyond, words])
        lines.append("".join(rng.choice(rng.choice([pool, words, [" ", "  ", "\n"]])) for _ in range(rng.randrange(2, 14))))
    return lines


def write_rows(name, rows):
    with open(os.path.join(HERE, "tokenizer", name), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]\n")


def main():
    path = os.path.abspath(sys.argv[1])
    tokenizer = load_tokenizer(path)
    own = AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path))

    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    with open(os.path.join(HERE, "tokenizer/lines.json"), encoding="utf-8") as file:
        lines = json.load(file)
    with open(os.path.join(HERE, "tokenizer/smollm2.ids.json"), encoding="utf-8") as file:
        by_llama_cpp = json.load(file)
    differing = [index for index, line in enumerate(lines) if ids(line) != by_llama_cpp[index]]
    by_transformers = [index for index, line in enumerate(lines) if own(line, add_special_tokens=False)["input_ids"] != by_llama_cpp[index]]
    print(f"of {len(lines)} lines, {len(differing)} differ between tokenizers and llama.cpp, "
          f"{len(by_transformers)} between transformers' reading of the GGUF and llama.cpp")
    for index in differing[:10]:
        print(repr(lines[index]), ids(lines[index]), by_llama_cpp[index])

    write_rows("smollm2.controls.json", [{"text": line, "ids": ids(line)} for line in control_lines()])
    renderer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=own.chat_template)
    chats = []
    for messages in CHATS:
        for prompt in (False, True):
            text = renderer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            chats.append({"messages": messages, "add_generation_prompt": prompt, "text": text, "ids": ids(text)})
    write_rows("smollm2.chats.json", chats)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
