#!/usr/bin/env bash
# LeNet under each chip's constraints on weights, thresholds and biases, at T = 32: the chip's file without its sizes, so that
# the network fits. Usage: SYNFIT_DATA=DIR benches/chips.sh [CHIP ...]
set -euo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
cargo build --release --quiet
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
[ $# -gt 0 ] || set -- loihi1 loihi2 speck spinnaker1 brainscales2 akida1000 odin reckon rram analog dynapse2 xylo-audio3 truenorth
for chip in "$@"; do
    target/release/synfit chips "$chip" | awk '/^\[/ { kept = !/^\[(core|chip|layer|array|energy)\]/ } BEGIN { kept = 1 } kept' >"$out/$chip.toml"
    target/release/synfit convert --model "$data/networks/mnist_lenet_avgpool.onnx" \
        --calibration "$data/mnist/train-images-idx3-ubyte.gz" --images 500 \
        --test "$data/mnist/t10k-images-idx3-ubyte.gz" --labels "$data/mnist/t10k-labels-idx1-ubyte.gz" --test-images 1000 \
        --scale 0.00392157 --steps 32 --chip "$out/$chip.toml" --device cpu --out "$out/$chip" | grep ' at T = '
done
