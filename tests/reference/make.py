"""Writes the reference outputs that the tests compare with: onnxruntime on generated inputs.

Run from the repository's root (the files it writes are committed; run it again only to add cases):
    pip install onnx onnxruntime numpy
    SYNFIT_DATA=../shared/data python tests/reference/make.py
"""
import glob, os
import numpy as np, onnx, onnxruntime as ort

HERE = os.path.dirname(os.path.abspath(__file__))
ort.set_default_logger_severity(3)


def uniform(seed, n):
    """The generator of tests/common/mod.rs."""
    out, state = np.empty(n, np.float32), seed
    for i in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        out[i] = np.float32(state >> 40) / np.float32(1 << 24)
    return out


def run(model, x):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def networks():
    data = os.environ["SYNFIT_DATA"]
    files = sorted(glob.glob(data + "/networks/*.onnx")) + [data + "/digits/digits_cnn.onnx"]
    scales = {"cifar10_resnet8": 255, "imagenet_squeezenet10": 128, "digits_cnn": 1}
    with open(HERE + "/networks.txt", "w") as out:
        out.write("# name, seed, scale (input = scale * uniform), output of onnxruntime %s\n" % ort.__version__)
        for seed, file in enumerate(files):
            name = os.path.basename(file)[:-5]
            if name.startswith("unsupported"):
                continue
            scale = scales.get(name, 1)
            i = ort.InferenceSession(file).get_inputs()[0]
            dims = [1] + [int(d) for d in i.shape[1:]]
            x = (uniform(seed, int(np.prod(dims))) * np.float32(scale)).reshape(dims)
            y = run(file, x).ravel()
            out.write(f"{name} {seed} {scale} " + " ".join("%.9g" % v for v in y) + "\n")


if __name__ == "__main__":
    if os.environ.get("SYNFIT_DATA"):
        networks()
