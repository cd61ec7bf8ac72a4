#!/usr/bin/env bash
# Converts every network of the shared data, on random inputs where there is no data for it, and expects the refusal
# of the `unsupported_*`. One line each. Takes about ten minutes on two cores. Usage: SYNFIT_DATA=DIR benches/networks.sh
set -uo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
cargo build --release --quiet || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0

random=(--calibration uniform:0..1 --images 64 --test-images 64)
centred=(--calibration uniform:-1..1 --images 256 --test-images 256)
policy=(--calibration uniform:-0.5..0.5 --images 1000 --test-images 1000)
mnist=(--calibration "$data/mnist/train-images-idx3-ubyte.gz" --images 256 --test "$data/mnist/t10k-images-idx3-ubyte.gz"
    --labels "$data/mnist/t10k-labels-idx1-ubyte.gz" --test-images 256 --scale 0.00392156862745098)
cifar=(--calibration "$data/cifar10/train2000_images.npy" --images 128 --test "$data/cifar10/test2000_images.npy"
    --labels "$data/cifar10/test2000_labels.npy" --test-images 128)

for model in "$data"/networks/*.onnx; do
    name=$(basename "$model" .onnx)
    args=("${random[@]}")
    case $name in
    mnist_*) args=("${mnist[@]}") ;;
    cifar10_resnet20*) args=("${cifar[@]}" --scale 0.00392156862745098 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225) ;;
    cifar10_resnet8) args=("${cifar[@]}") ;;
    cifar10_*) args=("${cifar[@]}" --scale 0.00392156862745098) ;;
    acasxu_*) args=("${policy[@]}" --decision argmin) ;;
    *_policy) args=("${policy[@]}") ;;
    toycar* | rul* | wakeword*) args=("${centred[@]}") ;;
    imagenet*) args=(--calibration "$data/imagenet/pictures192_rgb_nhwc.npz" --test "$data/imagenet/pictures192_rgb_nhwc.npz"
        --channels bgr --mean 104,117,123 --images 16 --test-every 12) ;;
    esac
    if target/release/synfit convert --model "$model" "${args[@]}" --steps 16 --out "$out/$name" >"$out/log" 2>&1; then
        status=ok
        [[ $name == unsupported_* ]] && status=MISS && failed=1
        echo "$status   $(grep ' at T = ' "$out/log")"
    else
        status=MISS
        [[ $name == unsupported_* ]] && status="ok  "
        [ "$status" = MISS ] && failed=1
        echo "$status refused: $(grep '^error' "$out/log")"
    fi
    rm -rf "${out:?}/$name"
done
exit $failed
