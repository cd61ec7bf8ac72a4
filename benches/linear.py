#!/usr/bin/env python3
"""CPU-seconds and peak memory of a conversion over the number of calibration images.

    python3 benches/linear.py SYNFIT DATA [--images N,N,N,N] [--runs N]

SYNFIT: the release binary; DATA: the folder of shared networks and data. Converts cifar10_resnet20_conv1x1 at 8 steps on the
CPU path with each number of images (one test image), takes the median of the runs (all sizes once a run, in turn), and fits
seconds = fixed + slope * images by least squares. Linear: no size is farther than a tenth from the line. Flat: peak memory
stays within a tenth of the smallest size's. Exit status 1 if either fails. Needs numpy.
"""

import argparse
import json
import resource
import statistics
import subprocess
import tempfile

import numpy as np


def convert(binary, data, images):
    """CPU-seconds and MiB."""
    cifar = f"{data}/cifar10"
    command = [binary, "convert", "--model", f"{data}/networks/cifar10_resnet20_conv1x1.onnx", "--steps", "8"]
    command += ["--images", str(images), "--test-images", "1", "--device", "cpu", "--json"]
    command += ["--calibration", f"{cifar}/train2000_images.npy", "--test", f"{cifar}/test2000_images.npy"]
    command += ["--scale", str(1 / 255), "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    with tempfile.TemporaryDirectory() as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(command + ["--out", f"{out}/r"], check=True, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(ran.stdout)["peak_memory"]["host_bytes"] / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synfit")
    parser.add_argument("data")
    parser.add_argument("--images", default="500,1000,1500,2000")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    sizes = [int(n) for n in args.images.split(",")]
    runs = [[convert(args.synfit, args.data, n) for n in sizes] for _ in range(args.runs)]
    seconds = [statistics.median(run[i][0] for run in runs) for i in range(len(sizes))]
    memory = [statistics.median(run[i][1] for run in runs) for i in range(len(sizes))]
    slope, fixed = np.polyfit(sizes, seconds, 1)
    print(f"seconds = {fixed:.2f} + {1000 * slope:.2f} per 1000 images")
    off = [abs(s - fixed - slope * n) / s for s, n in zip(seconds, sizes)]
    for n, s, o, m in zip(sizes, seconds, off, memory):
        print(f"{n:6} images: {s:7.2f} CPU-s, {100 * o:.1f} % from the line, {m:.1f} MiB")
    linear, flat = max(off) <= 0.1, max(memory) <= 1.1 * memory[0]
    print(f"linear: {'yes' if linear else 'NO'}; memory flat: {'yes' if flat else 'NO'}")
    raise SystemExit(0 if linear and flat else 1)


if __name__ == "__main__":
    main()
