"""Kills `pomona score` and `pomona apply` again and again, and lets them finish: nothing may be lost or half visible.

Usage: kill_test.py --pomona target/release/pomona --score-model MODEL --tokens TOKENS.json --apply-model MODEL --work DIR
                    [--kills 20] [--seed 1] [--full-disk]
Each command runs once undisturbed; then a chain of runs onto one output is killed (SIGKILL) at moments spread evenly over that
time, and finished. Scores must equal those of the undisturbed run in everything but `seconds`; outputs byte for byte, and none
may be visible before the end. --full-disk (as root) repeats apply onto a file system that is too small, beside an old output.
Prints a JSON summary; exits with 1 where something was lost."""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time


def digest(directory):
    total = hashlib.sha256()
    for name in sorted(os.listdir(directory)):
        total.update(name.encode())
        with open(os.path.join(directory, name), "rb") as file:
            while chunk := file.read(1 << 22):
                total.update(chunk)
    return total.hexdigest()


def chain(command, out, kills, rng, visible):
    """The undisturbed time, then kills spread over it, then the end. Returns what was seen."""
    began = time.perf_counter()
    subprocess.run(command(out + ".whole"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    seen, died = 0, 0
    for kill in range(kills):
        process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=whole * (kill + rng.random()) / kills)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            died += 1
            seen += visible(out)
    subprocess.run(command(out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"seconds_undisturbed": round(whole, 2), "killed": died, "partial_outputs_seen": seen}


def scores(args, rng):
    out = os.path.join(args.work, "scores.json")
    command = lambda path: [args.pomona, "-q", "score", args.score_model, "--criterion", "perplexity", "--data", args.tokens, "-o", path]

    def damaged(path):
        try:
            json.load(open(path))
            return 0
        except FileNotFoundError:
            return 0
        except ValueError:
            return 1

    summary = chain(command, out, args.kills, rng, damaged)
    pair = [json.load(open(path)) for path in (out, out + ".whole")]
    for one in pair:
        one.pop("seconds")
    summary["equal"] = pair[0] == pair[1]
    return summary


def outputs(args, rng):
    plan, out = os.path.join(args.work, "plan.json"), os.path.join(args.work, "out")
    found = os.path.join(args.work, "magnitude.json")
    run = lambda *words: subprocess.run([args.pomona, "-q", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run("score", args.apply_model, "--criterion", "magnitude", "-o", found)
    run("plan", args.apply_model, "--scores", found, "--target", "blocks=2", "--force", "-o", plan)
    command = lambda path: [args.pomona, "-q", "apply", args.apply_model, "--plan", plan, "-o", path, "--shard-size", str(1 << 28), "--force"]
    visible = lambda path: int(os.path.exists(path) and digest(path) != digest(out + ".whole"))
    summary = chain(command, out, args.kills, rng, visible)
    summary["equal"] = digest(out) == digest(out + ".whole")
    if args.full_disk:
        summary["full_disk"] = full_disk(args, plan)
    return summary


def full_disk(args, plan):
    """A tmpfs that holds an old output and not the new one."""
    mount = os.path.join(args.work, "small")
    os.makedirs(mount, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", mount], check=True)
    try:
        old = os.path.join(mount, "out")
        os.makedirs(old)
        with open(os.path.join(old, "config.json"), "w") as file:
            file.write("{}")
        before = digest(old)
        command = [args.pomona, "apply", args.apply_model, "--plan", plan, "-o", old, "--force"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        error = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        return {"exit": done.returncode, "error": error.replace(args.work, "WORK"), "old_output_intact": digest(old) == before,
                "left_over": [n for n in os.listdir(mount) if n != "out" and os.path.isdir(os.path.join(mount, n))]}
    finally:
        subprocess.run(["umount", mount], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pomona", default="target/release/pomona")
    parser.add_argument("--score-model")
    parser.add_argument("--tokens")
    parser.add_argument("--apply-model")
    parser.add_argument("--work", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full-disk", action="store_true")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    os.makedirs(args.work)
    rng = random.Random(args.seed)
    summary = {}
    if args.apply_model:
        summary["apply"] = outputs(args, rng)
    if args.score_model:
        summary["score"] = scores(args, rng)
    print(json.dumps(summary, indent=1))
    lost = [v for v in summary.values() if not v["equal"] or v["partial_outputs_seen"]]
    disk = summary.get("apply", {}).get("full_disk")
    sys.exit(1 if lost or (disk and (disk["exit"] != 1 or not disk["old_output_intact"])) else 0)


if __name__ == "__main__":
    main()
