#!/usr/bin/env bash
# Whole conversions on the GPU (a software one where there is no other) against the CPU on as many images as the
# project's bars ask for: layer errors within 1 %, agreement within 0.5 points, the finished network's spikes the same.
# Prints every layer's errors. Takes some minutes. Usage: SYNFIT_DATA=DIR benches/parity.sh
set -euo pipefail
cd "$(dirname "$0")/.."
: "${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
export SYNFIT_DATA_REQUIRED=1 SYNFIT_PARITY=full
cargo test --release --test conversion_parity -- --nocapture --test-threads=1
