#!/usr/bin/env bash
# The bars of node pruning on real networks, one line each: what was asked, what was measured, and at every size the same
# network with nodes chosen by synapse magnitude and by mean rate and refitted alike. 8-bit weights, default options.
# Three calibration sets where that is cheap (MNIST: images 0.., 20000.. and 40000.. of the training set), twelve seeds of the
# policies' random inputs: at these sizes one set's agreement is within chance of another's.
# Then single synapses: the same masks' sizes, chosen by exact cost, by magnitude, and by magnitude times the input's spread.
# SYNFIT names another binary than this tree's.
# tuned: resnet20 again with --tune, on all images that there are; half an hour on two cores with other work beside it.
# Usage: SYNFIT_DATA=DIR benches/pruning.sh [lenet|mlp|acasxu|sweep|resnet|tuned|synapses ...]
set -euo pipefail
cd "$(dirname "$0")/.."
data="${SYNFIT_DATA:?set SYNFIT_DATA to the folder of shared networks and data}"
synfit=${SYNFIT:-target/release/synfit}
[ -n "${SYNFIT:-}" ] || cargo build --release --quiet
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
wanted=("$@")

asked() { [ ${#wanted[@]} -eq 0 ] || [[ " ${wanted[*]} " == *" $1 "* ]]; }

convert() {
    local name=$1
    shift
    "$synfit" convert "$@" --out "$out/$name" --json >"$out/$name.json" 2>"$out/log" || { cat "$out/log"; exit 1; }
}

# Conversions whose arguments hold @SET are made several times, with as many calibration sets (other images, or another
# seed: SETS); figures are then means over them.
sets() { [[ " $* " == *@SET* ]] && echo ${SETS:-0 1 2} || echo 0; }

# whole NAME convert's arguments: nothing is pruned.
whole() {
    local name=$1
    shift
    for set in $(sets "$@"); do
        convert "$name.$set" "${@//@SET/$set}"
    done
}

# bar NAME LEAST|-DROP SIZES -- convert's arguments: agreement of at least LEAST percent, or at most DROP points below
# the whole network's (converted before as NAME's first word). WAYS: others than cost to compare with.
bar() {
    local name=$1 least=$2 keep=$3
    shift 4
    for set in $(sets "$@"); do
        for by in cost ${WAYS-magnitude rate}; do
            convert "$name.$by.$set" "${@//@SET/$set}" --keep "$keep" --prune-by "$by"
        done
    done
    python3 - "$name" "$least" "$keep" "$out" "${WAYS-magnitude rate}" $(sets "$@") <<'PY' || failed=1
import json, sys
name, least, keep, out, ways = sys.argv[1:6]
sets = sys.argv[6:]
read = lambda n: [json.load(open(f"{out}/{n}.{s}.json")) for s in sets]
mean = lambda values: sum(values) / len(values)
by = {b: read(f"{name}.{b}") for b in ["cost", *ways.split()]}
each = {b: [100 * r["test"]["agreement"] for r in rs] for b, rs in by.items()}
error = {b: mean([r["test"]["relative_error"] for r in rs]) for b, rs in by.items()}
agreement = {b: mean(v) for b, v in each.items()}
whole = mean([100 * r["test"]["agreement"] for r in read(name.split("_")[0])])
bar = whole + float(least) if least.startswith("-") else float(least)
ok = agreement["cost"] >= bar - 1e-9
# by error: at these sizes agreements are often within chance of each other
better = all(error["cost"] < error[other] for other in ways.split())
told = ", ".join(f"{b} {agreement[b]:.2f} % ({', '.join(f'{v:.2f}' for v in each[b])}; error {error[b]:.3f})" for b in by)
size = keep if len(keep) < 30 else keep[:27] + "..."
print(f"{'ok  ' if ok and better else 'MISS'} {name:12} {size:30} T={by['cost'][0]['steps']:<4} whole {whole:.2f} %, bar {bar:.2f} %: {told}")
sys.exit(not (ok and better))
PY
}

# thin NAME OPTION SIZE -- convert's arguments: no bar but the other two ways.
thin() {
    local name=$1 option=$2 size=$3
    shift 4
    for by in cost magnitude rate; do
        convert "$name.$by" "$@" "$option" "$size" --prune-by "$by"
    done
    python3 - "$name" "$option $size" "$out" <<'PY' || failed=1
import json, sys
name, size, out = sys.argv[1:]
by = {b: json.load(open(f"{out}/{name}.{b}.json")) for b in ("cost", "magnitude", "rate")}
error = {b: r["test"]["relative_error"] for b, r in by.items()}
left = [l["sparse"] for l in by["cost"]["layers"] if l.get("sparse")]
density = 100 * sum(s["kept"] for s in left) / sum(s["of"] for s in left)
better = error["cost"] < min(error["magnitude"], error["rate"])
told = ", ".join(f"{b} {100 * r['test']['agreement']:.2f} % (error {error[b]:.3f}, {r['seconds']['convert']:.0f} s)" for b, r in by.items())
print(f"{'ok  ' if better else 'MISS'} {name:12} {size:20} {density:4.1f} % left: {told}")
sys.exit(not better)
PY
}

networks=$data/networks
# as in benches/bars.sh: an MLP wants more images
python3 - "$data/mnist/train-images-idx3-ubyte.gz" "$out" <<'PY'
import gzip, struct, sys
data, out = gzip.open(sys.argv[1]).read(), sys.argv[2]
_, _, rows, columns = struct.unpack(">4I", data[:16])
for part in range(3):
    for name, images in (("lenet", 1000), ("mlp", 10000)):
        first = 16 + 20000 * part * rows * columns
        with gzip.open(f"{out}/{name}{part}.idx.gz", "wb", 1) as file:
            file.write(data[:4] + struct.pack(">3I", images, rows, columns) + data[first : first + images * rows * columns])
PY
mnist=(
    --test "$data/mnist/t10k-images-idx3-ubyte.gz" --labels "$data/mnist/t10k-labels-idx1-ubyte.gz" --test-every 5
    --scale 0.00392156862745098 --steps 32)
lenet=(--model "$networks/mnist_lenet_avgpool.onnx" --calibration "$out/lenet@SET.idx.gz" "${mnist[@]}")
mlp=(--model "$networks/mnist_mlp_256x4.onnx" --calibration "$out/mlp@SET.idx.gz" "${mnist[@]}")
acasxu=(--model "$networks/acasxu_1_1.onnx" --calibration uniform:-0.5..0.5 --images 2000 --test-images 2000
    --seed @SET --decision argmin --steps 128)
cifar=(--model "$networks/cifar10_resnet20_conv1x1.onnx" --calibration "$data/cifar10/train2000_images.npy" --images 256
    --test "$data/cifar10/test2000_images.npy" --labels "$data/cifar10/test2000_labels.npy" --test-images 500
    --scale 0.00392156862745098 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --steps 32)
inner=$(printf '%s=75%%,' Conv_4 Conv_11 Conv_18 Conv_25 Conv_33 Conv_40 Conv_47 Conv_55 Conv_62)

if asked lenet; then
    whole lenet "${lenet[@]}"
    bar lenet_half 99 fc1=50%,conv2=50% -- "${lenet[@]}"
    bar lenet_fc1 97.5 fc1=25% -- "${lenet[@]}"
fi
if asked mlp; then
    whole mlp "${mlp[@]}"
    bar mlp_half 99 50% -- "${mlp[@]}"
fi
if asked acasxu; then
    SETS=$(echo {0..11})
    whole acasxu "${acasxu[@]}"
    bar acasxu_40 -5 40 -- "${acasxu[@]}"
    bar acasxu_25 0 25 -- "${acasxu[@]}" # only to compare the ways
    SETS=""
fi
if asked sweep; then
    [ -d "$out/lenet.0" ] || convert lenet.0 "${lenet[@]//@SET/0}"
    "$synfit" prune "$out/lenet.0" --sweep --keep fc1 --at none --json >"$out/sweep.json" 2>/dev/null
    python3 - "$out" <<'PY' || failed=1
import json, sys
out = sys.argv[1]
curve = json.load(open(f"{out}/sweep.json"))["layers"][0]
layer = next(l for l in json.load(open(f"{out}/lenet.0.json"))["layers"] if l["name"] == curve["layer"])
all_of_it = curve["seconds"] + curve["survey_seconds"]
ratio = all_of_it / layer["seconds"]
print(f"{'ok  ' if ratio <= 2 else 'MISS'} lenet sweep of fc1, {curve['nodes']} sizes: {all_of_it:.3f} s, of that {curve['survey_seconds']:.3f} s the pass over the images; one solve of the layer {layer['seconds']:.2f} s (ratio {ratio:.3f}, bar 2)")
sys.exit(ratio > 2)
PY
fi
if asked resnet; then
    whole resnet20 "${cifar[@]}"
    bar resnet20_inner -4 "${inner%,}" -- "${cifar[@]}"
fi
if asked tuned; then
    # 2000 calibration and 2000 test images
    all=("${cifar[@]/256/2000}")
    all=("${all[@]/500/2000}")
    whole tuned "${all[@]}"
    WAYS="" bar tuned_inner -4 "${inner%,}" -- "${all[@]}" --tune 50
fi
if asked synapses; then
    thin lenet --sparsity 0.8 -- "${lenet[@]//@SET/0}"
    thin lenet --sparsity 0.9 -- "${lenet[@]//@SET/0}"
    thin lenet --fan-in 20 -- "${lenet[@]//@SET/0}"
    thin lenet --pattern 2:4 -- "${lenet[@]//@SET/0}"
    thin resnet20 --sparsity 0.5 -- "${cifar[@]}"
    thin resnet20 --sparsity 0.75 -- "${cifar[@]}"
    thin resnet20 --pattern 2:4 -- "${cifar[@]}"
fi
exit $failed
