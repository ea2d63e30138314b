#!/usr/bin/env python3
"""SmolLM2-135M without three and six of its thirty blocks, won back: arms of equal wall time, a JSON row each.

recover_smollm2.py MODEL.gguf TOKENS.json [--minutes 6] [--arms lora,full,...] [--blocks 3,6] [--text written] [--peft PYTHON]

TOKENS.json is from `make_reference_tokens.py`: its calibration windows choose the blocks, its 24 windows of 512 tokens evaluate, as in the
tables of docs/llm-depth.md. Needs POMONA_DATA: text/train/*.txt trains, tasks and text/wikitext-2/valid.txt evaluate. With
`--text written` the arms train on text that the dense model writes itself (`--windows-written` windows of 257 tokens), rows `*-written`. With
`--peft` a Python with torch, transformers and peft trains the LoRA arm too (`train_torch.py`), rows `*-peft`.
Trainings come first, one after the other, so that their times are those of a machine that does nothing else; evaluations follow (`--only train`
and `--only evaluate` do one of the two). Resumable in parts: a row that exists is not made again, a training that was stopped goes on from its
checkpoint.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The rate of full training is the best of 1e-4, 3e-4 and 1e-3 by 90 seconds each, six blocks out, measured on the calibration half
# (loss 4.145, 4.061, 4.333; 4.409 before).
ARMS = {
    "lora": ["finetune", "--lora-rank", "8", "--lora-alpha", "16", "--lr", "1e-3"],
    "full": ["finetune", "--lr", "3e-4"],
    "kl": ["distill", "--lr", "3e-4", "--loss", "kl=1"],
    "kl-hidden": ["distill", "--lr", "3e-4", "--loss", "kl=1", "--loss", "features=1,normalise=relative"],
}

parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("tokens", type=Path)
parser.add_argument("--minutes", type=float, default=6)
parser.add_argument("--arms", default="full,lora,kl,kl-hidden,dense")
parser.add_argument("--blocks", default="3,6")
parser.add_argument("--questions", type=int, default=0, help="of ARC-Easy and SIQA; none without it")
parser.add_argument("--repetition", type=int, default=0, help="prompts for the repetition rate; none without it")
parser.add_argument("--text", choices=("train", "written"), default="train")
parser.add_argument("--windows-written", type=int, default=512)
parser.add_argument("--peft", type=Path)
parser.add_argument("--only", choices=("train", "evaluate"))
parser.add_argument("--pomona", type=Path, default=ROOT / "target/release/pomona")
parser.add_argument("--work", type=Path, default=ROOT / "target/recovery")
parser.add_argument("--out", type=Path, default=ROOT / "docs/results/recovery")
args = parser.parse_args()

DATA = Path(os.environ["POMONA_DATA"])
VALID = DATA / "text/wikitext-2/valid.txt"
TRAIN = sorted((DATA / "text/train").glob("*.txt"))
COMMON = ["--seq", "256", "--batch", "4", "--seed", "1", "--warmup", "5%"]
args.work.mkdir(parents=True, exist_ok=True)
args.out.mkdir(parents=True, exist_ok=True)
child = None


def stop(number, _):
    if child is not None:
        child.send_signal(signal.SIGTERM)
        child.wait()
    sys.exit(f"stopped by signal {number}: the same command goes on")


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)


def pomona(*words):
    """A command's document."""
    global child
    child = subprocess.Popen([args.pomona, "--json", *map(str, words)], stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate()
    code, child = child.returncode, None
    if code != 0:
        sys.exit(f"pomona {' '.join(map(str, words))}: ended with {code}")
    return json.loads(out)


def named(words):
    """A command as a person would repeat it: without this machine's paths."""
    text = " ".join(["pomona", *map(str, words)])
    for path, name in ((args.model, "MODEL"), (args.work, "WORK"), (DATA, "$POMONA_DATA")):
        text = text.replace(str(path), name)
    return text


def evaluation(model):
    found = {}
    wide = pomona("-q", "eval", model, "--task", "perplexity", "--data", args.tokens)
    found["perplexity"], found["perplexity_stderr"] = wide["perplexity"], wide["perplexity_stderr"]
    found["evaluation"] = {k: wide[k] for k in ("protocol", "windows", "tokens", "source", "data_fingerprint")}
    if args.questions:
        for name, folder in (("arc_easy", "ARC-Easy"), ("siqa", "social_i_qa")):
            file = DATA / f"tasks/{folder}/test.json"
            done = pomona("-q", "eval", model, "--task", "choice", "--data", file, "--limit", args.questions)
            found[name] = {k: done.get(k) for k in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "questions")}
    if args.repetition:
        done = pomona("-q", "eval", model, "--task", "repetition", "--data", f"{VALID}:1881-3760", "--windows", args.repetition)
        found["repetition"] = {k: v for k, v in done.items() if k not in ("seconds", "task")}
    return found


def keep(name, row):
    row = {"name": name, **row, "date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores",
           "load": [round(x, 1) for x in os.getloadavg()]}
    part = args.out / f"{name}.json.part"
    part.write_text(json.dumps(row, indent=1) + "\n")
    part.replace(args.out / f"{name}.json")
    print(f"{name}: perplexity {row['perplexity']:.2f}" + (f", {row['tokens_per_second']:.0f} tokens/s" if "steps" in row else ""), flush=True)


TRAINED = ("steps", "tokens", "seconds", "tokens_per_second", "loss_first", "loss_last", "trained_parameters", "peak_memory")
later = []


def evaluated(name, model, more, made=False):
    """A row that is measured once all trainings are done."""
    def measure():
        if not (args.out / f"{name}.json").exists():
            keep(name, {**more, **evaluation(model)})
        if made:
            shutil.rmtree(model, ignore_errors=True)
    later.append(measure)


def trained(name, train, more):
    """A training, unless its row or its model is there; what it took is kept beside the model."""
    out, took = args.work / name, args.work / f"{name}.took.json"
    if not (args.out / f"{name}.json").exists():
        if not (took.exists() and out.exists()):
            if args.only == "evaluate":
                return
            about, done = train(out)
            load = [round(x, 1) for x in os.getloadavg()]
            took.write_text(json.dumps({**about, "minutes": args.minutes, "load_after_training": load, **{k: done[k] for k in TRAINED}}))
            print(f"{name}: {done['steps']} steps, {done['tokens_per_second']:.0f} tokens/s, loss {done['loss_first']:.3f} to {done['loss_last']:.3f}", flush=True)
        more = {**more, **json.loads(took.read_text())}
    evaluated(name, out, more, made=True)


def peft(name, model, more):
    """The LoRA arm by PyTorch and peft: the same rank, rate, windows, batches and time."""
    def train(out):
        command = [args.peft, ROOT / "scripts/train_torch.py", model, *TRAIN, "--lora", "--minutes", args.minutes, "--out", out]
        done = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        return {"command": f"train_torch.py CUT $POMONA_DATA/text/train/*.txt --lora --minutes {args.minutes:g}", "seed": 0}, done
    if args.peft:
        trained(name, train, more)


def arm(name, model, words, more):
    def train(out):
        command = [words[0], model, *words[1:], *COMMON, "--data", *trained_on, "--minutes", args.minutes, "-o", out]
        if words[0] == "distill":
            command += ["--teacher", dense]
        return {"command": named(command), "seed": 1}, pomona("-q", *command, "--force", "--resume")
    trained(name, train, more)


# The dense model as every arm begins from it: the 4-bit weights widened.
dense = args.work / "dense"
if not dense.exists():
    pomona("-q", "export", args.model, "-o", dense, "--format", "hf")
scores = args.work / "scores.json"
if not scores.exists():
    pomona("-q", "score", dense, "--criterion", "block-influence", "--data", args.tokens, "-o", scores)
label = f"{args.minutes:g}min" + ("-written" if args.text == "written" else "")
trained_on = TRAIN
if args.text == "written":
    written = args.work / "written.json"
    if not written.exists():
        pomona("generate", dense, "--windows", args.windows_written, "--tokens", 257, "--seed", 77, "-o", written)
    trained_on = [written]
arms = args.arms.split(",")
if "dense" in arms:
    evaluated("dense", dense, {"blocks_removed": 0})
for count in map(int, args.blocks.split(",")):
    cut, plan = args.work / f"cut-{count}", args.work / f"plan-{count}.json"
    if not cut.exists():
        pomona("-q", "plan", dense, "--scores", scores, "--target", f"blocks={count}", "-o", plan, "--force")
        pomona("-q", "apply", dense, "--plan", plan, "-o", cut)
    about = {"blocks_removed": count, "removed": json.loads(plan.read_text())["removed"]}
    evaluated(f"cut-{count}", cut, about)
    for which in (a for a in arms if a != "dense"):
        arm(f"cut-{count}-{which}-{label}", cut, ARMS[which], about)
    if args.text == "train":
        peft(f"cut-{count}-peft-{label}", cut, about)
if "dense" in arms:
    arm(f"dense-full-{label}", dense, ARMS["full"], {"blocks_removed": 0})
if args.only != "train":
    for measure in later:
        measure()

rows = {p.stem: json.loads(p.read_text()) for p in args.out.glob("*.json")}


def line(name, row):
    """A row of the page: without training, or after it."""
    written = name.endswith("-written")
    trained = "steps" in row
    after = name.removeprefix(f"cut-{row['blocks_removed']}-").removeprefix("dense-").removesuffix("-written").rsplit("-", 1)[0] if trained else ""
    start, control = rows.get(f"cut-{row['blocks_removed']}"), rows.get(f"dense-full-{args.minutes:g}min" + ("-written" if written else ""))
    share = ""
    if trained and row["blocks_removed"] and control and start:
        share = f"{(start['perplexity'] - row['perplexity']) / (start['perplexity'] - control['perplexity']):.0%}"
    cells = [row["blocks_removed"] or "none", "its own text" if written else "books" if trained else "", after,
             f"{row['perplexity']:.2f}", share]
    cells += [f"{100 * row[k]['acc']:.1f}" if k in row else "" for k in ("arc_easy", "siqa")]
    cells += [f"{100 * row['repetition']['repeated']:.0f} %" if "repetition" in row else ""]
    cells += [row["steps"], f"{row['tokens_per_second']:.0f}", f"{row['peak_memory'] / 1e9:.2f} GB"] if trained else ["", "", ""]
    return "| " + " | ".join(map(str, cells)) + " |"


table = ["| blocks out | trained on | arm | perplexity | recovery | ARC-Easy | SIQA | repetition | steps | tokens/s | peak memory |", "|---" * 11 + "|"]
# As the table reads: by blocks, untrained first, then by perplexity.
for name, row in sorted(rows.items(), key=lambda r: (r[1]["blocks_removed"], "steps" in r[1], r[1]["perplexity"])):
    if row.get("minutes", args.minutes) == args.minutes:
        table.append(line(name, row))
print("\n" + "\n".join(table))
page = ROOT / "docs/recovery.md"
if page.exists():
    before_table, _, rest = page.read_text().partition("<!-- table -->\n")
    page.write_text(before_table + "<!-- table -->\n" + "\n".join(table) + "\n<!-- end -->" + rest.partition("<!-- end -->")[2])
