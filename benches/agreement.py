#!/usr/bin/env python3
"""Holds one conversion's report to its bars, for agreement.sh: FOLDER NAME SCHEDULE T BITS BARS; one line a bar."""
import json
import operator
import re
import sys

COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def main(folder, name, schedule, steps, bits, bars):
    def report(bits):
        with open(f"{folder}/{name}.{schedule}.{steps}.{bits}.json") as file:
            return json.load(file)

    def agreement(bits):
        return 100 * report(bits)["test"]["agreement"]

    this = report(bits)
    failed = False
    for bar in bars.split(","):
        what, sign, asked = re.fullmatch(r"(\w+)(>=|<=|<)([0-9.]+)", bar).groups()
        measured, unit = {
            "agreement": lambda: (agreement(bits), "%"),
            "error": lambda: (100 * this["test"]["relative_error"], "%"),
            "spikes": lambda: (this["test"]["spikes_per_image"], "an image"),
            "drop": lambda: (agreement("8") - agreement(bits), f"points ({agreement(bits):.2f} %)"),
        }[what]()
        good = COMPARE[sign](measured, float(asked) + (1e-9 if sign == "<=" else -1e-9 if sign == ">=" else 0))
        failed |= not good
        print(f"{name:14} {bits:>4} bits  T={steps:<5} {schedule:10} {what} {measured:.2f} {unit}, asked {sign} {asked}: "
              f"{'ok' if good else 'MISSED'}  (latency {this['latency']} steps, {this['test']['spikes_per_image']:.0f} "
              f"spikes an image, {this['seconds']['total']:.1f} s)", flush=True)
    return failed


sys.exit(main(*sys.argv[1:]))
