#!/usr/bin/env python3
"""synfit's box solver against an interior point row by row and scipy's bounded least squares, on lenet_fc1_box.

The problem: 1000 samples of 512 rates, 128 outputs, |w| at most a bound of the output, no bias. Prints the optimum of
each, the largest relative gap of a row to the interior point's optimum, and seconds of the calls alone, all in one run
on the same cores. scipy is slow: it solves every 16th output, and its time is scaled to all.

    pip install numpy scipy clarabel
    cargo build --release
    SYNFIT_DATA=DIR python3 benches/box.py [--synfit target/release/synfit]

Exit code 1 if a bar is missed: a row's gap above 1e-6; more than 1/50 of Clarabel's seconds, or 1/500 of scipy's.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import clarabel
import numpy as np
from scipy import sparse
from scipy.optimize import lsq_linear


def interior_point(x, t, bound):
    """Row by row: min 1/2 w 2H w - 2 b w with -bound <= w <= bound. (weights, seconds)."""
    n = x.shape[1]
    h, b = x.T @ x, t.T @ x
    p = sparse.csc_matrix(np.triu(2 * h))
    a = sparse.vstack([sparse.identity(n), -sparse.identity(n)], format="csc")
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    begun = time.perf_counter()
    rows = []
    for o, limit in enumerate(bound):
        solver = clarabel.DefaultSolver(p, -2 * b[o], a, np.full(2 * n, limit), [clarabel.NonnegativeConeT(2 * n)], settings)
        rows.append(np.array(solver.solve().x))
    return np.array(rows), time.perf_counter() - begun


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--synfit", default="target/release/synfit")
    arguments.add_argument("--runs", type=int, default=5)
    args = arguments.parse_args()
    problem = pathlib.Path(os.environ["SYNFIT_DATA"]) / "problems/lenet_fc1_box.npz"
    z = np.load(problem)
    x, t, bound = z["x"].astype(np.float64), z["t"].astype(np.float64), z["upper"].astype(np.float64)
    assert np.array_equal(z["lower"], -z["upper"])
    errors = lambda w: np.sum((x @ w.T - t) ** 2, axis=0)

    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "w.npz"
        for _ in range(args.runs):
            done = subprocess.run(
                [args.synfit, "solve", problem, "--no-bias", "--out", result], capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(done.stderr)
            seconds.append(json.loads(done.stdout)["seconds"])
        own = np.load(result)["w"]
    ours = statistics.median(seconds)
    inside = np.max(np.abs(own) - bound[:, None])
    print(f"synfit        objective {np.sum(errors(own)):.8f}, {ours:.3f} s (median of {args.runs}); beyond the box by {max(inside, 0):.1e}")

    w, peer = interior_point(x, t, bound)
    best = errors(np.clip(w, -bound[:, None], bound[:, None]))
    gaps = (errors(own) - best) / best
    print(f"Clarabel      objective {np.sum(best):.8f}, {peer:.2f} s: {peer / ours:.0f} times; largest gap of a row {np.max(gaps):.1e}")

    chosen = range(0, len(bound), 16)
    begun = time.perf_counter()
    for o in chosen:
        lsq_linear(x, t[:, o], (-bound[o], bound[o]), method="bvls")
    scipy = (time.perf_counter() - begun) * len(bound) / len(chosen)
    print(f"scipy (bvls)  {len(chosen)} outputs, scaled to {len(bound)}: {scipy:.1f} s: {scipy / ours:.0f} times")

    ok = np.max(gaps) <= 1e-6 and inside <= 0 and peer >= 50 * ours and scipy >= 500 * ours
    print(f"{'ok' if ok else 'MISS'}: bars: gap 1e-6, 50 times Clarabel, 500 times scipy")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
