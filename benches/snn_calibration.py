#!/usr/bin/env python3
"""SNN_Calibration's advanced mode on the same network and images, and CPU-seconds of both in one run.

    python3 benches/snn_calibration.py SYNFIT DATA PEER [--images N] [--runs N]

SYNFIT: the release binary; DATA: the folder of shared networks and data; PEER: a checkout of
github.com/yhhhli/SNN_Calibration. Needs torch, numpy and onnx. Its own classes and functions do the work: BasicBlock, SpikeModel,
get_maximum_activation, and bias_corr_model(correct_mempot=True), which is what its CIFAR script calls advanced. The
weights are those of cifar10_resnet20_conv1x1, batch norms folded. As in that script the potentials come from the first batch of 128 images.
Its weights are real numbers; synfit's are of 4 bits. CPU-seconds are user and system time of the conversion alone, its own on one
thread.
"""

import argparse
import contextlib
import io
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pipeline

BATCH = 128


def load_peer(folder):
    sys.path.insert(0, folder)
    # Its helper for several GPUs is imported and not used.
    sys.modules.setdefault("distributed_utils.dist_helper", types.ModuleType("distributed_utils.dist_helper"))
    helper = sys.modules["distributed_utils.dist_helper"]
    helper.allaverage = helper.allreduce = None
    from models import calibration, spiking_layer, utils
    from models.CIFAR.models import resnet

    resnet.BN, resnet.ReLU = utils.StraightThrough, nn.ReLU
    return calibration, spiking_layer, resnet


def place(conv, weight, bias):
    conv.weight.data = weight.clone()
    conv.bias = nn.Parameter(bias.clone())


def trained(resnet, layers):
    """The network in its own classes."""
    model = resnet.ResNet_Cifar.__new__(resnet.ResNet_Cifar)
    nn.Module.__init__(model)
    layers = iter(layers)
    _, [(_, w, _, _)], b, _ = next(layers)
    width = len(w)
    model.conv1, model.bn1 = nn.Conv2d(3, width, 3, padding=1), nn.Identity()
    model.relu = nn.ReLU(inplace=True)
    place(model.conv1, w, b)
    for stage in (1, 2, 3):
        blocks = []
        for _ in range(3):
            _, [(_, w1, stride, _)], b1, _ = next(layers)
            _, two, b2, _ = next(layers)
            w2 = next(w for _, w, _, _ in two if w.shape[2] == 3)
            skip = next(w for _, w, _, _ in two if w.shape[2] == 1)
            down = None
            if len(w1) != width:
                down = nn.Sequential(nn.Conv2d(width, len(w1), 1, stride=stride, bias=False))
                down[0].weight.data = skip.clone()
            block = resnet.BasicBlock(width, len(w1), stride, down)
            place(block.conv1, w1, b1)
            place(block.conv2, w2, b2)
            blocks.append(block)
            width = len(w1)
        setattr(model, f"layer{stage}", nn.Sequential(*blocks))
    _, [(_, w, _, _)], b, _ = next(layers)
    model.avgpool, model.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(width, len(w))
    place(model.fc, w.flatten(1), b)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synfit")
    parser.add_argument("data")
    parser.add_argument("peer")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    calibration, spiking, resnet = load_peer(args.peer)
    source, layers = pipeline.graph(f"{args.data}/networks/cifar10_resnet20_conv1x1.onnx")
    x = pipeline.load(f"{args.data}/cifar10/train2000_images.npy", args.images)
    test = pipeline.load(f"{args.data}/cifar10/test2000_images.npy", 500)
    loader = [(part, None) for part in x.split(BATCH)]
    ours, theirs = [], []
    with torch.no_grad():
        wanted = pipeline.original(source, layers, test)
        assert torch.equal(trained(resnet, layers)(test).argmax(1), wanted), "its classes hold another network"
        for _ in range(args.runs):
            ours.append(pipeline.synfit(args.synfit, args.data, args.images, 1)[0])
            before, wall = pipeline.cpu(), time.time()
            with contextlib.redirect_stdout(io.StringIO()):
                net = spiking.SpikeModel(trained(resnet, layers), pipeline.STEPS, {resnet.BasicBlock: resnet.SpikeBasicBlock})
                spiking.get_maximum_activation(
                    loader, model=net, momentum=0.9, iters=5, mse=True, percentile=None,
                    sim_length=pipeline.STEPS, channel_wise=False,
                )
                calibration.bias_corr_model(model=net, train_loader=loader, correct_mempot=True)
            theirs.append(pipeline.cpu() - before)
            print(f"synfit {ours[-1]:.1f} CPU-s, SNN_Calibration {theirs[-1]:.1f} ({time.time() - wall:.1f} s)", flush=True)
        net.set_spike_state(use_spike=True)
        agree = float((torch.cat([net(p).argmax(1) for p in test.split(50)]) == wanted).float().mean())
    _, agreement = pipeline.synfit(args.synfit, args.data, args.images, 500)
    ratio = float(np.median(np.array(ours) / np.array(theirs)))
    print(f"CPU-seconds, medians: synfit {np.median(ours):.1f}, SNN_Calibration {np.median(theirs):.1f}, ratio {ratio:.2f}")
    print(f"agreement on 500 test images: synfit {100 * agreement:.1f} %, SNN_Calibration {100 * agree:.1f} %")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
