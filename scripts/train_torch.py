#!/usr/bin/env python3
"""The same training by PyTorch and peft, for speed and memory: train_torch.py MODEL TEXT.. [--lora] [--steps N] [--threads N]

Windows of 256 tokens in batches of 4, AdamW at 1e-4 (LoRA: rank 8, alpha 16, all seven projections, 1e-3), clipping at 1. Prints JSON.
"""
import argparse
import json
import resource
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("text", nargs="+", type=Path)
parser.add_argument("--lora", action="store_true")
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).train()
model.config.use_cache = False
if args.lora:
    from peft import LoraConfig, get_peft_model

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=names, task_type="CAUSAL_LM"))
weights = [p for p in model.parameters() if p.requires_grad]
rule = torch.optim.AdamW(weights, lr=1e-3 if args.lora else 1e-4, weight_decay=0.0)
text = "\n".join(t.read_text()[:400_000] for t in args.text)
ids = torch.tensor(AutoTokenizer.from_pretrained(args.model)(text)["input_ids"])
windows = ids[: ids.numel() // 257 * 257].view(-1, 257)
windows = windows[torch.randperm(len(windows))]
times, work, losses = [], [], []
for step in range(args.steps):
    began, spent = time.perf_counter(), time.process_time()
    some = windows[4 * step: 4 * step + 4]
    logits = model(input_ids=some[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten())
    rule.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    rule.step()
    times.append(time.perf_counter() - began)
    work.append(time.process_time() - spent)
    losses.append(loss.item())
middle = sorted(times[1:])[len(times[1:]) // 2]
print(json.dumps({"trained_parameters": sum(p.numel() for p in weights), "tokens_per_second": 1024 / middle, "seconds": times, "cpu_seconds": work,
                  "losses": losses, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
