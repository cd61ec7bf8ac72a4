"""Runs a result's network.nir in sinabs and in snnTorch and compares their decisions with synfit's own simulation.

    pip install -r benches/nir_requirements.txt
    synfit convert ... --out DIR
    synfit simulate DIR --images 500 --outputs outputs.npy
    python3 benches/nir.py DIR outputs.npy

NIR has no field for initial potentials, reset rule and spikes a step: they are taken from the graph's metadata, as is the
input's code. sinabs's reader allows any number of spikes a step and bounds the potential; snnTorch's gives integrate-and-fire
a leak of 0.9, flattens the batch and knows no SumPool2d: both are set right here.
"""

import gzip
import pathlib
import sys
import tomllib

import nir
import nirtorch
import numpy as np
import torch

BATCH = 100


def images(job, count):
    """Raw test images, N x C x H x W."""
    path = pathlib.Path(job["test"])
    if path.suffix == ".npy":
        return np.load(path)[:count].astype(np.float32)
    opener = gzip.open if path.suffix == ".gz" else open
    data = opener(path, "rb").read()
    n, h, w = (int.from_bytes(data[4 * i:4 * i + 4], "big") for i in (1, 2, 3))
    raw = np.frombuffer(data, np.uint8, offset=16).reshape(n, 1, h, w)
    return raw[:count].astype(np.float32)


def encode(raw, node):
    m = node.metadata
    scale, shift = (np.asarray(m[k]).reshape(1, -1, 1, 1) for k in ("scale", "shift"))
    x = raw * scale + shift
    x = np.sign(x) * np.floor(np.abs(x) + 0.5)  # half away from zero
    return torch.tensor(np.clip(x, m["lowest"], m["highest"])).float().reshape(-1, *node.output_type["output"])


def decode(total, node, steps):
    """Values of the trained network's outputs from what the output node gave in all steps."""
    m = node.metadata
    rates = total / steps * np.asarray(m["decode_gain"])
    out = np.tile(np.asarray(m["decode_base"]), (len(total), 1))
    for i, to in enumerate(np.asarray(m["decode_origin"])):
        out[:, slice(None) if to < 0 else to] += rates[:, [i]] if to < 0 else rates[:, i]
    return out


def in_sinabs(graph, x, steps):
    import sinabs.activation
    import sinabs.nir

    model = sinabs.nir.from_nir(graph, batch_size=len(x))
    for name, layer in model.named_modules():
        node = graph.nodes.get(name.split(".")[-1])
        if isinstance(node, nir.IF) and hasattr(layer, "spike_fn"):
            layer.spike_fn = sinabs.activation.SingleSpike
            layer.min_v_mem = None
            if graph.metadata["reset"] == "zero":
                layer.reset_fn = sinabs.activation.MembraneReset()
            layer.v_mem = torch.tensor(node.metadata["v_initial"]).expand(len(x), *node.v_threshold.shape).clone()
    # sinabs runs all steps of a batch at once: (batch x time) first
    every = x.repeat_interleave(steps, dim=0)
    with torch.no_grad():
        out = model(every)
    out = out[0] if isinstance(out, tuple) else out
    return out.reshape(len(x), steps, -1).sum(1).double().numpy()


def in_snntorch(graph, x, steps):
    import snntorch
    from snntorch.import_nir import _nir_to_snntorch_module as given

    reset = graph.metadata["reset"]

    def neuron(node):
        lif = snntorch.Leaky(beta=1.0, threshold=1.0, reset_mechanism=reset, reset_delay=False, init_hidden=True)
        lif.initial = torch.tensor(node.metadata["v_initial"])
        return lif

    node_map = {
        nir.Affine: given,
        nir.Conv2d: given,
        nir.IF: neuron,
        nir.Flatten: lambda node: torch.nn.Flatten(1, -1),
        nir.SumPool2d: lambda node: torch.nn.AvgPool2d(
            tuple(node.kernel_size), tuple(node.stride), tuple(node.padding), divisor_override=1
        ),
    }
    model = nirtorch.nir_to_torch(graph, node_map)
    for layer in model.modules():
        if isinstance(layer, snntorch.Leaky):
            layer.reset_mem()
            layer.mem = layer.initial.expand(len(x), *layer.initial.shape).clone()
    total = 0
    with torch.no_grad():
        for _ in range(steps):
            out = model(x)
            total = total + (out[0] if isinstance(out, tuple) else out)
    return total.double().numpy()


def main():
    folder, outputs = pathlib.Path(sys.argv[1]), np.load(sys.argv[2])
    job = tomllib.loads((folder / "job.toml").read_text())
    path = folder / "network.nir"
    graph = nir.read(path)
    steps = int(graph.metadata["steps"])
    raw = images(job, len(outputs))
    wanted = outputs.argmax(1)
    failed = False
    for name, run in [("sinabs", in_sinabs), ("snnTorch", in_snntorch)]:
        found = []
        for start in range(0, len(raw), BATCH):
            x = encode(raw[start:start + BATCH], graph.nodes["input"])
            found.append(decode(run(nir.read(path), x, steps), graph.nodes["output"], steps))
        found = np.concatenate(found)
        agreement = (found.argmax(1) == wanted).mean()
        distance = np.linalg.norm(found - outputs) / np.linalg.norm(outputs)
        failed |= agreement < 0.995
        print(f"{name}: agreement {100 * agreement:.2f} % on {len(raw)} images, relative distance of outputs {distance:.1e}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
