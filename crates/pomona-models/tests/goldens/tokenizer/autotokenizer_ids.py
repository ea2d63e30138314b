"""Prints what stock transformers makes of a directory: ids of each line of a JSON list, and a chat.

    python autotokenizer_ids.py DIRECTORY lines.json
"""

import json
import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
lines = json.load(open(sys.argv[2], encoding="utf-8"))
ids = [tokenizer.encode(line) for line in lines]
chat = [{"role": "user", "content": "2 + 2? 😀"}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "  Why?\n"}]
text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
decoded = [tokenizer.decode(line, skip_special_tokens=True) for line in ids]
print(json.dumps({"ids": ids, "decoded": decoded, "chat": text, "special": special, "max": tokenizer.model_max_length}))
