#!/usr/bin/env python3
"""Gram matrix of 3 x 3 patches of 32 x 32 images: the CPU path beside PyTorch's unfold and matmul in f32.

    python3 benches/gram.py [--images 256] [--rounds 5]

256 images of 64 and 128 channels: 262,144 samples of n = 576 and 1152. Both run on all cores, in turns, each in a
process of its own; printed are medians, the median of the paired ratios, and the peak memory beyond the inputs. Of two
ways to write it in PyTorch (one product of all patches; a batch of products, summed) the faster counts for the time and
the leaner for the memory.
"""

import argparse
import json
import subprocess
import sys

import numpy as np

TORCH = """
import json, sys, time
import torch, torch.nn.functional as F
channels, images, way = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def status(name):
    return next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith(name))
x = torch.rand(images, channels, 32, 32) - 0.3
(torch.rand(64, 64) @ torch.rand(64, 64)).sum()
before, start = status('VmRSS'), time.perf_counter()
p = F.unfold(x, 3, padding=1)
if way == 'one':
    p = p.transpose(0, 1).reshape(p.shape[1], -1)
    h = p @ p.T
else:
    h = torch.bmm(p, p.transpose(1, 2)).sum(0)
print(json.dumps({'seconds': [time.perf_counter() - start], 'mib': status('VmHWM') - before}))
"""


def torch(channels, images, way):
    command = [sys.executable, "-c", TORCH, str(channels), str(images), way]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def synfit(channels, images, kind):
    command = ["cargo", "bench", "--quiet", "--bench", "gram", "--", str(channels), str(images), kind, "1"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for channels in (64, 128):
        runs = {"real": [], "counts": [], "one": [], "batch": []}
        for _ in range(args.rounds):
            for kind in ("real", "counts"):
                runs[kind].append(synfit(channels, args.images, kind))
            for way in ("one", "batch"):
                runs[way].append(torch(channels, args.images, way))
        seconds = {kind: np.array([r["seconds"][0] for r in rs]) for kind, rs in runs.items()}
        mib = {kind: max(r["mib"] for r in rs) for kind, rs in runs.items()}
        faster = min(("one", "batch"), key=lambda way: np.median(seconds[way]))
        leaner = min(mib["one"], mib["batch"])
        for kind in ("real", "counts"):
            print(
                f"n = {9 * channels}, {1024 * args.images} samples, {kind}: {np.median(seconds[kind]):.2f} s, "
                f"PyTorch {np.median(seconds[faster]):.2f} s, ratio {np.median(seconds[kind] / seconds[faster]):.2f} (asked 1); "
                f"{mib[kind]:.0f} MiB, PyTorch {leaner:.0f} MiB, ratio {mib[kind] / leaner:.3f} (asked 0.125); "
                f"error {max(r['error'] for r in runs[kind]):.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
