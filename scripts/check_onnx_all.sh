#!/bin/sh
# What is written as ONNX, in ONNX Runtime: every golden file (and others named on the command line) written again, against the
# original; every golden file cut by a plan, with random cuts of some, annotated rounding as pairs, and every architecture, against what
# the tests say they compute.
#   scripts/check_onnx_all.sh [FILE.onnx ...]
# POMONA: the program (target/release/pomona). PYTHON: with onnx, onnxruntime, numpy and safetensors. OPSETS: "17 22".
# CASES=no leaves out what needs cargo: cuts and architectures.
set -u
pomona=${POMONA:-target/release/pomona}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0
files=0
written=0
for file in "$here"/../crates/pomona-task/tests/goldens/onnx/*.onnx "$@"; do
    files=$((files + 1))
    for opset in ${OPSETS:-17 18 20 21 22}; do
        rm -rf "$out/o"
        if ! "$pomona" --quiet export "$file" -o "$out/o" --format onnx --opset "$opset" >"$out/log" 2>&1; then
            echo "FAILED to write $(basename "$file") as $opset: $(cat "$out/log")"
            bad=1
        elif ! "$python" "$here/check_onnx.py" "$out/o/model.onnx" --against "$file" --positive p,sigma >"$out/log" 2>&1; then
            echo "FAILED $(basename "$file") as $opset: $(tail -5 "$out/log")"
            bad=1
        else
            written=$((written + 1))
        fi
    done
    echo "checked $(basename "$file")"
done
echo "$files files, $written written again and equal"
if [ "${CASES:-yes}" = yes ]; then
    if ! (cd "$here/.." && POMONA_ONNX_OUT="$out/cases" cargo test --release --workspace \
        --test onnx_files --test onnx_cuts --test onnx_rounding --test onnx_architectures) >"$out/log" 2>&1; then
        echo "FAILED: $(tail -20 "$out/log")"
        bad=1
    fi
    "$python" "$here/check_onnx.py" --cases "$out/cases" >"$out/log" 2>&1 || bad=1
    grep FAILED "$out/log"
    for kind in planned cut rounded; do
        echo "$(grep -c "^${kind}_.*accepted" "$out/log") $kind files accepted"
    done
    echo "$(grep accepted "$out/log" | grep -cv "^planned_\|^cut_\|^rounded_") files of architectures accepted"
fi
exit $bad
