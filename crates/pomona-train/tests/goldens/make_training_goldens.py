"""Five steps of training as PyTorch makes them, on a Llama of seeded weights: losses, norms and weights after the last.

python make_training_goldens.py    (torch, transformers, safetensors) writes training.safetensors and training.json beside itself.
"""
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
STEPS, BATCH, ACCUMULATE, LENGTH, WARMUP = 5, 2, 2, 12, 2
RATE, DECAY, CLIP, FLOOR = 3e-3, 0.1, 0.5, 0.1
CONFIG = dict(vocab_size=61, hidden_size=16, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0,
              tie_word_embeddings=True, initializer_range=0.2)
torch.manual_seed(7)
torch.set_num_threads(1)


def model(seed, **more):
    torch.manual_seed(seed)
    made = LlamaForCausalLM(LlamaConfig(**{**CONFIG, **more}, attn_implementation="eager"))
    for name, p in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(p, 0.8, 1.2)
    return made.train()


def schedule(kind, step):
    if step < WARMUP:
        return (step + 1) / WARMUP
    along = (step - WARMUP) / (STEPS - WARMUP)
    left = {"constant": 1, "linear": 1 - along, "cosine": 0.5 * (1 + math.cos(math.pi * along))}[kind]
    return FLOOR + (1 - FLOOR) * left


def groups(net):
    decays = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() <= 1]
    return [{"params": decays, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]


def terms(case, student, teacher, ids, targets):
    out = student(input_ids=ids, output_hidden_states=True)
    found = {}
    if "cross-entropy" in case["weights"]:
        found["cross-entropy"] = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    if teacher is not None:
        with torch.no_grad():
            seen = teacher(input_ids=ids, output_hidden_states=True)
        t = case.get("temperature", 1.0)
        if "kl" in case["weights"]:
            p, q = F.log_softmax(seen.logits / t, -1), F.log_softmax(out.logits / t, -1)
            found["kl"] = F.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean() * t * t
        if "output-mse" in case["weights"]:
            found["output-mse"] = F.mse_loss(out.logits, seen.logits)
        if "features" in case["weights"]:
            # Outputs of the first two blocks: hidden_states[0] is the embedding.
            found["features"] = sum(F.mse_loss(out.hidden_states[i], seen.hidden_states[i]) for i in (1, 2))
    return found


def run(case, windows):
    student, teacher = model(1), model(2).eval() if case["teacher"] else None
    start = {k: v.clone() for k, v in student.state_dict().items()}
    if case["optimizer"] == "adamw":
        rule = torch.optim.AdamW(groups(student), lr=RATE, betas=(0.9, 0.95), eps=1e-8)
    else:
        rule = torch.optim.SGD(groups(student), lr=RATE, momentum=0.9)
    rows = []
    for step in range(STEPS):
        rate = RATE * schedule(case["schedule"], step)
        for g in rule.param_groups:
            g["lr"] = rate
        rule.zero_grad()
        sums = {}
        for micro in range(ACCUMULATE):
            at = (step * ACCUMULATE + micro) * BATCH
            some = windows[at:at + BATCH]
            found = terms(case, student, teacher, some[:, :-1], some[:, 1:])
            sum(case["weights"][k] * v for k, v in found.items()).div(ACCUMULATE).backward()
            for k, v in found.items():
                sums[k] = sums.get(k, 0.0) + v.item() / ACCUMULATE
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP).item()
        rule.step()
        rows.append({"losses": sums, "norm": norm, "rate": rate})
    return start, student.state_dict(), rows


windows = torch.randint(0, CONFIG["vocab_size"], (STEPS * ACCUMULATE * BATCH, LENGTH + 1))
cases = {
    "adamw-cosine": dict(optimizer="adamw", schedule="cosine", teacher=False, weights={"cross-entropy": 1.0}),
    "sgd-linear": dict(optimizer="sgd", schedule="linear", teacher=False, weights={"cross-entropy": 1.0}),
    "distilled": dict(optimizer="adamw", schedule="constant", teacher=True, temperature=2.0,
                      weights={"cross-entropy": 0.5, "kl": 1.0, "output-mse": 0.25, "features": 2.0}),
}
tensors, rows = {"windows": windows.to(torch.int32)}, {}
for name, case in cases.items():
    start, end, rows[name] = run(case, windows)
    for k, v in end.items():
        if k != "lm_head.weight":
            tensors[f"{name}/{k}"] = v.clone()
for which, seed in (("start", 1), ("teacher", 2)):
    for k, v in model(seed).state_dict().items():
        if k != "lm_head.weight":
            tensors[f"{which}/{k}"] = v.clone()
save_file(tensors, HERE / "training.safetensors")
(HERE / "training.json").write_text(json.dumps({
    "config": {**CONFIG, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"},
    "batch": BATCH, "accumulate": ACCUMULATE, "length": LENGTH, "rate": RATE, "decay": DECAY, "clip": CLIP, "floor": FLOOR,
    "warmup": WARMUP, "cases": {k: {**v, "rows": rows[k]} for k, v in cases.items()},
}, indent=1) + "\n")
