#!/usr/bin/env python3
"""A straight PyTorch implementation of the conversion that `synfit convert` does, and CPU-seconds of both in one run.

    python3 benches/pipeline.py SYNFIT DATA [--images N] [--runs N]

SYNFIT: the release binary; DATA: the folder of shared networks and data. Needs torch, numpy and onnx. The network is
cifar10_resnet20_conv1x1 at 16 steps with 4-bit weights. Per layer, as in the Rust code but each step in the plainest
PyTorch: trained pre-activations; rates of the converted prefix; unfold and Gram matrix; ridge least squares towards the
trained weights; one scale an output searched on the true objective and error feedback through the Cholesky factor
(GPTQ's rounding); thresholds searched on samples; the layer simulated for 16 steps, initial potentials by trial.
Agreement with the trained network on 500 test images is printed for both. CPU-seconds are user and system time of the
conversion alone (PyTorch: one thread, without imports and test; synfit: the whole process with one test image).
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

STEPS, BITS, RIDGE = 16, 4, 1e-2
TRIED = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.6, 0.7]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def graph(path):
    """The layers in order: (name of the output, blocks of (source, weight, stride, padding), bias, fires)."""
    model = onnx.load(path).graph
    constants = {t.name: torch.tensor(numpy_helper.to_array(t).copy()) for t in model.initializer}
    read_by = {}
    for node in model.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    linear = {}  # of a value that is not yet rectified: blocks and bias
    same = {}  # values that are another value's
    layers = []
    for node in model.node:
        at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        i, o = [same.get(n, n) for n in node.input], node.output[0]
        if node.op_type == "Conv":
            w = constants[i[1]]
            bias = constants[i[2]] if len(i) > 2 else torch.zeros(len(w))
            linear[o] = ([(i[0], w, at.get("strides", [1, 1])[0], at.get("pads", [0])[0])], bias)
        elif node.op_type == "BatchNormalization":
            gain, shift, mean, var = (constants[n] for n in i[1:5])
            k = gain / torch.sqrt(var + at.get("epsilon", 1e-5))
            blocks, bias = linear[i[0]]
            linear[o] = ([(s, w * k[:, None, None, None], st, p) for s, w, st, p in blocks], (bias - mean) * k + shift)
        elif node.op_type == "Add":
            blocks, bias = [], 0
            for n in i:
                if n in linear:
                    blocks, bias = blocks + linear[n][0], bias + linear[n][1]
                else:  # an identity shortcut
                    c = next(len(l[2]) for l in layers if l[0] == n)
                    blocks = blocks + [(n, torch.eye(c)[:, :, None, None], 1, 0)]
            linear[o] = (blocks, bias)
        elif node.op_type == "Relu":
            layers.append((o, *linear[i[0]], True))
        elif node.op_type in ("GlobalAveragePool", "AveragePool"):
            same[o] = i[0]
        elif node.op_type in ("Flatten", "Reshape", "Identity", "Squeeze"):
            same[o] = i[0]
        elif node.op_type == "Gemm":
            w = constants[i[1]] if at.get("transB", 0) else constants[i[1]].T
            layers.append((o, [(i[0], w[:, :, None, None].contiguous(), 1, "mean")], constants[i[2]], False))
        elif node.op_type not in ("Constant", "Shape", "Gather", "Unsqueeze", "Concat"):
            raise SystemExit(f"{node.op_type} is not part of this benchmark's network")
    return model.input[0].name, layers


def conv(x, w, stride, padding):
    if padding == "mean":
        return x.mean((2, 3), keepdim=True).flatten(1) @ w.flatten(1).T
    return F.conv2d(x, w, stride=stride, padding=padding)


def patches(x, w, stride, padding):
    """[n, samples]"""
    if padding == "mean":
        return x.mean((2, 3)).T
    return F.unfold(x, w.shape[2:], padding=padding, stride=stride).transpose(0, 1).flatten(1)


def feedback(w, u, scale, top, block=32):
    """Codes of w by error feedback, as GPTQ: block after block of columns."""
    rest, q = w.clone(), torch.zeros_like(w)
    for first in range(0, w.shape[1], block):
        last = min(first + block, w.shape[1])
        part, errors = rest[:, first:last].clone(), torch.zeros(len(w), last - first, dtype=w.dtype)
        for j in range(last - first):
            code = (part[:, j] / scale).round_().clamp_(-top - 1, top)
            errors[:, j] = (part[:, j] - code * scale) / u[first + j, first + j]
            part[:, j + 1 :].addr_(errors[:, j], u[first + j, first + j + 1 : last], alpha=-1)
            q[:, first + j] = code
        rest[:, last:].addmm_(errors, u[first:last, last:], alpha=-1)
    return q


def rounded(w, h, top):
    """Error feedback, one scale an output chosen among several."""
    order = torch.argsort(torch.diagonal(h), descending=True)
    h, w = h[order][:, order], w[:, order]
    u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    shares = torch.linspace(0.4, 1.0, 16, dtype=w.dtype)
    scales = (w.abs().amax(1).clamp_min(1e-9) / top * shares[:, None]).flatten()
    # All scales at once.
    off = feedback(w.repeat(len(shares), 1), u, scales, top) * scales[:, None]
    far = off - w.repeat(len(shares), 1)
    cost = ((far @ h) * far).sum(1).view(len(shares), -1)
    best = off.view(len(shares), *w.shape)[cost.argmin(0), torch.arange(len(w))]
    return best[:, torch.argsort(order)]


def threshold(z):
    """Per channel of samples [channels, samples]: least squared error of the clipped and rounded response."""
    top = z.quantile(0.999, dim=1).clamp_min(1e-6)
    best, chosen = torch.full_like(top, torch.inf), top.clone()
    for k in range(41):
        theta = top * 0.25 * 1.05**k
        count = (STEPS * z / theta[:, None] + 0.5).floor().clamp(0, STEPS)
        error = ((theta[:, None] * count / STEPS - z.clamp_min(0)) ** 2).sum(1)
        better = error < best
        best[better], chosen[better] = error[better], theta[better]
    return chosen


def fire(current, initial):
    """Soft reset, one spike a step. current: a function of the step; initial: [channels]."""
    v, spikes = None, []
    for t in range(STEPS):
        j = current(t)
        v = initial.view(1, -1, 1, 1).expand_as(j).clone() if v is None else v
        v += j
        s = (v >= 1).float()
        v -= s
        spikes.append(s)
    return spikes


class Converted:
    """Layers (blocks with weights in thresholds, bias, initial potential, decoding) that run step by step."""

    def __init__(self):
        self.layers = {}

    def current(self, name, trains, t):
        blocks, bias, _, _ = self.layers[name]
        return sum(conv(trains[s][t % len(trains[s])], w, st, p) for s, w, st, p in blocks) + bias.view(1, -1, 1, 1)

    def layer(self, name, trains):
        return fire(lambda t: self.current(name, trains, t), self.layers[name][2])


def convert(source, layers, x, batch=64):
    net, generator = Converted(), torch.Generator().manual_seed(0)
    parts = x.split(batch)
    trained = {source: list(parts)}
    trains = {source: [[p] for p in parts]}  # constant
    decode = {source: torch.ones(3)}
    for index, (name, blocks, bias, fires) in enumerate(layers):
        weight = torch.cat([(w * decode[s].view(1, -1, 1, 1)).flatten(1) for s, w, _, _ in blocks], 1).double()
        n = weight.shape[1]
        h, b = torch.zeros(n, n, dtype=torch.double), torch.zeros(len(weight), n, dtype=torch.double)
        xs, ts, count, values, samples = torch.zeros(n).double(), torch.zeros(len(weight)).double(), 0, [], []
        for k in range(len(parts)):
            z = sum(conv(trained[s][k], w, st, p) for s, w, st, p in blocks)
            z = z + (bias.view(1, -1, 1, 1) if z.dim() == 4 else bias)
            rates = [sum(trains[s][k]) / len(trains[s][k]) for s, _, _, _ in blocks]
            a = torch.cat([patches(r, w, st, p) for r, (_, w, st, p) in zip(rates, blocks)])
            t = z.transpose(0, 1).flatten(1)
            h += (a @ a.T).double()
            b += (t @ a.T).double()
            xs, ts, count = xs + a.sum(1).double(), ts + t.sum(1).double(), count + a.shape[1]
            samples.append(t[:, torch.randint(t.shape[1], (512,), generator=generator)])
            values.append(z.clamp_min(0))
        h = h - torch.outer(xs, xs) / count
        b = b - torch.outer(ts, xs) / count
        ridge = RIDGE * torch.diagonal(h).mean()
        h.diagonal().add_(ridge)
        b += ridge * weight
        fitted = torch.cholesky_solve(b.T, torch.linalg.cholesky(h)).T
        q = rounded(fitted, h, 2 ** (BITS - 1) - 1)
        offset = (ts - q @ xs) / count
        theta = threshold(torch.cat(samples, 1)).double() if fires else torch.ones(len(q)).double()
        q, offset = (q / theta[:, None]).float(), (offset / theta).float()
        widths = [w[0].numel() for _, w, _, _ in blocks]
        placed = [(s, part.reshape(w.shape), st, p) for (s, w, st, p), part in zip(blocks, q.split(widths, 1))]
        net.layers[name] = (placed, offset, torch.full((len(q),), 0.5), fires)
        if not fires:
            break
        trained[name], decode[name] = values, theta.float()
        if index > 0:
            errors, seen = torch.zeros(len(TRIED), len(q)), 0
            for k in range(len(parts)):
                if seen >= 128:
                    break
                seen += len(parts[k])
                inputs = {s: trains[s][k] for s, _, _, _ in blocks}
                currents = [net.current(name, inputs, t) for t in range(STEPS)]
                for i, v0 in enumerate(TRIED):
                    rate = sum(fire(lambda t: currents[t], torch.full((len(q),), v0))) / STEPS
                    off = rate * decode[name].view(1, -1, 1, 1) - values[k]
                    errors[i] += (off**2).sum((0, 2, 3))
            best = torch.tensor(TRIED)[errors.argmin(0)]
            net.layers[name] = (placed, offset, best, fires)
        made = [net.layer(name, {s: trains[s][k] for s, _, _, _ in blocks}) for k in range(len(parts))]
        trains[name] = made
        # What nobody reads any more goes.
        later = {s for l in layers[index + 1 :] for s, _, _, _ in l[1]}
        for old in [s for s in trains if s not in later]:
            del trains[old], trained[old]
    return net


def decide(net, source, layers, x):
    trains = {source: [x]}
    for name, blocks, _, fires in layers:
        if fires:
            trains[name] = net.layer(name, trains)
            continue
        placed, offset, _, _ = net.layers[name]
        rates = [sum(trains[s]) / len(trains[s]) for s, _, _, _ in placed]
        return (sum(conv(r, w, st, p) for r, (_, w, st, p) in zip(rates, placed)) + offset).argmax(1)


def original(source, layers, x):
    values = {source: x}
    for name, blocks, bias, fires in layers:
        z = sum(conv(values[s], w, st, p) for s, w, st, p in blocks)
        values[name] = (z + bias.view(1, -1, 1, 1)).clamp_min(0) if fires else z + bias
    return values[layers[-1][0]].argmax(1)


def cpu(who=resource.RUSAGE_SELF):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def synfit(binary, data, images, test):
    cifar = f"{data}/cifar10"
    with tempfile.TemporaryDirectory() as out:
        command = [binary, "convert", "--model", f"{data}/networks/cifar10_resnet20_conv1x1.onnx", "--steps", str(STEPS)]
        command += ["--bits", str(BITS), "--images", str(images), "--test-images", str(test), "--device", "cpu"]
        command += ["--calibration", f"{cifar}/train2000_images.npy", "--test", f"{cifar}/test2000_images.npy"]
        # the same pipeline: the other has no response-aware targets
        command += ["--targets", "linear"]
        command += ["--scale", str(1 / 255), "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
        before = cpu(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(command + ["--out", f"{out}/r", "--json"], check=True, capture_output=True, text=True)
        return cpu(resource.RUSAGE_CHILDREN) - before, json.loads(ran.stdout)["test"]["agreement"]


def load(path, count):
    x = torch.tensor(np.load(path)[:count].astype(np.float32)) / 255
    x = x if x.shape[1] == 3 else x.permute(0, 3, 1, 2)
    return ((x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)).contiguous()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synfit")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    # Waiting threads of PyTorch spin: with one there is nothing but work in its CPU-seconds.
    torch.set_num_threads(1)
    source, layers = graph(f"{args.data}/networks/cifar10_resnet20_conv1x1.onnx")
    x = load(f"{args.data}/cifar10/train2000_images.npy", args.images)
    test = load(f"{args.data}/cifar10/test2000_images.npy", 500)
    ours, theirs, walls = [], [], []
    for _ in range(args.runs):
        ours.append(synfit(args.synfit, args.data, args.images, 1)[0])
        before, wall = cpu(), time.time()
        net = convert(source, layers, x)
        theirs.append(cpu() - before)
        walls.append(time.time() - wall)
        print(f"synfit {ours[-1]:.1f} CPU-s, PyTorch {theirs[-1]:.1f} CPU-s ({walls[-1]:.1f} s)", flush=True)
    agree = (torch.cat([decide(net, source, layers, p) for p in test.split(50)]) == original(source, layers, test)).float().mean()
    _, agreement = synfit(args.synfit, args.data, args.images, 500)
    ratio = float(np.median(np.array(ours) / np.array(theirs)))
    print(f"CPU-seconds, medians: synfit {np.median(ours):.1f}, PyTorch {np.median(theirs):.1f}, ratio {ratio:.2f}")
    print(f"agreement on 500 test images: synfit {100 * agreement:.1f} %, PyTorch {100 * float(agree):.1f} %")


if __name__ == "__main__":
    main()
