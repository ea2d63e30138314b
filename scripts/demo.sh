#!/usr/bin/env bash
# The main job: three of SmolLM2-135M's thirty blocks go; what it cost and what it won stands side by side.
# With $POMONA_DATA, text from there calibrates and evaluates; without, text that the dense model writes, from one seed
# for calibration and another for evaluation.
set -euo pipefail
cd "$(dirname "$0")/.."
models=${POMONA_MODELS:-target/models}
out=target/demo/smollm2-27-blocks
scripts/fetch-smollm2.sh "$models"
model=$models/SmolLM2-135M-Instruct.Q4_1.gguf
# As the tests build it, so that neither builds the dependencies again.
cargo build --release --workspace --bins --examples
pomona=target/release/pomona
calibration=(); evaluation=(--text-from "$model" --seed 4321 --tokens 256)
if [ -n "${POMONA_DATA:-}" ]; then
  text=$POMONA_DATA/text/wikitext-2/valid.txt
  calibration=(--data "$text:1-1880"); evaluation=(--data "$text:1881-3760")
fi
rm -rf target/demo; mkdir -p target/demo
"$pomona" compress "$model" --method depth --criterion perplexity --target blocks=3 "${calibration[@]}" -o "$out" --force
for which in dense pruned; do
  this=$model; [ "$which" = pruned ] && this=$out
  "$pomona" --json eval "$this" --task perplexity --windows 16 "${evaluation[@]}" > "target/demo/$which.eval.json"
  "$pomona" --json generate "$this" --chat --prompt "What is the capital of France?" --new-tokens 32 > "target/demo/$which.text.json"
  "$pomona" --json inspect "$this" > "target/demo/$which.cost.json"
done
python3 - <<'PY'
import json
def read(which, what): return json.load(open(f"target/demo/{which}.{what}.json"))
rows = [("", "dense", "pruned")]
cost = [read(w, "cost") for w in ("dense", "pruned")]
rows.append(("parameters", *(f"{c['parameters']:,}" for c in cost)))
rows.append(("MACs, 128 tokens", *(f"{c['macs']['full'] / 1e9:.2f} G" for c in cost)))
evals = [read(w, "eval") for w in ("dense", "pruned")]
rows.append(("perplexity", *(f"{e['perplexity']:.2f}" for e in evals)))
texts = [read(w, "text") for w in ("dense", "pruned")]
rows.append(("tokens/s", *(f"{t['tokens_per_second']:.1f}" for t in texts)))
print()
for name, *cells in rows: print(f"{name:<18}" + "".join(f"{c:>16}" for c in cells))
print(f"\nperplexity on {evals[0]['windows']} windows of {evals[0]['tokens']} tokens: {evals[0]['source']}")
for which, t in zip(("dense ", "pruned"), texts): print(f"{which} says: {t['text'].strip()!r}")
PY
