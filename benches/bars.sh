#!/usr/bin/env bash
# The agreement bars of the main job on real networks, one line each: what was asked, what was measured. Takes about
# ten minutes on two cores. Usage: SYNFIT_DATA=DIR benches/bars.sh [NAME ...]   (names as below; default all)
set -euo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
cargo build --release --quiet
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0

# bar NAME LEAST -- convert's arguments: agreement on the test images must be LEAST (percent) or more.
bar() {
    local name=$1 least=$2
    shift 3
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
    target/release/synfit convert "$@" --out "$out/$name" --json >"$out/$name.json" 2>/dev/null
    python3 - "$name" "$least" "$out/$name.json" <<'PY' || failed=1
import json, sys
name, least, report = sys.argv[1], float(sys.argv[2]), json.load(open(sys.argv[3]))
t = report["test"]
agreement = 100 * t["agreement"]
ok = agreement >= least - 1e-9
print(f"{'ok  ' if ok else 'MISS'} {name:28} T={report['steps']:<4} agreement {agreement:6.2f} % (bar {least} %), "
      f"{t['spikes_per_image']:.0f} spikes/image, {report['seconds']['total']:.1f} s")
sys.exit(not ok)
PY
}

wanted=("$@")
# shellcheck source=benches/data.sh
source benches/data.sh
digits=(--model configs/digits/digits_cnn.onnx --calibration configs/digits/train_images.npy
    --test configs/digits/test_images.npy --labels configs/digits/test_labels.npy --scale 0.0625)

bar digits 99 -- "${digits[@]}" --steps 16
bar lenet16 99.5 -- --model "$networks/mnist_lenet_avgpool.onnx" "${mnist[@]}" --images 1000 --steps 16
bar lenet32 99.8 -- --model "$networks/mnist_lenet_avgpool.onnx" "${mnist[@]}" --images 1000 --steps 32
# 16 steps leave an MLP little room: more images than the others' 1000 fit it better.
bar mlp16 99.5 -- --model "$networks/mnist_mlp_256x4.onnx" "${mnist[@]}" --images 10000 --steps 16
bar maxpool32 99 -- --model "$networks/mnist_conv_maxpool.onnx" "${mnist[@]}" --images 1000 --steps 32
bar wonnx32 99 -- --model "$networks/mnist_wonnx.onnx" "${mnist[@]}" --images 1000 --steps 32
bar sigmoid64 98 -- --model "$networks/mnist_mlp_sigmoid_6x200.onnx" "${mnist[@]}" --images 1000 --steps 64
bar acasxu128 85 -- --model "$networks/acasxu_1_1.onnx" "${acasxu[@]}" --images 2000 --steps 128
bar cartpole64 98 -- --model "$networks/cartpole_policy.onnx" "${cartpole[@]}" --images 2000 --steps 64
for form in conv1x1 slicepad; do
    bar "resnet20_${form}_8" 68 -- --model "$networks/cifar10_resnet20_$form.onnx" "${resnet20[@]}" --steps 8
    bar "resnet20_${form}_16" 78 -- --model "$networks/cifar10_resnet20_$form.onnx" "${resnet20[@]}" --steps 16
    bar "resnet20_${form}_32" 87 -- --model "$networks/cifar10_resnet20_$form.onnx" "${resnet20[@]}" --steps 32
done
exit $failed
