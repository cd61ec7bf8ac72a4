#!/usr/bin/env bash
# LeNet under each chip's constraints on weights, thresholds and biases, at T = 32: the chip's file without its sizes, so that
# the network fits. Agreement, and the layer in which the stored weights gain least over rounding to nearest under the same
# constraint. A chip with programming noise is fitted without knowing it (--noise test), as the others are, and then again
# knowing it. Needs python3. Usage: SYNFIT_DATA=DIR benches/chips.sh [CHIP ...]
# SYNFIT=PATH: that binary instead of a fresh build.
set -euo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
[ -n "${SYNFIT:-}" ] || cargo build --release --quiet
synfit="${SYNFIT:-target/release/synfit}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
[ $# -gt 0 ] || set -- loihi1 loihi2 speck spinnaker1 brainscales2 akida1000 odin reckon rram analog dynapse2 xylo-audio3 truenorth
for chip in "$@"; do
    "$synfit" chips "$chip" | awk '/^\[/ { kept = !/^\[(core|chip|layer|array|energy)\]/ } BEGIN { kept = 1 } kept' >"$out/$chip.toml"
    for noise in test fit; do
        if [ $noise = fit ] && ! grep -q '^programming' "$out/$chip.toml"; then continue; fi
        "$synfit" convert --model "$data/networks/mnist_lenet_avgpool.onnx" \
            --calibration "$data/mnist/train-images-idx3-ubyte.gz" --images 500 \
            --test "$data/mnist/t10k-images-idx3-ubyte.gz" --labels "$data/mnist/t10k-labels-idx1-ubyte.gz" --test-images 1000 \
            --scale 0.00392157 --steps 32 --noise $noise --chip "$out/$chip.toml" --device cpu --out "$out/$chip" |
            grep -E ' at T = |^under '
        python3 - "$out/$chip/report.json" <<'END'
import json, sys

layers = json.load(open(sys.argv[1]))["layers"]
ratios = [(l["error"]["grid"] / l["error"]["round"], l["name"]) for l in layers if l["error"]["round"] > 0]
print("    worst layer: %.6f of rounding to nearest (%s)" % max(ratios) if ratios else "    no rounding")
END
    done
done
