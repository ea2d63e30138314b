#!/bin/sh
# Writes every golden ONNX file (and others named on the command line) again and compares both in ONNX Runtime.
#   scripts/check_onnx_all.sh [FILE.onnx ...]
# POMONA: the program (target/release/pomona). PYTHON: with onnx, onnxruntime and numpy. OPSETS: "17 22".
set -u
pomona=${POMONA:-target/release/pomona}
python=${PYTHON:-python3}
here=$(dirname "$0")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0
for file in "$here"/../crates/pomona-task/tests/goldens/onnx/*.onnx "$@"; do
    for opset in ${OPSETS:-17 18 20 21 22}; do
        rm -rf "$out/o"
        if ! "$pomona" --quiet export "$file" -o "$out/o" --format onnx --opset "$opset" >"$out/log" 2>&1; then
            echo "FAILED to write $(basename "$file") as $opset: $(cat "$out/log")"
            bad=1
        elif ! "$python" "$here/check_onnx.py" "$out/o/model.onnx" --against "$file" --positive p,sigma >"$out/log" 2>&1; then
            echo "FAILED $(basename "$file") as $opset: $(tail -5 "$out/log")"
            bad=1
        fi
    done
    echo "checked $(basename "$file")"
done
exit $bad
