#!/usr/bin/env bash
# Perplexity of SmolLM2-135M without three and six blocks, by every criterion, one-shot and iterative: one JSON file a
# row in docs/results/smollm2-depth. A row that exists is not measured again.
# Usage: depth_results.sh MODEL.gguf TOKENS.json [POMONA]     TOKENS.json: see make_reference_tokens.py
set -euo pipefail
model=$1; tokens=$2; pomona=${3:-target/release/pomona}
out=docs/results/smollm2-depth; work=${WORK:-target/depth-results}
mkdir -p "$out" "$work"
row() { # name, plan or -, what it is
  local name=$1 plan=$2 file="$out/$1.json" dir="$work/$1"
  [ -s "$file" ] && return
  local target=$model
  if [ "$plan" != - ]; then
    "$pomona" -q apply "$model" --plan "$plan" -o "$dir" --format gguf --force >/dev/null
    target=$dir
  fi
  "$pomona" -q --json eval "$target" --task perplexity --data "$tokens" > "$work/eval.json"
  python3 - "$file" "$work/eval.json" "$plan" "$name" "$3" <<'PY'
import json, os, sys, time
file, evaluation, plan, name, command = sys.argv[1:]
row = {"name": name, "perplexity": json.load(open(evaluation))["perplexity"], "evaluation": json.load(open(evaluation)),
       "command": command, "date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores"}
if plan != "-":
    row["plan"] = {k: json.load(open(plan))[k] for k in ("criterion", "removed", "before", "after")}
row["evaluation"].pop("seconds")
json.dump(row, open(file + ".part", "w"), indent=1)
os.replace(file + ".part", file)
PY
  rm -rf "$dir"
  echo "$name $(python3 -c "import json; print(round(json.load(open('$file'))['perplexity'], 4))")"
}
row dense - "pomona eval MODEL --task perplexity --data TOKENS"
for criterion in perplexity taylor block-influence magnitude random; do
  for mode in one-shot iterative; do
    scores="$work/$criterion-$mode.json"
    flags=(); [ "$mode" = iterative ] && flags=(--iterative 6)
    "$pomona" -q --json score "$model" --criterion "$criterion" --data "$tokens" "${flags[@]}" -o "$scores" >/dev/null
    for k in 3 6; do
      plan="$work/$criterion-$mode-$k.plan.json"
      "$pomona" -q --json plan "$model" --scores "$scores" --target "blocks=$k" --force -o "$plan" >/dev/null
      row "$criterion-$mode-$k" "$plan" \
        "pomona score MODEL --criterion $criterion --data TOKENS ${flags[*]} -o S; pomona plan MODEL --scores S --target blocks=$k -o P; pomona apply MODEL --plan P -o OUT; pomona eval OUT --task perplexity --data TOKENS"
    done
  done
done
