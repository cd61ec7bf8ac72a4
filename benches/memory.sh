#!/usr/bin/env bash
# Peak memory must not grow with the number of calibration images: resnet20 with 500 and with 2000, at most 10 % apart.
# Usage: SYNFIT_DATA=DIR benches/memory.sh
set -euo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
cargo build --release --quiet
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for images in 500 2000; do
    target/release/synfit convert --model "$data/networks/cifar10_resnet20_conv1x1.onnx" \
        --calibration "$data/cifar10/train2000_images.npy" --images $images --test-images 100 \
        --test "$data/cifar10/test2000_images.npy" --scale 0.00392156862745098 \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --steps 8 --out "$out/$images" --json >"$out/$images.json"
done
python3 - "$out/500.json" "$out/2000.json" <<'PY'
import json, sys
small, large = (json.load(open(p))["peak_memory"]["host_bytes"] for p in sys.argv[1:])
print(f"peak resident memory: 500 images {small / 2**20:.1f} MiB, 2000 images {large / 2**20:.1f} MiB, ratio {large / small:.3f}")
sys.exit(large > 1.1 * small)
PY
