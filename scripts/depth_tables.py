"""SmolLM2-135M with 3, 6 and 9 of 30 blocks out: every criterion, one-shot and iterative, beside random orders and the dense model.

The first four and last two blocks stay, but for the rows `anywhere` (6 blocks, one-shot, no block is protected).

    python scripts/depth_tables.py POMONA MODEL.gguf TOKENS.json DATA WORK [REPO] [--only PREFIX] [--minutes N]

TOKENS comes from make_reference_tokens.py (calibration windows and 24 evaluation windows of 512); DATA holds tasks/ and
text/wikitext-2. One JSON a row goes to docs/results/llm-depth; a row that is there is not measured again, and plans that take
the same blocks are evaluated once. Multiple choice: the first 500 questions of ARC-Easy and SIQA; the best plan of each ratio gets
the whole evaluation half and all questions. Rows `size-*` are whole and cut files in several encodings, written anew from the
model's values (requantize_gguf.py, in this interpreter's environment: gguf). Nothing that is evaluated is read in scoring.
depth_pages.py makes the tables.
"""
import argparse
import datetime
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

CRITERIA = ("perplexity", "taylor", "block-influence", "magnitude")
MODES = {"one-shot": [], "iterative": ["--iterative", "9"], "anywhere": ["--protect", "none"]}
CUTS = (3, 6, 9)
SEEDS = (1, 2, 3, 4, 5)
QUESTIONS = 500
SETS = {"arc-easy": "tasks/ARC-Easy/test.json", "siqa": "tasks/social_i_qa/test.json"}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("pomona", "model", "tokens", "data", "work"):
        p.add_argument(name, type=lambda v: Path(v).resolve())
    p.add_argument("repo", nargs="?", default=".", type=lambda v: Path(v).resolve())
    p.add_argument("--only", default="")
    p.add_argument("--minutes", type=float, default=1e9)
    return p.parse_args()


A = arguments()
RESULTS = A.repo / "docs/results/llm-depth"
END = time.time() + 60 * A.minutes


def run(*command):
    """What it prints, seconds by the clock and of the processors, and the peak of its resident memory in MB."""
    began = time.time()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{err.decode()}")
    cost = {"seconds": round(time.time() - began, 1), "core_seconds": round(usage.ru_utime + usage.ru_stime, 1), "memory_mb": usage.ru_maxrss // 1024}
    return out.decode(), cost


def shown(*command):
    short = {str(A.pomona): "pomona", str(A.model): "MODEL", str(A.tokens): "TOKENS"}
    words = [short.get(str(c), str(c)) for c in command]
    return " ".join(w.replace(f"{A.work}/", "").replace(f"{A.data}/", "") for w in words)


def keep(name, row):
    RESULTS.mkdir(parents=True, exist_ok=True)
    row |= {"name": name, "date": datetime.date.today().isoformat(), "machine": f"{os.cpu_count()} cores"}
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps(row, indent=1) + "\n")
    part.rename(RESULTS / f"{name}.json")
    print(name, {k: row[k] for k in ("perplexity", "arc-easy", "siqa", "core_seconds", "memory_mb") if k in row}, flush=True)


def wanted(name):
    return name.startswith(A.only) and not (RESULTS / f"{name}.json").exists() and time.time() < END


def scores(criterion, mode, data, name, seed=None):
    """The score file, and a row on what it cost."""
    file = A.work / f"{name}.scores.json"
    command = [A.pomona, "-q", "--json", "score", A.model, "--criterion", criterion, *MODES[mode], "-o", file]
    command += ["--data", data] if data else []
    command += ["--seed", seed] if seed is not None else []
    if not (RESULTS / f"scoring-{name}.json").exists():
        # What an interrupted run left would make the cost too small.
        file.unlink(missing_ok=True)
        _, cost = run(*command)
        keep(f"scoring-{name}", {"criterion": criterion, "mode": mode} | cost | {"command": shown(*command)})
    return file, shown(*command)


def plan(file, cut, name):
    out = A.work / f"{name}.plan.json"
    command = [A.pomona, "-q", "--json", "plan", A.model, "--scores", file, "--target", f"blocks={cut}", "--force", "-o", out]
    run(*command)
    return out, json.loads(out.read_text()), shown(*command)


def text(half):
    """Lines 1-1880 calibrate; the rest is what is evaluated."""
    lines = (A.data / "text/wikitext-2/valid.txt").read_text().splitlines(keepends=True)
    file = A.work / f"{half}.txt"
    if not file.exists():
        file.write_text("".join(lines[:1880] if half == "calibration" else lines[1880:]))
    return file


def evaluated(target, whole):
    commands = {"perplexity": [A.pomona, "-q", "--json", "eval", target, "--task", "perplexity"]}
    commands["perplexity"] += ["--data", text("evaluation"), "--tokens", 512] if whole else ["--data", A.tokens]
    for name, file in SETS.items():
        commands[name] = [A.pomona, "-q", "--json", "eval", target, "--task", "choice", "--data", A.data / file]
        commands[name] += [] if whole else ["--limit", QUESTIONS]
    if whole:
        commands["repetition"] = [A.pomona, "-q", "--json", "eval", target, "--task", "repetition", "--data", text("evaluation")]
    found = {}
    for name, command in commands.items():
        found[name] = json.loads(run(*command)[0])
    return found, [shown(*c) for c in commands.values()]


def evaluation(plan_file, removed, whole=False):
    """What a set of removed blocks gives; worked out once for each set."""
    key = hashlib.sha256(json.dumps([sorted(removed), whole]).encode()).hexdigest()[:16]
    file = A.work / f"eval-{key}.json"
    if not file.exists():
        target = A.model
        if removed:
            target = A.work / "cut"
            run(A.pomona, "-q", "apply", A.model, "--plan", plan_file, "-o", target, "--format", "gguf", "--force")
        found, commands = evaluated(target, whole)
        file.write_text(json.dumps({"found": found, "commands": commands}))
    return json.loads(file.read_text())


def row(found, **more):
    f = found["found"]
    out = more | {"perplexity": f["perplexity"]["perplexity"], "evaluation": f["perplexity"], "commands": found["commands"]}
    for name in SETS:
        out[name] = {k: v for k, v in f[name].items() if k not in ("seconds", "task")}
    out["evaluation"].pop("seconds", None)
    if "repetition" in f:
        out["repetition"] = {k: v for k, v in f["repetition"].items() if k not in ("seconds", "task")}
    return out


def removed(made):
    return made["removed"]


def one(name, criterion, mode, cut, data, seed=None):
    stem = f"{criterion}-{mode}" if seed is None else f"random-{seed}"
    file, score_command = scores(criterion, mode, data, stem, seed)
    plan_file, made, plan_command = plan(file, cut, name)
    found = evaluation(plan_file, removed(made))
    keep(name, row(found, criterion=criterion, mode=mode, blocks=cut, removed=removed(made), before=made["before"], after=made["after"],
                   command=f"{score_command} && {plan_command}", **({"seed": seed} if seed is not None else {})))


def best(cut):
    """The row of this many blocks with the lowest perplexity."""
    rows = [json.loads(f.read_text()) for f in RESULTS.glob(f"*-{cut}.json") if not f.name.startswith(("best", "calibration", "random"))]
    rows = [r for r in rows if r.get("blocks") == cut]
    return min(rows, key=lambda r: r["perplexity"]) if rows else None


def random_tokens():
    """Windows of tokens drawn at random: calibration that has no text in it."""
    file = A.work / "random-tokens.json"
    if not file.exists():
        draw = random.Random(1234)
        windows = json.loads(A.tokens.read_text())
        windows["calibration"] = [[draw.randrange(49152) for _ in range(128)] for _ in range(10)]
        file.write_text(json.dumps(windows))
    return file


def written(name, plan_file, encoding):
    """A GGUF of the model, cut by a plan or whole, with its matrices in an encoding."""
    target, source = A.work / f"size-{name}.gguf", A.model
    if not target.exists():
        if plan_file:
            run(A.pomona, "-q", "apply", A.model, "--plan", plan_file, "-o", A.work / "cut-for-size", "--format", "gguf", "--force")
            source = next((A.work / "cut-for-size").glob("*.gguf"))
        run(sys.executable, Path(__file__).resolve().parent / "requantize_gguf.py", source, target, encoding)
    return target


def sizes():
    """Whole and cut files of equal size. The cuts are those of the best one-shot scores, for any number of blocks."""
    rows = [json.loads(f.read_text()) for f in RESULTS.glob("*-one-shot-9.json")]
    if not rows:
        return
    top = min(rows, key=lambda r: r["perplexity"])
    scores_file = A.work / f"{top['criterion']}-one-shot.scores.json"

    def measured(name, cut, encoding):
        plan_file = plan(scores_file, cut, f"size-{cut}")[0] if cut else None
        file = written(name, plan_file, encoding)
        if wanted(f"size-{name}"):
            found, commands = evaluated(file, False)
            made = row({"found": found, "commands": commands}, encoding=encoding, blocks=cut, bytes=file.stat().st_size)
            made["criterion"] = top["criterion"]
            keep(f"size-{name}", made)
        return file.stat().st_size

    dense = {e: measured(f"dense-{e}", 0, e) for e in ("Q8_0", "Q5_0", "Q4_0")}
    one = (dense["Q8_0"] - measured("3-Q8_0", 3, "Q8_0")) / 3
    for encoding in ("Q5_0", "Q4_0"):
        cut = int(-(-(dense["Q8_0"] - dense[encoding]) // one))
        if cut <= 24:
            measured(f"{cut}-Q8_0", cut, "Q8_0")
    measured("3-Q4_0", 3, "Q4_0")
    measured("6-Q4_0", 6, "Q4_0")


def chance(cut):
    for seed in SEEDS:
        if wanted(f"random-{seed}-{cut}"):
            one(f"random-{seed}-{cut}", "random", "one-shot", cut, A.tokens, seed)


def main():
    A.work.mkdir(parents=True, exist_ok=True)
    if wanted("dense"):
        keep("dense", row(evaluation(None, [])))
    table = [(c, m, cut) for cut in (6, 3, 9) for m in ("one-shot", "iterative") for c in CRITERIA]
    for criterion, mode, cut in table + [(c, "anywhere", 6) for c in CRITERIA]:
        name = f"{criterion}-{mode}-{cut}"
        if wanted(name):
            one(name, criterion, mode, cut, A.tokens)
    chance(6)
    # Which calibration: the text's other half (above), text that the model writes, tokens drawn at random.
    for criterion in ("perplexity", "taylor"):
        for kind, data in (("written", None), ("random-tokens", random_tokens())):
            name = f"calibration-{kind}-{criterion}-6"
            if wanted(name):
                file, score_command = scores(criterion, "one-shot", data, f"calibration-{kind}-{criterion}")
                plan_file, made, plan_command = plan(file, 6, name)
                found = evaluation(plan_file, removed(made))
                keep(name, row(found, criterion=criterion, calibration=kind, blocks=6, removed=removed(made), command=f"{score_command} && {plan_command}"))
    if "size".startswith(A.only[:4]):
        sizes()
    for cut in (3, 9):
        chance(cut)
    if wanted("best-dense"):
        keep("best-dense", row(evaluation(None, [], whole=True)))
    for cut in CUTS:
        top = best(cut)
        if top and wanted(f"best-{cut}"):
            plan_file = A.work / f"{top['name']}.plan.json"
            found = evaluation(plan_file, top["removed"], whole=True)
            keep(f"best-{cut}", row(found, of=top["name"], blocks=cut, removed=top["removed"]))


if __name__ == "__main__":
    main()
