#!/usr/bin/env python3
"""The same training by PyTorch and peft: train_torch.py MODEL TEXT.. [--lora] [--steps N | --minutes M] [--out DIR] [--threads N]

Windows of 256 tokens in batches of 4, AdamW at 1e-4 (LoRA: rank 8, alpha 16, all seven projections, 1e-3), clipping at 1. With --minutes the rate rises over the first twentieth of the time and falls along a cosine, as
Pomona's does; with --out the model, adapters merged, is saved. Prints JSON.
"""
import argparse
import json
import math
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
parser.add_argument("--minutes", type=float)
parser.add_argument("--out", type=Path)
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
rate = 1e-3 if args.lora else 1e-4
rule = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
text = "\n".join(t.read_text()[:400_000] for t in args.text)
ids = torch.tensor(AutoTokenizer.from_pretrained(args.model)(text)["input_ids"])
windows = ids[: ids.numel() // 257 * 257].view(-1, 257)
windows = windows[torch.randperm(len(windows))]
times, work, losses = [], [], []
step = 0
while sum(times) < 60 * args.minutes if args.minutes else step < args.steps:
    began, spent = time.perf_counter(), time.process_time()
    if args.minutes:
        along = sum(times) / (60 * args.minutes)
        rule.param_groups[0]["lr"] = rate * (max(along, 0.005) / 0.05 if along < 0.05 else 0.5 + 0.5 * math.cos(math.pi * (along - 0.05) / 0.95))
    some = windows[torch.arange(4 * step, 4 * step + 4) % len(windows)]
    step += 1
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
if args.out:
    done = model.merge_and_unload() if args.lora else model
    done.save_pretrained(args.out)
    AutoTokenizer.from_pretrained(args.model).save_pretrained(args.out)
few = max(1, len(losses) // 10)
print(json.dumps({"steps": len(losses), "tokens": 1024 * len(losses), "loss_first": sum(losses[:few]) / few, "loss_last": sum(losses[-few:]) / few,
                  "trained_parameters": sum(p.numel() for p in weights), "tokens_per_second": 1024 / middle, "seconds": sum(times) if args.minutes else times, "cpu_seconds": work,
                  "losses": losses, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
