"""Whether `pomona eval --task choice` gives what lm-evaluation-harness gives on the same questions and weights.

Usage: check_lm_eval.py --model MODEL.gguf --data DATA [--limit 500] [--sets ARC-Easy,social_i_qa] [--pomona PATH] [--out FILE.json]
DATA holds tasks/SET/test.json (lists with `instruction` and `answer`). The model is exported to a transformers directory
(f32), which the harness runs with PyTorch through a task file of its own; Pomona reads the GGUF and the original lists.
The questions are taken apart here by other code than Pomona's. Fails where acc or acc_norm (by bytes, `acc_bytes` of the
harness) differ by more than 0.2 points. Runs in an environment with torch, transformers and lm-eval; nothing is fetched."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
MOST = 0.2
TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
num_fewshot: 0
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
  - metric: acc_bytes
    aggregation: mean
    higher_is_better: true
"""


def questions(path, limit):
    with open(path, encoding="utf-8") as file:
        for item in json.load(file)[:limit]:
            match = re.fullmatch(r"[^:]*: (.*)\n\nAnswer1: (.*)\n\nAnswer format: (.*)", item["instruction"], re.S)
            question, options, labels = match.groups()
            choices = [part.strip() for part in re.split(r" Answer\d+: ?", options)]
            labels = labels.split("/")
            assert len(labels) == len(choices), item
            yield {"question": question.strip(), "choices": choices, "gold": labels.index(item["answer"])}


def harness(model, work, name, items):
    import lm_eval
    from lm_eval.tasks import TaskManager

    file = os.path.join(work, f"{name}.jsonl")
    with open(file, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(item) + "\n" for item in items)
    with open(os.path.join(work, f"{name}.yaml"), "w", encoding="utf-8") as out:
        out.write(TASK.format(name=name, file=file))
    tasks = TaskManager(include_path=work, include_defaults=False)
    began = time.time()
    found = lm_eval.simple_evaluate(model=model, tasks=[name], task_manager=tasks, log_samples=True, bootstrap_iters=0)
    result = {key.split(",")[0]: value for key, value in found["results"][name].items() if isinstance(value, float)}
    samples = sorted(found["samples"][name], key=lambda s: s["doc_id"])
    scores = [[float(r[0]) for r in s["filtered_resps"]] for s in samples]
    return result, scores, time.time() - began


def ours(pomona, model, data, limit, work):
    kept = os.path.join(work, "answers.jsonl")
    command = [pomona, "-q", "--json", "eval", model, "--task", "choice", "--data", data, "--limit", str(limit), "--keep-answers", kept]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    with open(kept, encoding="utf-8") as file:
        return result, [json.loads(line)["log_likelihoods"] for line in file]


def compare(name, theirs, their_scores, mine, my_scores):
    points = {"acc": 100 * abs(mine["acc"] - theirs["acc"]), "acc_norm": 100 * abs(mine["acc_norm"] - theirs["acc_bytes"])}
    gaps = [abs(a - b) for x, y in zip(their_scores, my_scores, strict=True) for a, b in zip(x, y, strict=True)]
    first = lambda row: max(range(len(row)), key=lambda i: row[i])
    changed = sum(first(a) != first(b) for a, b in zip(their_scores, my_scores))
    return {
        "set": name, "questions": mine["questions"],
        "lm_eval": {key: theirs[key] for key in ("acc", "acc_norm", "acc_bytes")},
        "pomona": {key: mine[key] for key in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "acc_norm_characters")},
        "difference_points": points, "most_points": MOST, "questions_answered_differently": changed,
        "largest_log_likelihood_gap": max(gaps), "ok": max(points.values()) <= MOST,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--sets", default="ARC-Easy,social_i_qa")
    parser.add_argument("--pomona", default="target/release/pomona")
    parser.add_argument("--out")
    args = parser.parse_args()

    import importlib.metadata
    import torch
    from lm_eval.models.huggingface import HFLM

    rows = []
    with tempfile.TemporaryDirectory() as work:
        dense = os.path.join(work, "dense")
        subprocess.run([args.pomona, "-q", "export", args.model, "-o", dense, "--format", "hf", "--dtype", "f32"], check=True, stdout=subprocess.DEVNULL)
        torch.set_num_threads(2)
        model = HFLM(pretrained=dense, dtype="float32", batch_size=16, device="cpu")
        for name in args.sets.split(","):
            data = os.path.join(args.data, "tasks", name, "test.json")
            mine, my_scores = ours(args.pomona, args.model, data, args.limit, work)
            task = "pomona_" + re.sub(r"\W", "_", name).lower()
            theirs, their_scores, seconds = harness(model, work, task, list(questions(data, args.limit)))
            row = compare(name, theirs, their_scores, mine, my_scores)
            row["seconds"] = {"pomona": round(mine["seconds"], 1), "lm_eval": round(seconds, 1)}
            rows.append(row)
            print(json.dumps(row, indent=1), file=sys.stderr)
    document = {
        "what": "multiple choice on the dense model, the same questions and weights in both",
        "command": f"check_lm_eval.py --model MODEL --data DATA --limit {args.limit} --sets {args.sets}",
        "lm_eval": importlib.metadata.version("lm-eval"), "seed": None, "machine": f"{os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"), "ok": all(row["ok"] for row in rows), "rows": rows,
    }
    text = json.dumps(document, indent=1) + "\n"
    if args.out:
        with open(args.out + ".part", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(args.out + ".part", args.out)
    sys.stdout.write(text)
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
