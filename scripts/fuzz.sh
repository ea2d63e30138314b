#!/usr/bin/env bash
# Every fuzz target for SECONDS each, from the seeds of the tests; what was found before is kept in target/fuzz/corpus.
#
# Usage: scripts/fuzz.sh SECONDS [TARGET..]
# Builds with the coverage that libFuzzer needs (no nightly compiler, no cargo-fuzz). Prints one JSON document with runs and
# seconds of each target; inputs that break something lie in target/fuzz/found. Exits with 1 where there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET..]}
shift
# These stand above the executor, whose dependencies take minutes to build with coverage.
data=(scores sounds pictures captions questions schedule tokens)
all=(safetensors safetensors_index gguf torch_zip torch_legacy pickle onnx config tokenizer plan "${data[@]}")
targets=("${@:-${all[@]}}")
here=target/fuzz
seeds=$here/seeds
triple=$(rustc -vV | sed -n 's/^host: //p')

if [ ! -d "$seeds/scores" ]; then
    cargo build --release --workspace --bins --examples >&2
    target/release/examples/fuzz_seeds "$seeds" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    pomona() { target/release/pomona -q "$@" >&2; }
    pomona init fuzz/src/llama.json --seed 5 -o "$work/model"
    mkdir -p "$seeds/plan" "$seeds/scores"
    for criterion in magnitude random; do
        for unit in block sublayer; do
            name=$criterion-$unit
            pomona score "$work/model" --criterion $criterion --unit $unit --protect 1,1 -o "$seeds/scores/$name"
            pomona plan "$work/model" --scores "$seeds/scores/$name" --target blocks=2 -o "$seeds/plan/$name"
        done
    done
    pomona score "$work/model" --method filters --criterion l1 -o "$work/filters"
    pomona plan "$work/model" --method filters --scores "$work/filters" --target params=80% -o "$seeds/plan/filters"
fi
cp -r fuzz/seeds/. "$seeds"

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# As cargo-fuzz does: libraries that know this leave out checksums, which no change of an input would pass.
coverage+=" --cfg fuzzing"
features=
for target in "${targets[@]}"; do
    [[ " ${data[*]} " == *" $target "* ]] && features=data
done
RUSTFLAGS=$coverage CARGO_TARGET_DIR=$here/build cargo build --release --manifest-path fuzz/Cargo.toml --target "$triple" \
    --features "$features" $(printf -- '--bin %s ' "${targets[@]}") >&2

broken=0
rows=()
mkdir -p $here/found
for target in "${targets[@]}"; do
    mkdir -p "$here/corpus/$target"
    log=$here/$target.log
    status=0
    # A run that is stopped by a finding goes on with what is left of its time.
    began=$SECONDS runs=0 findings=0
    while left=$((seconds - (SECONDS - began))); [ "$left" -gt 0 ]; do
        "$here/build/$triple/release/$target" "$here/corpus/$target" "$seeds/$target" -max_total_time="$left" \
            -rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=20 -print_final_stats=1 -verbosity=0 \
            -artifact_prefix="$here/found/$target-" 2>"$log" &
        process=$!
        wait $process || status=$?
        # Its own only: another script may run beside this one.
        rm -rf /dev/shm/pomona-fuzz-$process
        runs=$((runs + $(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)))
        [ "$status" = 0 ] && break
        findings=$((findings + 1)) status=0 broken=1
        tail -40 "$log" >&2
        [ "$findings" -ge 5 ] && break
    done
    rows+=("  \"$target\": {\"seconds\": $((SECONDS - began)), \"executions\": $runs, \"findings\": $findings}")
    echo "$target: $runs runs, $findings findings" >&2
done
printf '{\n "command": "scripts/fuzz.sh %s",\n "machine": "%s cores, one used",\n "date": "%s",\n "targets": {\n' \
    "$seconds" "$(nproc)" "$(date -u +%F)"
(IFS=$'\n'; printf '%s' "${rows[*]}" | sed '$!s/$/,/')
printf '\n }\n}\n'
exit $broken
