#!/usr/bin/env bash
# Repetition in text that SmolLM2-135M continues, dense and without three and six blocks (block influence, one-shot), greedily
# and with the paper's sampling: one JSON file a row in docs/results/repetition. A row that exists is not measured again.
# Usage: POMONA_DATA=DATA repetition_results.sh MODEL.gguf [POMONA]
set -euo pipefail
model=$1; pomona=${2:-target/release/pomona}
text=${POMONA_DATA:?the folder that has text/wikitext-2/valid.txt}/text/wikitext-2/valid.txt
out=docs/results/repetition; work=${WORK:-target/repetition-results}
mkdir -p "$out" "$work"
row() { # name, model, how it was made, flags of the decoder
  local name=$1 target=$2 made=$3; shift 3
  [ -s "$out/$name.json" ] && return
  "$pomona" -q --json eval "$target" --task repetition --data "$text:1881-3760" "$@" > "$work/eval.json"
  python3 - "$out/$name.json" "$work/eval.json" "$name" "${made}pomona eval MODEL --task repetition --data valid.txt:1881-3760 $*" <<'PY'
import json, os, sys, time
file, evaluation, name, command = sys.argv[1:]
found = json.load(open(evaluation))
for key in ("seconds", "tokens_per_second"):
    found.pop(key)
row = {"name": name, **found, "command": command, "date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores"}
json.dump(row, open(file + ".part", "w"), indent=1, ensure_ascii=False)
os.replace(file + ".part", file)
print(f"{name}: repeated {100 * row['repeated']:.2f} %, in the data {100 * row['data_repeated']:.2f} %, "
      f"{row['ending_in_a_loop']} of {row['prompts']} end in a loop")
PY
}
rows() { # name, model, how it was made
  row "$1-greedy" "$2" "$3" --windows 32
  row "$1-sampled" "$2" "$3" --windows 32 --temperature 1 --top-k 50 --top-p 0.95
}
rows dense "$model" ""
scores="$work/scores.json"
"$pomona" -q --json score "$model" --criterion block-influence --data "$text:1-1880" -o "$scores" > /dev/null
for k in 3 6; do
  "$pomona" -q --json plan "$model" --scores "$scores" --target "blocks=$k" --force -o "$work/plan.json" > /dev/null
  "$pomona" -q apply "$model" --plan "$work/plan.json" -o "$work/cut" --format gguf --force > /dev/null
  rows "blocks-$k" "$work/cut" "pomona score DENSE --criterion block-influence --data valid.txt:1-1880 -o S; pomona plan DENSE --scores S --target blocks=$k -o P; pomona apply DENSE --plan P -o MODEL; "
done
rm -rf "$work/cut"
