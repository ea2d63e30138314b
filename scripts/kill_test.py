"""Kills `pomona score`, `apply` and `compress` (SIGKILL) while they work, starts them again, and fills the disk under them.

Usage: kill_test.py --model MODEL --work DIR [--pomona target/release/pomona] [--kills 20] [--seed 1] [--criterion perplexity]
                    [--only apply|score|compress] [--samples 5] [--tokens 64] [--out DIR/kill-*.json]
MODEL is a checkpoint large enough for all to last, such as one that `pomona init` makes. DIR needs three times its size.

apply   Each kill starts from scratch, at moments spread evenly over the time of an undisturbed run; a run that ended first
        is killed sooner. After each kill no output may be visible (every other time: the old output must stand as it
        was); the same command then finishes, byte for byte as undisturbed, and leaves no temporary sibling.
score   One chain: each run goes on where the one before was killed; the last one ends with the bytes of an undisturbed one.
compress  As apply; scores and plan beside the output must have the undisturbed bytes too.
disk    (as root) score and apply onto a small tmpfs: too small from the start; filled while apply writes; filled while score runs.
        Exit 1, an error that says so, and what was there before is intact; with room, the same command ends well.
Writes kill-apply.json, kill-score.json and kill-compress.json into --out; exits with 1 where anything was lost."""

import argparse
import filecmp
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def content(path):
    """Names and hashes of a file or directory; None where there is nothing."""
    if not os.path.exists(path):
        return None
    files = [path] if os.path.isfile(path) else [os.path.join(path, n) for n in sorted(os.listdir(path))]
    return [(os.path.basename(f), hashlib.file_digest(open(f, "rb"), "sha256").hexdigest()) for f in files]


def same(one, other):
    """Whether two directories hold the same files."""
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and filecmp.cmpfiles(one, other, names, shallow=False)[1:] == ([], [])


def siblings(path):
    """Temporary files and directories of an output."""
    name = os.path.basename(path)
    return sorted(n for n in os.listdir(os.path.dirname(path)) if n.startswith(f".{name}"))


def clear(path):
    for name in siblings(path) + [os.path.basename(path)]:
        full = os.path.join(os.path.dirname(path), name)
        shutil.rmtree(full) if os.path.isdir(full) else os.path.exists(full) and os.remove(full)


def timed(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, **QUIET)
    return time.perf_counter() - began


def killed(command, delay):
    """Runs a command and kills it after a delay. Whether it was still at work."""
    process = subprocess.Popen(command, **QUIET)
    try:
        process.wait(timeout=delay)
        if process.returncode:
            sys.exit(f"{command} ended with {process.returncode}")
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait() == -9


def plan(args, blocks=2):
    found, out = os.path.join(args.work, "magnitude.json"), os.path.join(args.work, "plan.json")
    subprocess.run([args.pomona, "-q", "score", args.model, "--criterion", "magnitude", "-o", found], check=True, **QUIET)
    target = ["--target", f"blocks={blocks}"]
    subprocess.run([args.pomona, "-q", "plan", args.model, "--scores", found, *target, "--force", "-o", out], check=True, **QUIET)
    return out


def apply_test(args, rng):
    chosen, whole, other = plan(args), os.path.join(args.work, "whole"), os.path.join(args.work, "old")
    shard = ["--shard-size", str(1 << 28)]
    command = lambda out, *more: [args.pomona, "-q", "apply", args.model, "--plan", chosen, "-o", out, *shard, *more]
    seconds = timed(command(whole))
    # An old output: small, and a model's.
    os.makedirs(other)
    with open(os.path.join(other, "config.json"), "w") as file:
        file.write('{"model_type": "old"}')
    old, out = content(other), os.path.join(args.work, "out")
    result = {"seconds_undisturbed": round(seconds, 2), "kills": [], "partial_outputs_seen": 0, "different_bytes": 0,
              "siblings_left": 0, "ended_before_the_kill": 0}
    for kill in range(args.kills):
        delay = seconds * (kill + rng.random()) / args.kills
        with_old = kill % 2 == 1
        while True:
            clear(out)
            if with_old:
                shutil.copytree(other, out)
            if killed(command(out, "--force"), delay):
                break
            result["ended_before_the_kill"] += 1
            delay *= 0.9
        result["kills"].append(round(delay, 3))
        seen = content(out)
        # Killed after the exchange of names, the new output is there, and must be whole.
        if seen != (old if with_old else None) and not (os.path.isdir(out) and same(out, whole)):
            result["partial_outputs_seen"] += 1
        subprocess.run(command(out, "--force"), check=True, **QUIET)
        result["different_bytes"] += not same(out, whole)
        result["siblings_left"] += len(siblings(out))
    clear(out)
    result["killed"] = len(result["kills"])
    result["lost"] = result["partial_outputs_seen"] + result["different_bytes"] + result["siblings_left"]
    result["full_disk"] = apply_full_disk(args, chosen)
    clear(whole)
    return result


def score_test(args, rng):
    tokens = os.path.join(args.work, "tokens.json")
    with open(os.path.join(args.model, "config.json")) as file:
        vocabulary = json.load(file)["vocab_size"]
    with open(tokens, "w") as file:
        json.dump({"calibration": [[rng.randrange(vocabulary) for _ in range(args.tokens)] for _ in range(args.samples)]}, file)
    command = lambda out: [args.pomona, "-q", "score", args.model, "--criterion", args.criterion, "--data", tokens,
                           "--save-every", "0.2", "-o", out]
    whole, out = os.path.join(args.work, "whole.json"), os.path.join(args.work, "scores.json")
    seconds = timed(command(whole))
    result = {"criterion": args.criterion, "samples": args.samples, "tokens": args.tokens, "seconds_undisturbed": round(seconds, 2),
              "kills": [], "damaged_files_seen": 0, "read_as_complete": 0, "ended_before_the_kill": 0}
    # Even pieces of the time, each with its own length, so that the chain passes every stage of the work.
    for _ in range(args.kills):
        delay = seconds / args.kills * rng.uniform(0.6, 1.3)
        if not killed(command(out), delay):
            result["ended_before_the_kill"] += 1
            break
        result["kills"].append(round(delay, 3))
        try:
            with open(out) as file:
                result["read_as_complete"] += json.load(file)["complete"]
        except FileNotFoundError:
            pass
        except ValueError:
            result["damaged_files_seen"] += 1
    result["killed"] = len(result["kills"])
    result["seconds_of_the_last_run"] = round(timed(command(out)), 2)
    result["same_bytes"] = filecmp.cmp(out, whole, shallow=False)
    result["siblings_left"] = len(siblings(out))
    result["lost"] = result["damaged_files_seen"] + result["read_as_complete"] + (not result["same_bytes"]) + result["siblings_left"]
    result["full_disk"] = score_full_disk(args, tokens, whole)
    return result


def compress_test(args, rng):
    shard = ["--shard-size", str(1 << 28)]
    command = lambda out: [args.pomona, "-q", "compress", args.model, "--criterion", "magnitude", "--target", "blocks=2", "-o", out, *shard]
    whole, out = os.path.join(args.work, "whole"), os.path.join(args.work, "out")
    beside = lambda path: [content(f"{path}.{kind}.json")[0][1] for kind in ("scores", "plan")]
    seconds = timed(command(whole))
    result = {"seconds_undisturbed": round(seconds, 2), "kills": [], "partial_outputs_seen": 0, "different_bytes": 0, "siblings_left": 0,
              "ended_before_the_kill": 0, "killed_with_scores": 0, "killed_with_the_output": 0}
    for kill in range(args.kills):
        delay = seconds * (kill + rng.random()) / args.kills
        while True:
            for name in os.listdir(args.work):
                if name.startswith(("out", ".out")):
                    full = os.path.join(args.work, name)
                    shutil.rmtree(full) if os.path.isdir(full) else os.remove(full)
            if killed(command(out), delay):
                break
            result["ended_before_the_kill"] += 1
            delay *= 0.9
        result["kills"].append(round(delay, 3))
        result["killed_with_scores"] += os.path.exists(f"{out}.scores.json")
        if os.path.isdir(out):
            # Killed between the exchange of names and the end.
            result["killed_with_the_output"] += 1
            result["partial_outputs_seen"] += not same(out, whole)
        # The hidden lock may stand then, and goes with the next run.
        subprocess.run([*command(out), *(["--force"] if os.path.isdir(out) else [])], check=True, **QUIET)
        result["different_bytes"] += not same(out, whole) or beside(out) != beside(whole)
        # The hidden sibling of a small file goes with a later run, once it is ten minutes old.
        result["siblings_left"] += sum(not (".json." in n and n.endswith(".tmp")) for n in siblings(out))
    result["killed"] = len(result["kills"])
    result["lost"] = result["partial_outputs_seen"] + result["different_bytes"] + result["siblings_left"]
    result["full_disk"] = {}
    return result


class Tmpfs:
    """A small file system."""

    def __init__(self, args, size):
        self.path, self.size = os.path.join(args.work, "small"), size

    def __enter__(self):
        os.makedirs(self.path, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.path], check=True)

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    def fill_when(self, there):
        """Takes all space as soon as a path is there."""
        def run():
            while not there():
                time.sleep(0.01)
            with open(os.path.join(self.path, "filler"), "wb", buffering=0) as file:
                try:
                    while file.write(bytes(1 << 20)):
                        pass
                except OSError:
                    pass
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def drop_filler(self):
        os.remove(os.path.join(self.path, "filler"))


def refused(args, command):
    done = subprocess.run(command, capture_output=True, text=True)
    error = done.stderr.strip().splitlines()
    return {"exit": done.returncode, "error": (error[-1] if error else "").replace(args.work, "WORK")}


def apply_full_disk(args, chosen):
    sizes = [os.path.getsize(os.path.join(args.model, n)) for n in os.listdir(args.model)]
    command = lambda out: [args.pomona, "apply", args.model, "--plan", chosen, "-o", out, "--force"]
    out = os.path.join(args.work, "small", "out")
    found = {}
    for name, size in (("from_the_start", 64 << 20), ("meanwhile", sum(sizes) + (64 << 20))):
        with Tmpfs(args, size) as disk:
            os.makedirs(out)
            with open(os.path.join(out, "config.json"), "w") as file:
                file.write("{}")
            before = content(out)
            if name == "meanwhile":
                thread = disk.fill_when(lambda: any("tmp" in n or n.startswith(".out") for n in siblings(out)))
            one = refused(args, command(out))
            if name == "meanwhile":
                thread.join()
            one["old_output_intact"] = content(out) == before
            one["ok"] = one["exit"] == 1 and one["old_output_intact"] and "error: " in one["error"]
            if name == "meanwhile":
                disk.drop_filler()
                subprocess.run(command(out), check=True, **QUIET)
                one["then_with_room"] = len(os.listdir(out)) > 1 and siblings(out) == []
                one["ok"] = one["ok"] and one["then_with_room"]
            found[name] = one
    return found


def score_full_disk(args, tokens, whole):
    command = lambda out: [args.pomona, "score", args.model, "--criterion", args.criterion, "--data", tokens, "--save-every", "0.2", "-o", out]
    with Tmpfs(args, 1 << 20) as disk:
        out = os.path.join(disk.path, "scores.json")
        thread = disk.fill_when(lambda: os.path.exists(out))
        one = refused(args, command(out))
        thread.join()
        with open(out) as file:
            before = file.read()
        one["file_intact"] = json.loads(before)["complete"] is False
        again = refused(args, command(out))
        with open(out) as file:
            one["file_intact"] = one["file_intact"] and again["exit"] == 1 and file.read() == before
        one["error_of_the_next_run"] = again["error"]
        disk.resize(1 << 30)
        disk.drop_filler()
        subprocess.run(command(out), check=True, **QUIET)
        one["then_with_room"] = filecmp.cmp(out, whole, shallow=False)
        one["ok"] = one["exit"] == 1 and one["file_intact"] and one["then_with_room"] and "error: " in one["error"]
        return {"meanwhile": one}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pomona", default="target/release/pomona")
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--out")
    parser.add_argument("--only", choices=["apply", "score", "compress"])
    parser.add_argument("--criterion", default="perplexity")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.work = os.path.abspath(args.work)
    if os.path.exists(args.work) and os.listdir(args.work):
        sys.exit(f"{args.work}: exists and is not empty: choose another --work")
    os.makedirs(args.work, exist_ok=True)
    os.makedirs(args.out or args.work, exist_ok=True)
    good = True
    for name, test in (("apply", apply_test), ("score", score_test), ("compress", compress_test)):
        if args.only in (None, name):
            result = test(args, random.Random(args.seed))
            result["ok"] = result["killed"] == args.kills and not result["lost"] and all(d["ok"] for d in result["full_disk"].values())
            good = good and result["ok"]
            words = ["kill_test.py", "--model", os.path.basename(args.model.rstrip("/")), "--only", name]
            words += ["--kills", str(args.kills), "--seed", str(args.seed)]
            if name == "score":
                words += ["--criterion", args.criterion, "--samples", str(args.samples), "--tokens", str(args.tokens)]
            result = {"command": " ".join(words), "date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores", **result}
            text = json.dumps(result, indent=1)
            print(text, flush=True)
            if args.out:
                with open(os.path.join(args.out, f"kill-{name}.json"), "w") as file:
                    file.write(text + "\n")
    shutil.rmtree(args.work)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
