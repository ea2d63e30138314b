#!/usr/bin/env bash
# All tests. SmolLM2-135M is fetched once: some tests run on it.
set -euo pipefail
cd "$(dirname "$0")/.."
models=${POMONA_MODELS:-target/models}
scripts/fetch-smollm2.sh "$models"
POMONA_SMOLLM2=$(cd "$models" && pwd)/SmolLM2-135M-Instruct.Q4_1.gguf
export POMONA_SMOLLM2
cargo test --release --workspace "$@"
