#!/usr/bin/env python3
"""What stock tools make of a LoRA training: peft on BASE with ADAPTER against transformers on MERGED, and the event file in RUN.

check_lora.py BASE ADAPTER MERGED [RUN]     directories of `pomona finetune BASE --lora-rank R --adapter-out ADAPTER -o MERGED --dtype f32`
"""
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, merged = sys.argv[1:4]
ids = torch.randint(0, 200, (2, 24), generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    before = plain(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(plain, adapter).eval()
    theirs = adapted(input_ids=ids).logits
    ours = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()(input_ids=ids).logits
change = (theirs - before).abs().max().item()
gap = (theirs - ours).abs().max().item() / max(1.0, theirs.abs().max().item())
print(f"the adapter changes logits by {change:.3f} at most; peft and the merged model differ by {gap:.1e} of their scale")
ok = change > 1e-2 and gap < 1e-4
if len(sys.argv) > 4:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(sys.argv[4])
    events.Reload()
    scalars = events.Scalars("loss/sum")
    lines = Path(sys.argv[4], "log.jsonl").read_text().splitlines()
    print(f"TensorBoard reads {len(scalars)} steps of {events.Tags()['scalars']}; the log has {len(lines)}")
    ok = ok and [s.step for s in scalars] == list(range(1, len(lines) + 1))
sys.exit(0 if ok else 1)
