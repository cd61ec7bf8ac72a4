#!/usr/bin/env python3
"""What each lever is worth: cifar10_resnet20 converted with default options, and with one option put back at a time, for
8, 16 and 32 steps, on three sets of 256 calibration images (0..255, 256..511, 512..767 of the training images; the run's
seed is the set's number) and the same test images, 500 if not said otherwise. Prints a line a run, then a table for each
schedule: means over the sets of agreement and relative error, and what each lever gains: the mean difference of the
default run to the run without it, and its least and largest over the sets. Needs python3 with numpy; takes about two
hours on two cores.
Usage: benches/levers.py SYNFIT DATA [--schedule streaming|layered] [--steps 8,16,32] [--sets 0,1,2] [--bits 8]
  [--test-images N] [--base=OPTIONS of every run] [--only LEVER,..]"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

# What is put back, and the options that do it. A ridge of 1e6 keeps the trained weights: biases alone are fitted.
COMMON = [
    ("default", []),  # of --base, if there is one
    ("least squares", ["--ridge", "1e6"]),
    ("measured rates", ["--response", "analytic"]),
    ("ridge by cross-validation", ["--ridge", "0"]),
    ("a weight scale per channel", ["--bits-scale", "layer"]),
    ("equalized thresholds", ["--equalize", "off"]),  # at 4 bits or fewer
]
LEVERS = {
    "streaming": COMMON + [
        ("response-aware targets", ["--targets", "linear"]),
        ("calibrated initial potentials", ["--initial-potential", "half"]),
        ("a settling step", ["--settle", "0"]),
        ("one neuron a unit", ["--per-unit", "2"]),
    ],
    "layered": COMMON + [
        ("linear targets", ["--targets", "response"]),
        ("remainder layers", ["--remainder", "off"]),
        ("finer remainders", ["--remainder", "2"]),
    ],
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("synfit")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--schedule", choices=list(LEVERS))
    parser.add_argument("--steps", default="8,16,32")
    parser.add_argument("--sets", default="0,1,2")
    parser.add_argument("--bits", default="8")
    parser.add_argument("--test-images", default="500")
    parser.add_argument("--base", default="", help="options of every run")
    parser.add_argument("--only", default="", help="levers' names with commas, instead of all")
    args = parser.parse_args()
    numbers = lambda text: [int(part) for part in text.split(",")]
    images = np.load(args.data / "cifar10/train2000_images.npy", mmap_mode="r")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for part in numbers(args.sets):
            np.save(folder / f"{part}.npy", images[256 * part : 256 * (part + 1)])
        for schedule in [args.schedule] if args.schedule else LEVERS:
            table(args, folder, schedule, numbers(args.steps), numbers(args.sets))


def table(args, folder, schedule, steps, sets):
    runs = {}
    only = args.only.split(",") if args.only else [name for name, _ in LEVERS[schedule]]
    unknown = set(only) - {name for name, _ in LEVERS[schedule]}
    if unknown:
        sys.exit(f"{schedule} has no lever {', '.join(unknown)}")
    # what every run has is no lever
    set_already = args.base.split()
    levers = [(name, options) for name, options in LEVERS[schedule]
              if name in ["default", *only] and not (options and options[0] in set_already)]
    for part in sets:
        for t in steps:
            for name, options in levers:
                test = convert(args, folder, schedule, t, part, options)
                runs[name, t, part] = 100 * test["agreement"], test["relative_error"], test["spikes_per_image"]
                print(f"# {schedule} T={t} set {part} {name}: {runs[name, t, part][0]:.2f} %, "
                      f"{runs[name, t, part][1]:.4f}, {runs[name, t, part][2]:.0f} spikes", file=sys.stderr, flush=True)
    mean = lambda name, t, what: np.mean([runs[name, t, part][what] for part in sets])
    print(f"\n| {schedule}: lever | put back by | " + " | ".join(f"T = {t}" for t in steps) + " |")
    print("|---" * (2 + len(steps)) + "|")
    for name, options in levers:
        cells = []
        for t in steps:
            cell = f"{mean(name, t, 0):.1f} % ({mean(name, t, 1):.3f})"
            if options:
                gains = [runs["default", t, part][0] - runs[name, t, part][0] for part in sets]
                cell += f", gains {np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"
            cells.append(cell)
        option = f"`{' '.join(options)}`" if options else ""
        print(f"| {name} | {option} | " + " | ".join(cells) + " |", flush=True)


def convert(args, folder, schedule, steps, part, options):
    command = [args.synfit, "convert", "--model", args.data / "networks/cifar10_resnet20_conv1x1.onnx",
               "--calibration", folder / f"{part}.npy", "--test", args.data / "cifar10/test2000_images.npy",
               "--labels", args.data / "cifar10/test2000_labels.npy", "--test-images", args.test_images,
               "--scale", "0.00392156862745098", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225",
               "--bits", args.bits, "--schedule", schedule, "--steps", str(steps), "--seed", str(part),
               "--device", "cpu", "--out", folder / "result", "--json", *args.base.split(), *options]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(options)}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)["test"]


main()
