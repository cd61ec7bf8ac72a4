#!/usr/bin/env bash
# Agreement in few steps: every bar one line, with what was measured and what is asked; exit status 1 if one is missed.
# 8 bits, one scale per output channel, integrate-and-fire, 256 calibration images and default options unless said: 16 bits
# and response-aware targets for acasxu. Takes about half an hour on two cores. Needs
# python3 with numpy. Usage: SYNFIT_DATA=DIR benches/agreement.sh [NAME ...]   (names as below; default all)
# SYNFIT=PATH: that binary instead of a fresh build.
set -euo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
[ -n "${SYNFIT:-}" ] || cargo build --release --quiet
synfit="${SYNFIT:-target/release/synfit}"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# shellcheck source=benches/data.sh
source benches/data.sh
wanted=("$@")
failed=0

# bar NAME SCHEDULE T BARS -- convert's arguments. BARS: comma-separated; agreement>=P, error<=P (percent), spikes<=N or
# <N an image, drop<=P (points of agreement below NAME's run at 8 bits with the same schedule and T). resnet20 at 4 and 3
# bits is asked for the bars of 8 bits less 1 and 3 points.
bar() {
    local name=$1 schedule=$2 steps=$3 bars=$4
    shift 5
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
    local bits=8 i
    for ((i = 1; i < $#; i++)); do [ "${!i}" = --bits ] && i=$((i + 1)) && bits=${!i}; done
    if ! "$synfit" convert "$@" --schedule "$schedule" --steps "$steps" --out "$out/result" --json \
        >"$out/$name.$schedule.$steps.$bits.json" 2>"$out/log"; then
        echo "$name: $(tail -n 1 "$out/log")"
        failed=1
        return
    fi
    python3 benches/agreement.py "$out" "$name" "$schedule" "$steps" "$bits" "$bars" || failed=1
}

net=(--model "$networks/cifar10_resnet20_conv1x1.onnx" "${resnet20[@]}")
for bits in 8 4 3; do
    for row in layered:4:80 layered:8:90 layered:16:94 layered:32:97 streaming:8:80 streaming:16:88 streaming:32:94; do
        IFS=: read -r schedule steps least <<<"$row"
        case $bits in
            8) args=() ;;
            4) args=(--bits 4) least=$((least - 1)) ;;
            3) args=(--bits 3) least=$((least - 3)) ;;
        esac
        bars="agreement>=$least"
        [ "$steps" = 16 ] && bars+=",spikes<=400000"
        bar resnet20 "$schedule" "$steps" "$bars" -- "${net[@]}" "${args[@]}"
    done
done
bar resnet8 layered 32 "agreement>=92" -- --model "$networks/cifar10_resnet8.onnx" "${cifar[@]}"
bar nhwc_small streaming 32 "agreement>=95" -- --model "$networks/cifar10_nhwc_small.onnx" "${cifar[@]}" \
    --scale 0.00392156862745098

# The first half of the pictures to fit on, the other to test on.
if [ ${#wanted[@]} -eq 0 ] || [[ " ${wanted[*]} " == *" squeezenet10 "* ]]; then
    python3 - "$data/imagenet/pictures192_rgb_nhwc.npz" "$out/second.npz" <<'PY'
import sys
import numpy as np
with np.load(sys.argv[1]) as pictures:
    np.savez(sys.argv[2], images=pictures["images"][96:], labels=pictures["labels"][96:])
PY
fi
for row in 32:75 64:85; do
    bar squeezenet10 layered "${row%:*}" "agreement>=${row#*:}" -- --model "$networks/imagenet_squeezenet10.onnx" \
        --calibration "$data/imagenet/pictures192_rgb_nhwc.npz" --images 96 --test "$out/second.npz" --channels bgr \
        --mean 104,117,123
done

bar lenet layered 4 "agreement>=99.5,spikes<9000" -- --model "$networks/mnist_lenet_avgpool.onnx" "${mnist[@]}" --images 256
bar sigmoid_6x200 layered 32 "agreement>=99" -- --model "$networks/mnist_mlp_sigmoid_6x200.onnx" "${mnist[@]}" --images 256
bar mlp_256x4 layered 4 "agreement>=99" -- --model "$networks/mnist_mlp_256x4.onnx" "${mnist[@]}" --images 256
for which in 1_1 3_3; do
    for row in 128:95 256:97 1024:99; do
        bar "acasxu_$which" layered "${row%:*}" "agreement>=${row#*:}" -- --model "$networks/acasxu_$which.onnx" \
            "${acasxu[@]}" --images 256 --bits 16 --targets response
    done
done
bar cartpole layered 64 "agreement>=99" -- --model "$networks/cartpole_policy.onnx" "${cartpole[@]}" --images 256
bar lunarlander layered 64 "agreement>=99" -- --model "$networks/lunarlander_policy.onnx" "${lunarlander[@]}" --images 256
for row in toycar:toycar_autoencoder:streaming rul:rul_cnn_window20:layered; do
    IFS=: read -r name file schedule <<<"$row"
    bar "$name" "$schedule" 64 "error<=2" -- --model "$networks/$file.onnx" --calibration uniform:-1..1 --images 256 \
        --test-images 500 --decision none
done
exit $failed
