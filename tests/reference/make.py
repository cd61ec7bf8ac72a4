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


class Cases:
    """Small models, one record each: name, model, expected number of nodes (-1: any), input, onnxruntime's output."""

    def __init__(self, file):
        self.file, self.names = open(file, "wb"), set()

    def add(self, name, nodes, shape, consts=(), opset=13, count=-1, low=-1.0, high=1.0, dtype=np.float32, batch=1, external=None):
        """nodes: (op, inputs, attributes) in sequence; an input "." is the output of the node before (first: the
        input "x"), "#2" that of node 2, a number in `consts` by name otherwise."""
        assert name not in self.names, name
        self.names.add(name)
        rng = np.random.default_rng(len(self.names))
        consts = {k: (rng.uniform(-1, 1, v).astype(dtype) if isinstance(v, tuple) else np.asarray(v)) for k, v in dict(consts).items()}
        made = []
        for i, (op, inputs, attributes) in enumerate(nodes):
            before = "x" if i == 0 else f"v{i - 1}"
            inputs = [before if a == "." else f"v{a[1:]}" if a.startswith("#") else a for a in inputs]
            out = "y" if i == len(nodes) - 1 else f"v{i}"
            attributes = dict(attributes)
            outputs = [out] + [f"v{i}_{k}" for k in range(1, attributes.pop("outputs", 1))]
            made.append(onnx.helper.make_node(op, inputs, outputs, name=f"{op}_{i}", **attributes))
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = onnx.helper.make_graph(
            made, name, [onnx.helper.make_tensor_value_info("x", kind, ["N" if batch == 1 else batch] + list(shape[1:]) if len(shape) > 1 else shape)],
            [onnx.helper.make_empty_tensor_value_info("y")],
            [onnx.numpy_helper.from_array(v, k) for k, v in consts.items()])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=min(10, 4 + opset // 2))
        x = (low + (high - low) * uniform(len(self.names), int(np.prod(shape)))).astype(np.float32).reshape(shape)
        fed = np.repeat(x, batch, 0).astype(dtype) if batch > 1 else x.astype(dtype)
        y = np.asarray(run(model.SerializeToString(), fed)).astype(np.float32)
        y = (y[:1] if batch > 1 else y).ravel()
        if external:
            folder = HERE + "/external"
            os.makedirs(folder, exist_ok=True)
            if os.path.exists(folder + "/" + external):
                os.remove(folder + "/" + external)
            onnx.save_model(model, folder + "/model.onnx", save_as_external_data=True, location=external, size_threshold=0)
            model = onnx.load(folder + "/model.onnx", load_external_data=False)
            os.remove(folder + "/model.onnx")
        for part in (name.encode(), model.SerializeToString(), np.int32(count).tobytes(), x.tobytes(), y.tobytes()):
            self.file.write(np.uint32(len(part)).tobytes() + part)


def operators():
    i64, f32 = (lambda *v: np.array(v, np.int64)), (lambda *v: np.array(v, np.float32))
    c = Cases(HERE + "/operators.bin")
    relu = ("Relu", ["."], {})
    # Convolution.
    conv = lambda shape, weight, name, bias=True, tail=(), opset=11, **a: c.add(
        name, [("Conv", [".", "w"] + (["b"] if bias else []), a), *tail], shape,
        {"w": weight, **({"b": (weight[0],)} if bias else {})}, opset)
    conv((1, 3, 7, 6), (4, 3, 3, 3), "conv")
    conv((1, 3, 7, 6), (4, 3, 3, 2), "conv_no_bias", bias=False, tail=[relu])
    conv((1, 4, 7, 6), (6, 2, 3, 3), "conv_groups", group=2, pads=[1, 1, 1, 1])
    conv((1, 4, 7, 6), (8, 1, 3, 3), "conv_depthwise_multiplier", group=4, strides=[2, 1])
    conv((1, 2, 9, 9), (3, 2, 3, 3), "conv_dilations", dilations=[2, 3], pads=[2, 3, 2, 3])
    conv((1, 2, 8, 9), (3, 2, 3, 2), "conv_asymmetric_pads", pads=[0, 1, 2, 3], strides=[3, 2])
    for size in (7, 8):
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            conv((1, 2, size, 6), (3, 2, 4, 3), f"conv_{auto}_{size}", auto_pad=auto, strides=[2, 2])
    conv((1, 3, 12), (5, 3, 4), "conv_1d", strides=[2], pads=[1, 2])
    conv((1, 4, 12), (4, 1, 3), "conv_1d_depthwise", group=4, dilations=[2], tail=[relu])
    conv((1, 3, 7, 6), (4, 3, 3, 3), "conv_opset7", opset=7)
    conv((1, 3, 7, 6), (4, 3, 3, 3), "conv_opset22", opset=22, tail=[relu])
    # Types and storage.
    for dtype in (np.float16, np.float64):
        c.add(f"gemm_{np.dtype(dtype)}", [("Gemm", [".", "w", "b"], {"transB": 1}), relu], (1, 6), {"w": (4, 6), "b": (4,)}, 13, dtype=dtype)
    c.add("cast_half_weights", [("Cast", ["h"], {"to": 1}), ("MatMul", ["x", "."], {})], (1, 6), {"h": np.arange(24).reshape(6, 4).astype(np.float16)}, 13, 2)
    c.add("external_data", [("Gemm", [".", "w", "b"], {"transB": 1}), relu], (1, 6), {"w": (4, 6), "b": (4,)}, 17, external="weights.bin")
    # Dense layers.
    for ta in (0, 1):
        for tb in (0, 1):
            c.add(f"gemm_{ta}{tb}", [("Gemm", [".", "w", "b"], {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 2.0})],
                  (1, 5), {"w": ((3, 1) if ta else (3, 5)) if tb else ((1, 3) if ta else (5, 3)), "b": (3,)}, 11)
    c.add("gemm_constant_a", [("Transpose", ["x"], {"perm": [1, 0]}), ("Gemm", ["w", "."], {"transA": 1}), relu], (1, 5), {"w": (5, 3)})
    c.add("gemm_no_c", [("Gemm", [".", "w"], {})], (1, 5), {"w": (5, 3)}, 11)
    c.add("gemm_scalar_c", [("Gemm", [".", "w", "b"], {})], (1, 5), {"w": (5, 3), "b": f32(0.5)}, 9)
    c.add("matmul_add", [("MatMul", [".", "w"], {}), ("Add", ["b", "."], {}), relu], (1, 5), {"w": (5, 3), "b": (3,)}, 9, 2)
    c.add("matmul_left", [("MatMul", ["w", "."], {}), relu], (1, 5, 1), {"w": (3, 5)}, 13)
    c.add("matmul_shared", [("MatMul", [".", "w"], {}), ("Add", [".", "b"], {}), relu], (1, 4, 5), {"w": (5, 3), "b": (3,)})
    c.add("matmul_vector", [("MatMul", [".", "w"], {})], (1, 5), {"w": (5,)})
    c.add("dense_chain", [("Gemm", [".", "w", "b"], {}), ("Gemm", [".", "w2", "b2"], {}), relu], (1, 5), {"w": (5, 3), "b": (3,), "w2": (3, 4), "b2": (4,)}, 13, 2)
    # Normalization and arithmetic.
    bn = lambda n: {"g": (n,), "be": (n,), "m": (n,), "v": np.linspace(0.5, 2, n).astype(np.float32)}
    norm = ("BatchNormalization", [".", "g", "be", "m", "v"], {"epsilon": 1e-3})
    for opset in (7, 9, 14, 15):
        c.add(f"conv_bn_{opset}", [("Conv", [".", "w", "b"], {"pads": [1, 1, 1, 1]}), norm, relu], (1, 3, 5, 5), {"w": (4, 3, 3, 3), "b": (4,), **bn(4)}, opset, 2)
    c.add("bn_conv", [relu, norm, ("Conv", [".", "w"], {})], (1, 3, 5, 5), {"w": (4, 3, 3, 3), **bn(3)}, 13, 3)
    c.add("bn_padded_conv", [relu, norm, ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]})], (1, 3, 5, 5), {"w": (4, 3, 3, 3), **bn(3)}, 13, 4)
    c.add("bn_dense", [relu, norm, ("MatMul", [".", "w"], {})], (1, 6), {"w": (6, 4), **bn(6)}, 13, 3)
    c.add("bn_input", [norm, ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]}), relu], (1, 3, 5, 5), {"w": (4, 3, 3, 3), **bn(3)}, 13, 2)
    c.add("scale_after_activation", [relu, ("Mul", [".", "s"], {}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]})], (1, 3, 5, 5), {"w": (4, 3, 3, 3), "s": (3, 1, 1)}, 13, 3)
    c.add("input_arithmetic", [("Sub", [".", "m"], {}), ("Div", [".", "s"], {}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]})],
          (1, 3, 5, 5), {"w": (4, 3, 3, 3), "m": (1, 3, 1, 1), "s": f32(0.25)}, 13, 2)
    c.add("input_mean_image", [("Sub", [".", "m"], {}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]})], (1, 3, 5, 5), {"w": (4, 3, 3, 3), "m": (3, 5, 5)})
    c.add("input_mean_dense", [("Sub", [".", "m"], {}), ("Flatten", ["."], {}), ("MatMul", [".", "w"], {})], (1, 1, 1, 5), {"w": (5, 4), "m": (1, 1, 1, 5)}, 9, 2)
    c.add("one_minus", [relu, ("Sub", ["one", "."], {}), ("Neg", ["."], {}), ("Mul", ["s", "."], {}), ("Add", [".", "one"], {})], (1, 4), {"one": f32(1), "s": (4,)}, 13, 3)
    c.add("after_conv_per_element", [("Conv", [".", "w"], {}), ("Add", [".", "b"], {}), relu], (1, 2, 4, 4), {"w": (3, 2, 3, 3), "b": (3, 2, 2)})
    c.add("broadcast_up", [("Add", [".", "b"], {}), relu], (1, 1, 4), {"b": (3, 4)})
    # Activations.
    def act(name, op, opset=13, consts=(), inputs=(), **a):
        c.add(name, [("Conv", [".", "w", "b"], {}), (op, [".", *inputs], a)], (1, 2, 4, 4), {"w": (5, 2, 2, 2), "b": (5,), **dict(consts)}, opset)
    for op in ("Relu", "Tanh", "Softplus"):
        act(op.lower(), op)
    act("leaky", "LeakyRelu", alpha=0.1); act("leaky_default", "LeakyRelu"); act("elu", "Elu", alpha=0.7)
    act("hard_sigmoid", "HardSigmoid", alpha=0.3, beta=0.4); act("hard_sigmoid_22", "HardSigmoid", 22)
    act("clip_attributes", "Clip", 9, min=0.0, max=0.5); act("clip_inputs", "Clip", 11, {"lo": f32(-0.2).reshape(()), "hi": f32(0.3).reshape(())}, ["lo", "hi"])
    act("clip_max_only", "Clip", 13, {"hi": f32(0.3).reshape(())}, ["", "hi"]); act("clip_none", "Clip", 13); act("clip_relu", "Clip", 13, {"lo": f32(0).reshape(())}, ["lo"])
    act("prelu_shared", "PRelu", 13, {"s": f32(0.2)}, ["s"]); act("max_zero", "Max", 13, {"z": f32(0)}, ["z"]); act("min_one", "Min", 13, {"z": f32(0.2)}, ["z"])
    act("sigmoid_head", "Sigmoid")
    c.add("sigmoid", [("Sigmoid", ["."], {}), ("MatMul", [".", "w"], {})], (1, 5), {"w": (5, 3)}, 13, 3)
    c.add("relu_relu6", [("MatMul", [".", "w"], {}), relu, ("Clip", [".", "", "hi"], {}), ("MatMul", [".", "w"], {})], (1, 4), {"w": (4, 4), "hi": f32(0.3).reshape(())}, 13, 3)
    c.add("relu_of_reshaped", [("MatMul", [".", "w"], {}), ("Reshape", [".", "s"], {}), relu, ("Conv", [".", "k"], {})], (1, 8), {"w": (8, 16), "s": i64(1, 1, 4, 4), "k": (2, 1, 3, 3)})
    # Pooling.
    pool = lambda name, op, shape=(1, 2, 7, 8), opset=13, pre=(), **a: c.add(name, [*pre, (op, ["."], a)], shape, {"w": (2, 2, 1, 1), "p": i64(0, 0, 1, 1, 0, 0, 1, 1)}, opset)
    for op in ("MaxPool", "AveragePool"):
        n = op.lower()
        pool(n, op, kernel_shape=[2, 3], strides=[2, 2])
        pool(n + "_pads", op, kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 2, 1])
        pool(n + "_ceil", op, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        pool(n + "_ceil_pads", op, kernel_shape=[3, 3], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
        pool(n + "_ceil_drop", op, (1, 2, 6, 6), kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
        pool(n + "_same_upper", op, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER")
        pool(n + "_same_lower", op, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER")
        pool(n + "_valid", op, kernel_shape=[3, 2], strides=[2, 3], auto_pad="VALID", opset=7)
        pool(n + "_1d", op, (1, 3, 11), kernel_shape=[3], strides=[2], pads=[1, 1])
        pool(n + "_dilated", op, kernel_shape=[2, 3], dilations=[2, 2], opset=19)
        pool(n + "_after_relu_pad", op, pre=[relu, ("Pad", [".", "p"], {})], kernel_shape=[3, 3], strides=[2, 2])
        pool(n + "_after_pad", op, pre=[("Pad", [".", "p"], {})], kernel_shape=[3, 3], strides=[2, 2])
        c.add(n + "_before_relu", [("Conv", [".", "w", "b"], {}), (op, ["."], {"kernel_shape": [2, 2], "strides": [2, 2]}), relu], (1, 2, 5, 5), {"w": (3, 2, 2, 2), "b": (3,)}, 13, 3 if op == "MaxPool" else 2)
        c.add(n + "_of_bn", [relu, ("BatchNormalization", [".", "g", "be", "m", "v"], {}), (op, ["."], {"kernel_shape": [2, 2], "strides": [2, 2]}), ("Conv", [".", "w"], {})],
              (1, 3, 5, 5), {**bn(3), "g": f32(.5, .7, 1), "w": (3, 3, 2, 2)}, 13, 4)
    pool("average_include_pad", "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    pool("average_include_pad_ceil", "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1, ceil_mode=1, opset=19)
    pool("global_average", "GlobalAveragePool"); pool("global_max", "GlobalMaxPool")
    pool("reduce_mean_axes", "ReduceMean", axes=[2, 3], keepdims=0, opset=13)
    c.add("reduce_mean_18", [("ReduceMean", [".", "a"], {"keepdims": 1})], (1, 2, 4, 5), {"a": i64(-1, -2)}, 18, 2)
    c.add("conv1x1_global_average", [("Conv", [".", "w", "b"], {}), ("GlobalAveragePool", ["."], {}), ("Flatten", ["."], {}), relu], (1, 3, 4, 4), {"w": (5, 3, 1, 1), "b": (5,)}, 13, 3)
    # Branches.
    two = [("Conv", ["x", "w", "b"], {"pads": [1, 1, 1, 1]}), relu]
    w = {"w": (3, 3, 3, 3), "b": (3,), "u": (3, 3, 3, 3), "k": (3, 3, 1, 1), "d": (3, 1, 3, 3)}
    c.add("residual", [*two, ("Conv", [".", "u"], {"pads": [1, 1, 1, 1]}), ("Add", ["#1", "."], {}), relu], (1, 3, 6, 6), w, 13, 3)
    c.add("residual_depthwise", [*two, ("Conv", [".", "d"], {"pads": [1, 1, 1, 1], "group": 3}), ("Conv", ["#1", "k"], {}), ("Sum", ["#1", "#2", "#3"], {}), relu], (1, 3, 6, 6), w, 13, 3)
    c.add("residual_slice_pad", [*two, ("Slice", ["#1", "st", "en", "ax", "sp"], {}), ("Pad", [".", "p"], {}), ("Conv", ["#1", "v"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}), ("Add", [".", "#3"], {}), relu],
          (1, 3, 6, 6), {**w, "v": (7, 3, 3, 3), "st": i64(0, 0), "en": i64(99, 99), "ax": i64(2, 3), "sp": i64(2, 2), "p": i64(0, 2, 0, 0, 0, 2, 0, 0)}, 13, 3)
    c.add("sub_branches", [*two, ("Conv", [".", "u"], {"pads": [1, 1, 1, 1]}), ("Sub", ["#1", "."], {}), relu], (1, 3, 6, 6), w, 13, 3)
    c.add("mean_branches", [*two, ("Conv", [".", "k"], {}), ("Mean", ["#1", "."], {})], (1, 3, 6, 6), w, 13, 3)
    c.add("add_broadcast", [relu, ("GlobalAveragePool", ["."], {}), ("Add", ["#0", "."], {}), relu], (1, 3, 4, 4))
    c.add("double", [relu, ("Add", ["#0", "#0"], {}), relu], (1, 3, 4, 4))
    c.add("concat", [*two, ("Conv", ["x", "k"], {}), relu, ("Concat", ["#1", "#3", "x"], {"axis": 1}), ("Conv", [".", "e"], {"pads": [1, 1, 1, 1]})], (1, 3, 6, 6), {**w, "e": (2, 9, 3, 3)}, 13, 4)
    c.add("concat_linear", [("Conv", ["x", "w", "b"], {"pads": [1, 1, 1, 1]}), ("Conv", ["x", "k"], {}), ("Concat", ["#0", "#1"], {"axis": -3}), ("Conv", [".", "e"], {}), relu], (1, 3, 6, 6), {**w, "e": (2, 6, 1, 1)}, 13, 2)
    c.add("concat_relu", [("Conv", ["x", "w", "b"], {"pads": [1, 1, 1, 1]}), ("Conv", ["x", "k"], {}), ("Concat", ["#0", "#1"], {"axis": 1}), relu, ("Conv", [".", "e"], {})], (1, 3, 6, 6), {**w, "e": (2, 6, 1, 1)}, 13, 5)
    c.add("concat_flat", [relu, ("Flatten", ["."], {}), ("Flatten", ["x"], {}), ("Concat", ["#1", "#2"], {"axis": 1}), ("MatMul", [".", "q"], {})], (1, 2, 3, 3), {"q": (36, 4)}, 13, 3)
    c.add("concat_rows", [relu, ("Concat", ["#0", "x"], {"axis": 2}), ("Conv", [".", "w"], {})], (1, 3, 4, 4), w)
    c.add("concat_zeros", [relu, ("Concat", ["z", ".", "z"], {"axis": 1}), ("Conv", [".", "e"], {})], (1, 3, 4, 4), {"z": np.zeros((1, 2, 4, 4), np.float32), "e": (2, 7, 1, 1)}, 13, 3)
    c.add("split", [relu, ("Split", ["."], {"axis": 1, "outputs": 2, "split": [1, 2]}), ("Conv", ["v1_1", "w2"], {})], (1, 3, 4, 4), {"w2": (2, 2, 3, 3)}, 11, 3)
    c.add("shuffle", [relu, ("Reshape", [".", "s1"], {}), ("Transpose", ["."], {"perm": [0, 2, 1, 3, 4]}), ("Reshape", [".", "s2"], {}), ("Conv", [".", "w"], {})], (1, 6, 4, 4), {"s1": i64(0, 2, 3, 4, 4), "s2": i64(0, -1, 4, 4), "w": (2, 6, 3, 3)}, 13, 3)
    # Linear maps in sequence.
    c.add("depthwise_pointwise", [("Conv", [".", "d", "db"], {"group": 3, "strides": [2, 2]}), ("Conv", [".", "k", "b"], {}), relu], (1, 3, 7, 7), {**w, "db": (3,)}, 13, 2)
    c.add("pointwise_conv", [("Conv", [".", "k"], {}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]}), relu], (1, 3, 7, 7), w, 13, 2)
    c.add("pointwise_bias_padded_conv", [("Conv", [".", "k", "b"], {}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]}), relu], (1, 3, 7, 7), w, 13, 3)
    c.add("conv_conv", [("Conv", [".", "w", "b"], {"strides": [2, 2]}), ("Conv", [".", "u"], {"dilations": [1, 1]}), relu], (1, 3, 9, 9), w, 13, 2)
    c.add("padded_conv_padded_conv", [("Conv", [".", "w"], {"pads": [1, 1, 1, 1]}), ("Conv", [".", "u"], {"pads": [1, 1, 1, 1]}), relu], (1, 3, 6, 6), w, 13, 3)
    c.add("conv_dense", [("Conv", [".", "w", "b"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}), ("Flatten", ["."], {}), ("MatMul", [".", "q"], {})], (1, 3, 6, 6), {**w, "q": (27, 4)}, 13, 2)
    c.add("crop_padded_conv", [relu, ("Slice", [".", "st", "en", "ax"], {}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]})], (1, 3, 6, 6), {**w, "st": i64(1, 1), "en": i64(5, 5), "ax": i64(2, 3)}, 13, 4)
    c.add("pad_conv", [relu, ("Pad", [".", "p"], {}), ("Conv", [".", "w"], {})], (1, 3, 6, 6), {**w, "p": i64(0, 0, 2, 0, 0, 0, 1, 3)}, 13, 3)
    # Rearrangements.
    c.add("flatten_dense", [relu, ("Flatten", ["."], {}), ("Gemm", [".", "w"], {})], (1, 2, 3, 4), {"w": (24, 5)}, 13, 3)
    c.add("nhwc", [("Transpose", ["."], {"perm": [0, 3, 1, 2]}), ("Conv", [".", "w"], {}), relu, ("Transpose", ["."], {"perm": [0, 2, 3, 1]}), ("Reshape", [".", "s"], {}), ("MatMul", [".", "q"], {})],
          (1, 5, 6, 3), {"w": (4, 3, 3, 3), "s": i64(-1, 48), "q": (48, 5)}, 9, 3)
    c.add("nhwc_scaled", [("Mul", [".", "m"], {}), ("Add", [".", "a"], {}), ("Transpose", ["."], {"perm": [0, 3, 1, 2]}), ("Conv", [".", "w"], {"pads": [1, 1, 1, 1]}), ("Transpose", ["."], {"perm": [0, 2, 3, 1]}), ("Add", [".", "b"], {}), relu,
          ("ReduceMean", ["."], {"axes": [1, 2], "keepdims": 0}), ("MatMul", [".", "q"], {})], (1, 5, 6, 3), {"m": (3,), "a": (1, 1, 1, 3), "w": (4, 3, 3, 3), "b": (4,), "q": (4, 5)}, 11, 4)
    c.add("nlc", [("Transpose", ["."], {"perm": [0, 2, 1]}), ("Conv", [".", "w"], {}), relu, ("GlobalAveragePool", ["."], {}), ("Squeeze", [".", "ax"], {})], (1, 9, 3), {"w": (4, 3, 3), "ax": i64(2)}, 13, 3)
    c.add("nhwc_output", [("Conv", [".", "w"], {}), ("Transpose", ["."], {"perm": [0, 2, 3, 1]})], (1, 3, 5, 5), {"w": (4, 3, 3, 3)})
    c.add("unsqueeze_conv1d", [("Unsqueeze", ["."], {"axes": [1]}), ("Conv", [".", "w"], {}), ("Squeeze", ["."], {"axes": [1]}), relu], (1, 9), {"w": (1, 1, 3)}, 11)
    c.add("unsqueeze_13", [("Unsqueeze", [".", "ax"], {}), ("Conv", [".", "w"], {}), relu], (1, 9), {"w": (2, 1, 3), "ax": i64(-2)}, 21)
    c.add("slice_attributes", [relu, ("Slice", ["."], {"starts": [1, 0], "ends": [3, -1], "axes": [1, 2]}), ("Conv", [".", "w2"], {})], (1, 3, 5, 4), {"w2": (2, 2, 3, 3)}, 9)
    c.add("slice_reverse", [relu, ("Slice", [".", "st", "en", "ax", "sp"], {}), ("MatMul", [".", "w"], {})], (1, 6), {"w": (3, 2), "st": i64(-1), "en": i64(-99), "ax": i64(1), "sp": i64(-2)}, 13)
    c.add("pad_attributes", [relu, ("Pad", ["."], {"pads": [0, 0, 1, 0, 0, 0, 0, 2]}), ("Conv", [".", "w"], {})], (1, 3, 5, 4), {"w": (2, 3, 3, 3)}, 9, 3)
    c.add("pad_axes_18", [relu, ("Pad", [".", "p", "", "ax"], {}), ("Conv", [".", "w"], {})], (1, 3, 5, 4), {"w": (2, 3, 3, 3), "p": i64(1, -1), "ax": i64(3)}, 18)
    c.add("gather_features", [relu, ("Gather", [".", "i"], {"axis": 1}), ("MatMul", [".", "w"], {})], (1, 6), {"i": i64(3, -1, 0), "w": (3, 2)}, 13, 3)
    c.add("expand", [relu, ("Expand", [".", "s"], {}), ("Conv", [".", "w"], {})], (1, 1, 4, 4), {"s": i64(1, 3, 1, 1), "w": (2, 3, 3, 3)}, 13)
    c.add("dropout", [("MatMul", [".", "w"], {}), relu, ("Dropout", ["."], {}), ("Identity", ["."], {}), ("MatMul", [".", "w"], {})], (1, 4), {"w": (4, 4)}, 13, 3)
    c.add("dropout_7", [("MatMul", [".", "w"], {}), relu, ("Dropout", ["."], {"ratio": 0.3})], (1, 4), {"w": (4, 4)}, 7, 2)
    c.add("fixed_batch", [("Conv", [".", "w"], {}), relu, ("Reshape", [".", "s"], {}), ("MatMul", [".", "q"], {})], (1, 3, 5, 5), {"w": (4, 3, 3, 3), "s": i64(8, -1), "q": (36, 2)}, 13, 3, batch=8)
    # Shapes computed in the graph, as PyTorch writes them.
    c.add("shape_chain", [("Conv", ["x", "w"], {}), relu, ("Shape", ["#1"], {}), ("Gather", [".", "i0"], {"axis": 0}), ("Unsqueeze", [".", "ax"], {}), ("Concat", [".", "minus"], {"axis": 0}), ("Reshape", ["#1", "."], {}), ("MatMul", [".", "q"], {})],
          (1, 3, 5, 5), {"w": (4, 3, 3, 3), "i0": np.int64(0), "ax": i64(0), "minus": i64(-1), "q": (36, 2)}, 13, 3)
    c.add("shape_arithmetic", [("Shape", ["x"], {}), ("Slice", [".", "a", "b"], {}), ("Cast", ["."], {"to": 1}), ("Mul", [".", "h"], {}), ("Floor", ["."], {}), ("Cast", ["."], {"to": 7}), ("Concat", ["one", ".", "minus"], {"axis": 0}), ("Reshape", ["x", "."], {}), ("Relu", ["."], {})],
          (1, 4, 5), {"a": i64(1), "b": i64(2), "h": f32(0.5), "one": i64(1), "minus": i64(-1)}, 13)
    c.add("constant_of_shape", [("ConstantOfShape", ["s"], {"value": onnx.numpy_helper.from_array(np.array([0.5], np.float32))}), ("Mul", ["x", "."], {}), ("MatMul", [".", "w"], {})], (1, 4), {"s": i64(1, 4), "w": (4, 2)})
    c.add("constant_nodes", [("Constant", [], {"value_floats": [1.0, 2.0, 3.0]}), ("Add", ["x", "."], {}), ("Constant", [], {"value_float": 2.0}), ("Mul", ["#1", "."], {}), relu], (1, 3), {}, 13, 2)
    c.add("norm_by_hand", [("MatMul", ["x", "w"], {}), ("Sub", [".", "m"], {}), ("Add", ["v", "e"], {}), ("Sqrt", ["."], {}), ("Div", ["#1", "."], {}), relu], (1, 4), {"w": (4, 3), "m": (3,), "v": f32(1, 2, 3), "e": f32(1e-3)}, 13, 2)
    # Heads.
    for opset in (11, 13):
        for op in ("Softmax", "LogSoftmax"):
            c.add(f"{op}_{opset}", [("MatMul", [".", "w"], {}), (op, ["."], {"axis": 1})], (1, 4), {"w": (4, 3)}, opset, 2)
    c.add("softmax_default_11", [("Conv", [".", "w"], {}), ("Softmax", ["."], {})], (1, 2, 4, 4), {"w": (3, 2, 3, 3)}, 11, 2)
    c.add("softmax_default_13", [("MatMul", [".", "w"], {}), ("Softmax", ["."], {})], (1, 4), {"w": (4, 3)}, 13, 2)
    c.add("softmax_argmax", [("MatMul", [".", "w"], {}), ("Softmax", ["."], {"axis": 1}), ("ArgMax", ["."], {"axis": 1, "keepdims": 0})], (1, 4), {"w": (4, 5)}, 13, 2)
    c.file.close()
    print(len(c.names), "operator cases")


def refusals():
    """Models that must be refused, each with words that the one line of the error must hold."""
    i64, T = (lambda *v: np.array(v, np.int64)), onnx.TensorProto
    out = open(HERE + "/refusals.bin", "wb")
    count = 0

    def model(nodes, shape=("N", 3, 6, 6), consts=(), opset=13, inputs=("x",), outputs=("y",)):
        made = [onnx.helper.make_node(op, i, o, name=f"{op}_{n}", **a) for n, (op, i, o, a) in enumerate(nodes)]
        graph = onnx.helper.make_graph(
            made, "g", [onnx.helper.make_tensor_value_info(i, T.FLOAT, shape) for i in inputs],
            [onnx.helper.make_empty_tensor_value_info(o) for o in outputs],
            [v if isinstance(v, T) else onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in dict(consts).items()])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])

    def add(name, words, *args, **kw):
        nonlocal count
        count += 1
        m = args[0] if isinstance(args[0], (bytes, onnx.ModelProto)) else model(*args, **kw)
        for part in (name.encode(), m if isinstance(m, bytes) else m.SerializeToString(), words.encode()):
            out.write(np.uint32(len(part)).tobytes() + part)

    x, y, w = ["x"], ["y"], np.ones((4, 3, 3, 3), np.float32)
    conv = lambda **a: [("Conv", ["x", "w"], y, a)]
    add("transposed", 'node "ConvTranspose_1" (ConvTranspose)|no spiking chip', [("Relu", x, ["a"], {}), ("ConvTranspose", ["a", "w"], y, {})], consts={"w": w})
    for op in ("Resize", "LSTM", "LRN", "Erf", "InstanceNormalization"):
        add(op, f'node "{op}_0" ({op})|no spiking chip', [(op, x, y, {})])
    add("custom", "(com.example.Thing)", [("Thing", x, y, {"domain": "com.example"})])
    add("product", 'node "Mul_1" (Mul)|multiplies two signals', [("Relu", x, ["a"], {}), ("Mul", ["a", "x"], y, {})])
    add("quotient", "(Div)|divides by a signal", [("Div", ["c", "x"], y, {})], consts={"c": np.float32(1)})
    add("softmax_inside", 'node "Softmax_0" (Softmax)', [("Softmax", x, ["a"], {}), ("Relu", ["a"], y, {})], ("N", 4))
    add("softmax_part", "(Softmax)|part of its input", [("Softmax", x, y, {"axis": 1})])
    add("dynamic_weights", '"x"|must be constant', [("Conv", ["x", "x"], y, {})])
    for bad in (np.nan, np.inf):
        v = w.copy(); v[1, 2, 0, 1] = bad
        add(f"weights_{bad}", 'node "Conv_0" (Conv)|"w" holds|finite', conv(), consts={"w": v})
    add("overflow", "finite", [("Gemm", ["x", "w"], y, {"alpha": 1e30})], ("N", 2), {"w": np.full((2, 2), 1e30, np.float32)})
    add("overflow_folded", "come to inf", [("MatMul", ["x", "w"], ["a"], {}), ("MatMul", ["a", "w"], y, {})], ("N", 2), {"w": np.full((2, 2), 1e30, np.float32)})
    add("division_by_zero", "(Div)|finite", [("Div", ["x", "c"], y, {})], consts={"c": np.float32(0)})
    add("zero_variance", "(BatchNormalization)|finite", [("BatchNormalization", ["x", "c", "c", "c", "c"], y, {"epsilon": 0.0})], consts={"c": np.zeros(3, np.float32)})
    add("bn_training", "training", [("BatchNormalization", ["x", "c", "c", "c", "c"], y, {"training_mode": 1})], consts={"c": np.ones(3, np.float32)}, opset=14)
    add("group", "(Conv)|group", conv(group=0), consts={"w": w})
    add("channels", "(Conv)|[4, 3, 3, 3]", conv(), ("N", 5, 6, 6), {"w": w})
    add("kernel_too_large", "(Conv)|larger than", conv(), ("N", 3, 2, 2), {"w": w})
    add("strides", "strides holds 0", conv(strides=[0, 1]), consts={"w": w})
    add("pads", "pads holds -1", conv(pads=[0, -1, 0, 0]), consts={"w": w})
    add("pads_count", "pads has 3 entries", conv(pads=[0, 1, 0]), consts={"w": w})
    add("huge_pads", "too large", conv(pads=[1 << 23] * 4), consts={"w": w})
    add("huge_pool", "too large", [("AveragePool", x, y, {"kernel_shape": [3, 3], "pads": [1 << 23] * 4, "count_include_pad": 1})])
    add("kernel_missing", "kernel_shape is missing", [("MaxPool", x, y, {})])
    add("conv_3d", "(Conv)|one or two axes", [("Conv", ["x", "w"], y, {})], ("N", 3, 4, 4, 4), {"w": np.ones((1, 3, 1, 1, 1), np.float32)})
    add("bias_count", "has 5 biases for 4 outputs", [("Conv", ["x", "w", "b"], y, {})], consts={"w": w, "b": np.ones(5, np.float32)})
    add("gemm_shape", "(Gemm)|does not go with", [("Gemm", ["x", "w"], y, {})], ("N", 5), {"w": np.ones((4, 2), np.float32)})
    add("reshape", "cannot reshape [1, 3, 6, 6] to [1, 7]", [("Reshape", ["x", "s"], y, {})], consts={"s": i64(1, 7)})
    add("pad_mode", 'mode "reflect"', [("Pad", ["x", "p"], y, {"mode": "reflect"})], consts={"p": i64(0, 0, 1, 1, 0, 0, 1, 1)})
    add("pad_value", "pads with the value 1", [("Pad", ["x", "p", "v"], y, {})], consts={"p": i64(0, 0, 1, 1, 0, 0, 1, 1), "v": np.float32(1)})
    add("pad_huge", "(Pad)", [("Pad", ["x", "p"], y, {})], consts={"p": i64(0, 0, 2**62, 0, 0, 0, 2**62, 0)})
    add("slice_empty", "leaves nothing", [("Slice", ["x", "a", "a"], y, {})], consts={"a": i64(1)})
    add("slice_twice", "names axis 3 twice", [("Slice", ["x", "a", "b", "c"], y, {})], consts={"a": i64(1, 1), "b": i64(3, 3), "c": i64(-1, 3)})
    add("axis", "axis 7", [("Concat", ["x", "x"], y, {"axis": 7})])
    add("expand_huge", "too large", [("Expand", ["x", "s"], y, {})], consts={"s": i64(2**40, 3, 6, 6)})
    add("filled_huge", "too large", [("ConstantOfShape", ["s"], ["a"], {}), ("Add", ["x", "a"], y, {})], consts={"s": i64(2**31, 2**31)})
    add("filled_negative", "negative", [("ConstantOfShape", ["s"], ["a"], {}), ("Add", ["x", "a"], y, {})], consts={"s": i64(-3)})
    add("symbolic", '"height"', [("Relu", x, y, {})], ("N", 3, "height", 6))
    add("negative_input", "negative dimension -4", [("Relu", x, y, {})], ("N", 3, -4, 6))
    add("huge_input", "too large", [("Relu", x, y, {})], ("N", 2**40, 2**40))
    add("two_outputs", "2 outputs (y, z)", [("Relu", x, y, {}), ("Tanh", x, ["z"], {})], outputs=("y", "z"))
    add("two_inputs", "2 inputs (x, z)", [("Add", ["x", "z"], y, {})], inputs=("x", "z"))
    add("no_input", "does not depend", [("Relu", ["c"], y, {})], consts={"c": np.ones(3, np.float32)})
    add("undefined", '"nowhere", which nothing writes', [("Relu", x, ["a"], {}), ("Add", ["a", "nowhere"], y, {})])
    add("cycle", "cycle", [("Add", ["x", "b"], ["a"], {}), ("Relu", ["a"], ["b"], {}), ("Relu", ["b"], y, {})])
    add("written_twice", 'two nodes write "a"', [("Relu", x, ["a"], {}), ("Relu", x, ["a"], {}), ("Relu", ["a"], y, {})])
    add("old", "opset 6", [("Relu", x, y, {})], opset=6)
    add("integers", "(Cast)|integers", [("Cast", x, ["a"], {"to": T.INT32}), ("Cast", ["a"], y, {"to": T.FLOAT})])
    add("negative_slope", "alpha is -1", [("LeakyRelu", x, y, {"alpha": -1.0})])
    add("attribute_type", "attribute alpha is not a number", [("LeakyRelu", x, y, {"alpha": "much"})])
    short = model(conv(), consts={"w": w}); short.graph.initializer[0].raw_data = b"1234567"
    add("short_weights", 'initializer "w" has 7 bytes', short)
    typed = model(conv(), consts={"w": w}); t = typed.graph.initializer[0]; t.ClearField("raw_data"); t.float_data.extend([1, 2])
    add("typed_weights", 'initializer "w" has dimensions [4, 3, 3, 3] but 2 values', typed)
    dims = model(conv(), consts={"w": w}); dims.graph.initializer[0].dims[0] = -4
    add("negative_weights", 'initializer "w" has a negative dimension', dims)
    dims = model(conv(), consts={"w": w}); dims.graph.initializer[0].dims[0] = 2**62
    add("huge_weights", 'initializer "w"', dims)
    text = model(conv(), consts={"w": onnx.helper.make_tensor("w", T.STRING, [1], [b"a"])})
    add("string_weights", "element type string", text)
    for name, entry, words in (("escape", "../../../Cargo.toml", "not inside"), ("absolute", "/etc/passwd", "not inside"), ("lost", "nothing.bin", "cannot be found"), ("cut", "weights.bin", "too short")):
        ext = model(conv(), consts={"w": w}); t = ext.graph.initializer[0]; t.ClearField("raw_data"); t.data_location = T.EXTERNAL
        for k, v in (("location", entry), ("offset", "0"), ("length", "432")):
            e = t.external_data.add(); e.key, e.value = k, v
        add("external_" + name, words, ext)
    add("empty", "not an ONNX model", b"")
    add("text", "not an ONNX model", b"# not a model at all\n")
    add("png", "not an ONNX model", b"\x89PNG\r\n\x1a\n" + bytes(40))
    out.close()
    print(count, "refusals")


def wide():
    """A dense layer of more inputs than a test has images: 2112 -> 8 -> 3."""
    h, T = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    normal = lambda name, *shape: onnx.numpy_helper.from_array((rng.normal(size=shape) * 3 / np.sqrt(shape[-1])).astype(np.float32), name)
    nodes = [h.make_node("Flatten", ["x"], ["f"]), h.make_node("Gemm", ["f", "w1", "b1"], ["a"], transB=1, name="hidden"),
             h.make_node("Relu", ["a"], ["r"]), h.make_node("Gemm", ["r", "w2", "b2"], ["y"], transB=1, name="out")]
    graph = h.make_graph(nodes, "wide", [h.make_tensor_value_info("x", T.FLOAT, [1, 33, 8, 8])], [h.make_tensor_value_info("y", T.FLOAT, [1, 3])],
                         [normal("w1", 8, 2112), normal("b1", 8), normal("w2", 3, 8), normal("b2", 3)])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), HERE + "/wide.onnx")


if __name__ == "__main__":
    operators()
    wide()
    refusals()
    np.savez_compressed(HERE + "/deflated.npz", x=np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4))
    if os.environ.get("SYNFIT_DATA"):
        networks()
