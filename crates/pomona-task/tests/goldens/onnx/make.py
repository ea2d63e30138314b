#!/usr/bin/env python3
"""Makes small ONNX files and what ONNX Runtime computes with them: NAME.onnx, NAME.safetensors (`in.*`, `out.*`).

    python make.py [NAME ...]

Needs onnx, onnxruntime, numpy, safetensors, and torch for the exported networks. Everything is seeded.
"""
import io
import pathlib
import sys
import zlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper as nh
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
WANTED = set(sys.argv[1:])
DT = {np.dtype("float32"): T.FLOAT, np.dtype("int64"): T.INT64, np.dtype("int32"): T.INT32,
      np.dtype("bool"): T.BOOL, np.dtype("float16"): T.FLOAT16}
n = h.make_node


def draw(name, *shape, scale=0.5):
    return (np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape) * scale).astype(np.float32)


def keep(name, model, feeds, external=False, plain=False):
    path = HERE / f"{name}.onnx"
    if external:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{name}.data", size_threshold=64)
    else:
        onnx.save(model, str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    s = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outs = s.run(None, feeds)
    for o, v in zip(model.graph.output, outs):
        if not o.type.tensor_type.HasField("shape"):
            # The checker wants a rank.
            for _ in v.shape:
                o.type.tensor_type.shape.dim.add()
            o.type.tensor_type.shape.SetInParent()
    if not external:
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
    data = {f"in.{k}": np.ascontiguousarray(v) for k, v in feeds.items()}
    data.update({f"out.{o.name}": np.ascontiguousarray(v) for o, v in zip(s.get_outputs(), outs)})
    save_file(data, str(HERE / f"{name}.safetensors"))
    print(name, len(model.graph.node), "nodes", path.stat().st_size, "bytes")


def build(name, nodes, feeds, weights, outputs, opset=17, ir=8, axes=None, types=None, functions=(), opsets=(), external=False):
    if WANTED and name not in WANTED:
        return
    axes, types = axes or {}, types or {}
    ins = [h.make_tensor_value_info(k, DT[v.dtype], axes.get(k, v.shape)) for k, v in feeds.items()]
    outs = [h.make_tensor_value_info(o, types.get(o, T.FLOAT), None) for o in outputs]
    weights = {k: np.asarray(v) for k, v in weights.items()}
    init = [nh.from_array(v, k) for k, v in weights.items()]
    if ir < 4:
        ins += [h.make_tensor_value_info(k, DT[v.dtype], v.shape) for k, v in weights.items()]
    g = h.make_graph(nodes, name, ins, outs, init)
    m = h.make_model(g, opset_imports=[h.make_opsetid("", opset), *opsets], ir_version=ir, functions=list(functions))
    keep(name, m, feeds, external)


def i64(*v):
    return np.array(v, np.int64)


def cnn(opset, ir):
    """A small CNN whose squeezes, pads, clips and reductions are attributes or inputs, as the operator set has them."""
    w = {"c1.weight": draw("c1", 6, 3, 3, 3), "c1.bias": draw("b1", 6), "bn.weight": draw("g", 6) + 1, "bn.bias": draw("b", 6),
         "bn.running_mean": draw("m", 6), "bn.running_var": np.abs(draw("v", 6)) + 0.5, "dw.weight": draw("dw", 6, 1, 3, 3),
         "up.weight": draw("up", 6, 4, 2, 2), "slope": np.array([[[0.1]], [[0.2]], [[0.3]], [[0.4]]], np.float32),
         "fc.weight": draw("fc", 5, 4), "fc.bias": draw("fb", 5), "shape": i64(0, -1)}
    nodes = []
    if opset < 11:
        nodes.append(n("Pad", ["x"], ["p"], pads=[0, 0, 1, 0, 0, 0, 1, 2], mode="reflect"))
    else:
        w["pads"] = i64(0, 0, 1, 0, 0, 0, 1, 2)
        nodes.append(n("Pad", ["x", "pads"], ["p"], mode="reflect"))
    nodes += [n("Conv", ["p", "c1.weight", "c1.bias"], ["a"], kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1]),
              n("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"], ["b"], epsilon=1e-5)]
    if opset < 11:
        nodes.append(n("Clip", ["b"], ["c"], min=0.0, max=6.0))
    else:
        w["low"], w["high"] = np.float32(0), np.float32(6)
        nodes.append(n("Clip", ["b", "low", "high"], ["c"]))
    nodes += [n("Conv", ["c", "dw.weight"], ["d"], group=6, auto_pad="SAME_UPPER"),
              n("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
              n("ConvTranspose", ["e", "up.weight"], ["f"], strides=[2, 2]), n("PRelu", ["f", "slope"], ["g"])]
    if opset >= 9:
        w["scales"] = np.array([1, 1, 2, 2], np.float32)
    if opset < 9:
        nodes.append(n("Upsample", ["g"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]))
    elif opset < 11:
        nodes.append(n("Upsample" if opset < 10 else "Resize", ["g", "scales"], ["u"], mode="nearest"))
    else:
        w["roi"] = np.zeros(8, np.float32)
        nodes.append(n("Resize", ["g", "roi", "scales"], ["u"], mode="linear"))
    if opset < 18:
        nodes.append(n("ReduceMean", ["u"], ["r"], axes=[2, 3], keepdims=1))
    else:
        w["axes"] = i64(2, 3)
        nodes.append(n("ReduceMean", ["u", "axes"], ["r"], keepdims=1))
    if opset < 13:
        nodes.append(n("Squeeze", ["r"], ["s"], axes=[2, 3]))
    else:
        w["sq"] = i64(-1, -2)
        nodes.append(n("Squeeze", ["r", "sq"], ["s"]))
    nodes += [n("Reshape", ["s", "shape"], ["t"]),
              n("Gemm", ["t", "fc.weight", "fc.bias"], ["z"], transB=1, alpha=0.5, beta=2.0), n("Softmax", ["z"], ["y"], axis=1)]
    build(f"cnn_opset{opset}", nodes, {"x": draw("x", 2, 3, 8, 7)}, w, ["y"], opset, ir, axes={"x": ["batch", 3, 8, 7]})


def elementwise():
    nodes = []
    for op, kw in [("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 0.7}), ("Selu", {}), ("Celu", {"alpha": 0.6}),
                   ("Sigmoid", {}), ("HardSigmoid", {"alpha": 0.3}), ("HardSwish", {}), ("Tanh", {}), ("Softplus", {}),
                   ("Softsign", {}), ("Mish", {}), ("Exp", {}), ("Abs", {}), ("Neg", {}), ("Sin", {}), ("Cos", {}), ("Erf", {}),
                   ("Floor", {}), ("Ceil", {}), ("Round", {}), ("Sign", {}), ("LogSoftmax", {}), ("LpNormalization", {})]:
        nodes.append(n(op, ["x"], [f"y.{op}"], **kw))
    nodes += [n(op, ["p"], [f"y.{op}"]) for op in ["Log", "Sqrt", "Reciprocal"]]
    nodes += [n(op, ["x", "row"], [f"y.{op}"]) for op in ["Add", "Sub", "Mul", "Div", "Min", "Max"]]
    nodes += [n(op, ["x", "ax"], [f"y.{op}"], keepdims=0)
              for op in ["ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"]]
    nodes += [n("Pow", ["p", "x"], ["y.Pow"]), n("Sub", ["one", "x"], ["y.Rsub"]), n("Div", ["one", "p"], ["y.Rdiv"]),
              n("Sum", ["x", "p", "row"], ["y.Sum"]), n("Mean", ["x", "p", "row"], ["y.Mean"]),
              n("Greater", ["x", "zero"], ["m1"]), n("LessOrEqual", ["x", "p"], ["m2"]), n("And", ["m1", "m2"], ["m3"]),
              n("Xor", ["m1", "m3"], ["m4"]), n("Not", ["m4"], ["m5"]), n("Where", ["m5", "x", "p"], ["y.Where"]),
              n("Cast", ["m5"], ["y.Cast"], to=T.FLOAT), n("Mod", ["p", "half"], ["y.Mod"], fmod=1)]
    outs = [o for node in nodes for o in node.output if o.startswith("y.")]
    w = {"row": draw("row", 6), "one": np.float32(1), "zero": np.float32(0), "half": np.float32(0.4), "ax": i64(1)}
    build("elementwise", nodes, {"x": draw("ex", 2, 6), "p": np.abs(draw("ep", 2, 6)) + 0.5}, w, outs, 18)


def layout():
    w = {"s0": i64(1, 0), "s1": i64(3, 2**62), "ax": i64(2, -1), "st": i64(1, 2), "r0": i64(-1), "r1": i64(-(2**62)), "rx": i64(1),
         "rs": i64(-2), "index": i64(3, -1, 0), "rep": i64(1, 2, 1, 3), "sh": i64(2, -1, 4), "pads": i64(0, 1, 0, -1, 0, 0, 2, 1),
         "value": np.float32(0.3), "parts": i64(3, 5), "ex": i64(3, 1, 8, 1, 1), "k": i64(2), "cax": np.array(1, np.int64),
         "uk": np.array(1, np.int64), "scalar": np.array(-2, np.int64), "m": draw("em", 6, 5), "usq": i64(0, -1)}
    nodes = [n("Slice", ["x", "s0", "s1", "ax", "st"], ["y.slice"]), n("Slice", ["x", "r0", "r1", "rx", "rs"], ["y.backwards"]),
             n("Gather", ["x", "index"], ["y.gather"], axis=1), n("Gather", ["x", "scalar"], ["y.pick"], axis=2),
             n("Tile", ["x", "rep"], ["y.tile"]), n("Reshape", ["x", "sh"], ["y.reshape"]), n("Pad", ["x", "pads", "value"], ["y.pad"]),
             n("Split", ["x", "parts"], ["y.a", "y.b"], axis=1), n("Concat", ["y.b", "x", "y.a"], ["y.concat"], axis=1),
             n("Expand", ["x", "ex"], ["y.expand"]), n("TopK", ["x", "k"], ["y.top", "y.where"]), n("CumSum", ["x", "cax"], ["y.cumsum"]),
             n("ArgMax", ["x"], ["y.argmax"], axis=1, keepdims=0), n("DepthToSpace", ["x"], ["y.dcr"], blocksize=2),
             n("DepthToSpace", ["x"], ["y.crd"], blocksize=2, mode="CRD"), n("SpaceToDepth", ["x"], ["y.s2d"], blocksize=2),
             n("Trilu", ["x", "uk"], ["y.trilu"], upper=0), n("Flatten", ["x"], ["y.flat"], axis=2),
             n("Transpose", ["x"], ["y.t"], perm=[0, 2, 3, 1]), n("Einsum", ["x", "x"], ["y.einsum"], equation="bcij,bcik->bjck"),
             n("Einsum", ["x", "m"], ["y.einsum2"], equation="bcij,jk->kbi"), n("Unsqueeze", ["x", "usq"], ["y.un"])]
    outs = [o for node in nodes for o in node.output]
    build("layout", nodes, {"x": draw("lx", 2, 8, 4, 6)}, w, outs, 17, types={"y.where": T.INT64, "y.argmax": T.INT64})


def spatial():
    w = {"c1": draw("s1", 4, 2, 3), "c3": draw("s3", 2, 1, 2, 2, 2), "t1": draw("st", 4, 3, 3, 3), "cg": draw("cg", 6, 2, 3, 3),
         "sizes": i64(1, 4, 9, 5), "scales": np.array([1, 1, 2, 2], np.float32), "half": np.array([1, 1, 0.5, 0.5], np.float32)}
    nodes = [n("Conv", ["u", "c1"], ["y.conv1"], pads=[2, 0], dilations=[2]), n("Conv", ["v", "c3"], ["y.conv3"], strides=[1, 2, 1]),
             n("Conv", ["x", "cg"], ["y.grouped"], group=2, pads=[1, 0, 0, 1]),
             n("ConvTranspose", ["x", "t1"], ["y.t"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
             n("ConvTranspose", ["x", "t1"], ["y.same"], strides=[2, 2], auto_pad="SAME_UPPER"),
             n("AveragePool", ["x"], ["y.avg"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
             n("AveragePool", ["x"], ["y.avg2"], kernel_shape=[3, 2], pads=[1, 0, 1, 0], count_include_pad=1),
             n("MaxPool", ["x"], ["y.max"], kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1), n("GlobalMaxPool", ["x"], ["y.gmax"]),
             n("GlobalAveragePool", ["x"], ["y.gavg"]), n("Resize", ["x", "", "", "sizes"], ["y.cubic"], mode="cubic"),
             n("Resize", ["x", "", "", "sizes"], ["y.align"], mode="linear", coordinate_transformation_mode="align_corners"),
             n("Resize", ["x", "", "scales"], ["y.near"], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
             n("Resize", ["x", "", "scales"], ["y.half"], mode="nearest"), n("Resize", ["x", "", "half"], ["y.down"], mode="linear")]
    feeds = {"u": draw("u", 1, 2, 7), "v": draw("v", 1, 1, 3, 4, 3), "x": draw("sx", 1, 4, 6, 4)}
    build("spatial", nodes, feeds, w, [node.output[0] for node in nodes], 17)


def recurrent(cell, direction, before=0):
    dirs, g = (2 if direction == "bidirectional" else 1), (4 if cell == "LSTM" else 3)
    d, hid, b, t = 3, 4, 2, 5
    w = {"W": draw(cell + "W", dirs, g * hid, d), "R": draw(cell + "R", dirs, g * hid, hid), "B": draw(cell + "B", dirs, 2 * g * hid)}
    feeds = {"x": draw("rx", t, b, d), "h0": draw("h0", dirs, b, hid)}
    outs, ins, extra = ["y", "h"], ["x", "W", "R", "B", "", "h0"], {}
    if cell == "LSTM":
        feeds["c0"] = draw("c0", dirs, b, hid)
        outs, ins = outs + ["c"], ins + ["c0"]
    else:
        extra = {"linear_before_reset": before}
    node = n(cell, ins, outs, hidden_size=hid, direction=direction, **extra)
    build(f"{cell.lower()}_{direction}{before or ''}", [node], feeds, w, outs, 14)


def shapes():
    """Symbolic batch and length through shape arithmetic, a branch with a known condition, a range and an expansion."""
    w = {"emb.weight": draw("emb", 11, 6), "pos": draw("pos", 16, 6), "i0": np.array(0, np.int64), "i1": np.array(1, np.int64),
         "ax0": i64(0), "six": i64(6), "two": i64(2), "three": i64(3), "zero": np.array(0, np.int64), "step": np.array(1, np.int64)}
    then = h.make_graph([n("Mul", ["add", "half"], ["th"])], "then", [], [h.make_tensor_value_info("th", T.FLOAT, None)],
                        [nh.from_array(np.float32(0.5), "half")])
    other = h.make_graph([n("Neg", ["add"], ["el"])], "else", [], [h.make_tensor_value_info("el", T.FLOAT, None)])
    nodes = [n("Gather", ["emb.weight", "ids"], ["e"]), n("Shape", ["ids"], ["s"]), n("Gather", ["s", "i1"], ["len"]),
             n("Gather", ["s", "i0"], ["bat"]), n("Range", ["zero", "len", "step"], ["r"]), n("Gather", ["pos", "r"], ["p"]),
             n("Add", ["e", "p"], ["add"]), n("Size", ["six"], ["one"]), n("Equal", ["one", "step"], ["cond"]),
             n("If", ["cond"], ["br"], then_branch=then, else_branch=other), n("Unsqueeze", ["bat", "ax0"], ["b1"]),
             n("Unsqueeze", ["len", "ax0"], ["l1"]), n("Mul", ["l1", "two"], ["l2"]), n("Concat", ["b1", "l2", "three"], ["sh"], axis=0),
             n("Reshape", ["br", "sh"], ["y"]), n("ConstantOfShape", ["sh"], ["ones"], value=nh.from_array(np.array([2], np.float32))),
             n("Mul", ["y", "ones"], ["z"])]
    build("shapes", nodes, {"ids": np.array([[1, 4, 10], [0, 7, 2]], np.int64)}, w, ["y", "z"], 13, axes={"ids": ["batch", "seq len"]})


def qdq():
    """A convolution and a product between QuantizeLinear and DequantizeLinear, weights stored as int8 by channel."""
    def q(name, *s):
        return np.random.RandomState(zlib.crc32(name.encode())).randint(-90, 90, s).astype(np.int8)
    w = {"xs": np.float32(0.02), "xz": np.array(3, np.uint8), "cw": q("cw", 4, 3, 3, 3), "cs": np.array([.01, .02, .015, .03], np.float32),
         "cz": np.zeros(4, np.int8), "ys": np.float32(0.08), "yz": np.array(120, np.uint8), "fw": q("fw", 4, 5),
         "fs": np.array([.01, .02, .01, .02, .01], np.float32), "fz": np.zeros(5, np.int8), "cb": draw("qb", 4)}
    nodes = [n("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), n("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
             n("DequantizeLinear", ["cw", "cs", "cz"], ["cd"], axis=0), n("Conv", ["xd", "cd", "cb"], ["c"], pads=[1, 1, 1, 1]),
             n("Relu", ["c"], ["r"]), n("GlobalAveragePool", ["r"], ["g"]), n("Flatten", ["g"], ["f"]),
             n("QuantizeLinear", ["f", "ys", "yz"], ["fq"]), n("DequantizeLinear", ["fq", "ys", "yz"], ["fd"]),
             n("DequantizeLinear", ["fw", "fs", "fz"], ["fwd"], axis=1), n("MatMul", ["fd", "fwd"], ["y"])]
    # Inputs on the grid, so that rounding changes nothing before the first operator.
    x = ((np.random.RandomState(5).randint(0, 256, (1, 3, 6, 6)) - 3) * np.float32(0.02)).astype(np.float32)
    build("qdq", nodes, {"x": x}, w, ["y"], 13)


def qdq_pairs():
    """Pairs around floats: a turned weight, a weight of a Gemm with a factor, a bias, both sides of a sum, a view, what two ports share,
    and ports themselves."""
    w = {"s": np.float32(0.04), "z": np.array(110, np.uint8), "ws": np.array([.01, .02, .015, .03, .02, .01], np.float32), "wz": np.zeros(6, np.int8),
         "a": draw("qa", 6, 4, scale=0.3), "bias": draw("qpb", 6), "b": draw("qpc", 4, 6, scale=0.3), "bs": np.float32(0.007), "bz": np.array(-4, np.int8),
         "shape": i64(-1, 2, 3), "flat": i64(-1, 6), "gain": draw("qg", 6) + 1, "shift": draw("qh", 6), "hs": np.float32(0.11), "two": np.float32(2)}

    def pair(x, s="s", z="z", **kw):
        return [n("QuantizeLinear", [x, s, z], [x + ".q"], **kw), n("DequantizeLinear", [x + ".q", s, z], [x + ".d"], **kw)]
    nodes = pair("x") + pair("a", "ws", "wz", axis=0) + pair("bias", "bs", "bz") + pair("b", "bs", "bz")
    nodes += [n("Transpose", ["a.d"], ["at"], perm=[1, 0]), n("MatMul", ["x.d", "at"], ["m"]), n("Add", ["m", "bias.d"], ["lin"]), *pair("lin"),
              n("Reshape", ["lin.d", "shape"], ["r"]), *pair("r", "hs"), n("Reshape", ["r.d", "flat"], ["back"]),
              n("Add", ["lin.d", "back"], ["sum"]), *pair("sum"), n("LayerNormalization", ["sum.d", "gain", "shift"], ["ln"]), n("Relu", ["sum"], ["y.relu"]),
              n("Gemm", ["ln", "b.d"], ["g"], transB=1, alpha=0.5), n("Identity", ["g"], ["same"]), *pair("same"),
              n("Sigmoid", ["same.d"], ["sg"]), n("Mul", ["same.d", "sg"], ["y.silu"]), *pair("y.silu"), n("Mul", ["g", "two"], ["y.twice"])]
    build("qdq_pairs", nodes, {"x": draw("qx", 3, 4)}, w, ["lin.d", "y.relu", "same.d", "y.silu.d", "y.twice"], 17, axes={"x": ["batch", 4]})


def quantised():
    """What ONNX Runtime's own tool makes of files above: static quantisation, every operator that it knows. Run as the file says: its
    optimiser would put integer kernels in place of pairs, which saturate and end up to a quarter of the output's range away."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from safetensors.numpy import load_file
    for source, weights, per_channel in [("cnn_opset13", QuantType.QInt8, True), ("vit", QuantType.QInt8, True), ("unet", QuantType.QUInt8, False)]:
        name = f"quantised_{source}"
        if WANTED and name not in WANTED:
            continue
        feeds = {k[3:]: v for k, v in load_file(str(HERE / f"{source}.safetensors")).items() if k.startswith("in.")}

        class Reader(CalibrationDataReader):
            left = [feeds]

            def get_next(self):
                return self.left.pop() if self.left else None
        path = HERE / f"{name}.onnx"
        Reader.left = [feeds]
        quantize_static(str(HERE / f"{source}.onnx"), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                        weight_type=weights, activation_type=QuantType.QUInt8)
        keep(name, onnx.load(str(path)), feeds, plain=True)


def functions():
    f = h.make_function("local", "Scale", ["a"], ["o"], [n("LeakyRelu", ["a"], ["t"], name="leak"), n("Add", ["t", "a"], ["o"])],
                        [h.make_opsetid("", 17)], attributes=["alpha"])
    ref = f.node[0].attribute.add()
    ref.name, ref.ref_attr_name, ref.type = "alpha", "alpha", onnx.AttributeProto.FLOAT
    nodes = [n("Scale", ["x"], ["a"], domain="local", alpha=0.3), n("Scale", ["a"], ["y"], domain="local", alpha=-0.2)]
    build("functions", nodes, {"x": draw("fx", 2, 3)}, {}, ["y"], 17, functions=[f], opsets=[h.make_opsetid("local", 1)])


def norms():
    w = {"g": draw("ng", 8) + 1, "b": draw("nb", 8), "g2": draw("g2", 4, 5) + 1, "b2": draw("b2", 4, 5)}
    nodes = [n("InstanceNormalization", ["x", "g", "b"], ["y.i"]), n("LayerNormalization", ["x", "g2", "b2"], ["y.l"], axis=2, epsilon=1e-4),
             n("GroupNormalization", ["x", "g", "b"], ["y.g"], num_groups=4), n("Softmax", ["x"], ["y.s"], axis=1), n("Gelu", ["x"], ["y.e"]),
             n("Gelu", ["x"], ["y.t"], approximate="tanh")]
    build("norms", nodes, {"x": draw("nx", 2, 8, 4, 5)}, w, ["y.i", "y.l", "y.g", "y.s", "y.e", "y.t"], 21, 10)
    old = [n("Softmax", ["x"], ["y"]), n("LogSoftmax", ["x"], ["z"], axis=2)]
    build("softmax_old", old, {"x": draw("nx", 2, 8, 4, 5)}, {}, ["y", "z"], 11, 6)


def half():
    """A float16 network: weights, input and output. Multiples of a quarter, so that sums are exact in both types."""
    def grid(name, *s):
        return (np.round(draw(name, *s) * 4) / 4).astype(np.float16)
    nodes = [n("Gemm", ["x", "w", "b"], ["t"], transB=1), n("Relu", ["t"], ["y"])]
    build("half", nodes, {"x": grid("hx", 3, 5)}, {"w": grid("hw", 6, 5), "b": grid("hb", 6)}, ["y"], 17,
          axes={"x": ["n", 5]}, types={"y": T.FLOAT16})


def nhwc():
    """As converters from TensorFlow write it: pictures with channels last behind transpositions."""
    w = {"k": draw("nk", 5, 3, 3, 3), "kb": draw("nkb", 5), "d": draw("nd", 5, 4)}
    nodes = [n("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
             n("Conv", ["t", "k", "kb"], ["c"], auto_pad="SAME_LOWER", strides=[2, 2], name="model/conv/Conv2D"),
             n("Relu", ["c"], ["r"]), n("Transpose", ["r"], ["tb"], perm=[0, 2, 3, 1]), n("Transpose", ["tb"], ["tc"], perm=[0, 3, 1, 2]),
             n("MaxPool", ["tc"], ["p"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
             n("ReduceMean", ["p"], ["m"], axes=[2, 3], keepdims=0), n("MatMul", ["m", "d"], ["y"])]
    build("nhwc", nodes, {"x": draw("nhx", 1, 9, 9, 3)}, w, ["y"], 13, axes={"x": ["unk__1", 9, 9, 3]})


def external():
    w = {"a": draw("xa", 16, 8), "b": draw("xb", 8, 4)}
    nodes = [n("MatMul", ["x", "a"], ["t"]), n("Tanh", ["t"], ["u"]), n("MatMul", ["u", "b"], ["y"])]
    build("external", nodes, {"x": draw("xx", 3, 16)}, w, ["y"], 17, external=True)


def exported():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    def save(name, net, args, inputs, axes=None, opset=17):
        if WANTED and name not in WANTED:
            return
        net.eval()
        for p, t in net.named_parameters():
            t.data = torch.from_numpy(draw(p, *t.shape, scale=0.3)) + (1.0 if "norm" in p and p.endswith("weight") else 0.0)
        buffer = io.BytesIO()
        torch.onnx.export(net, args, buffer, input_names=inputs, output_names=["y"], dynamic_axes=axes, opset_version=opset, dynamo=False)
        keep(name, onnx.load_from_string(buffer.getvalue()), {k: v.numpy() for k, v in zip(inputs, args)})

    class Attention(nn.Module):
        def __init__(self, c, heads, kv=None, fused=False):
            super().__init__()
            self.h, self.kv, self.fused = heads, kv or heads, fused
            if fused:
                self.qkv = nn.Linear(c, 3 * c)
            else:
                self.q, self.k, self.v = nn.Linear(c, c), nn.Linear(c, c * self.kv // heads), nn.Linear(c, c * self.kv // heads)
            self.proj = nn.Linear(c, c)

        def forward(self, x, mask=None):
            b, t, c = x.shape
            d = c // self.h
            if self.fused:
                q, k, v = self.qkv(x).reshape(b, t, 3, self.h, d).permute(2, 0, 3, 1, 4).unbind(0)
            else:
                q = self.q(x).view(b, t, self.h, d).transpose(1, 2)
                k = self.k(x).view(b, t, self.kv, d).transpose(1, 2)
                v = self.v(x).view(b, t, self.kv, d).transpose(1, 2)
                if self.kv != self.h:
                    r = self.h // self.kv
                    k = k[:, :, None].expand(b, self.kv, r, t, d).reshape(b, self.h, t, d)
                    v = v[:, :, None].expand(b, self.kv, r, t, d).reshape(b, self.h, t, d)
            a = (q * d**-0.5) @ k.transpose(-2, -1)
            if mask is not None:
                a = a + mask
            return self.proj((a.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))

    class Block(nn.Module):
        def __init__(self, c, heads, **kw):
            super().__init__()
            self.norm1, self.attn, self.norm2 = nn.LayerNorm(c), Attention(c, heads, **kw), nn.LayerNorm(c)
            self.fc1, self.fc2 = nn.Linear(c, 2 * c), nn.Linear(2 * c, c)

        def forward(self, x, mask=None):
            x = x + self.attn(self.norm1(x), mask)
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    class Vit(nn.Module):
        def __init__(self, **kw):
            super().__init__()
            self.patch, self.cls, self.pos = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 5, 16))
            self.blocks = nn.ModuleList(Block(16, 4, **kw) for _ in range(2))
            self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
            for b in self.blocks:
                x = b(x)
            return self.head(self.norm(x)[:, 0])

    pic = torch.from_numpy(draw("pic", 2, 3, 8, 8))
    save("vit", Vit(), (pic,), ["x"], {"x": {0: "batch"}}, 14)
    save("vit_fused", Vit(fused=True), (pic,), ["x"], {"x": {0: "batch"}})
    save("vit_static", Vit(fused=True), (pic[:1],), ["x"], None, 17)

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.block, self.norm = nn.Embedding(20, 16), Block(16, 4, kv=2), nn.LayerNorm(16)

        def forward(self, ids):
            t = ids.shape[1]
            mask = torch.full((t, t), -1e4).triu(1)
            return self.norm(self.block(self.emb(ids), mask)) @ self.emb.weight.t()

    save("text", Text(), (torch.tensor([[3, 1, 4, 1, 5]]),), ["ids"], {"ids": {0: "batch"}})

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.norm1, self.down = nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.Conv2d(8, 16, 3, 2, 1)
            self.norm2, self.qkv, self.out, self.up = nn.GroupNorm(4, 16), nn.Conv1d(16, 48, 1), nn.Conv1d(16, 16, 1), nn.Conv2d(16, 8, 3, padding=1)
            self.last = nn.Conv2d(16, 2, 3, padding=1)

        def forward(self, x):
            a = F.silu(self.norm1(self.inp(x)))
            y = self.down(a)
            b, c, hh, ww = y.shape
            q, k, v = self.qkv(self.norm2(y).reshape(b, c, -1)).reshape(b * 4, 12, hh * ww).split(4, 1)
            w = torch.softmax(torch.einsum("bct,bcs->bts", q * 0.7, k * 0.7), -1)
            y = y + self.out(torch.einsum("bts,bcs->bct", w, v).reshape(b, c, -1)).reshape(b, c, hh, ww)
            y = self.up(F.interpolate(y, scale_factor=2.0, mode="nearest"))
            return self.last(torch.cat([y, a], 1))

    save("unet", UNet(), (torch.from_numpy(draw("ux", 2, 2, 8, 8)),), ["x"], {"x": {0: "batch"}})

    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(4, 3)
            self.lstm, self.gru = nn.LSTM(6, 5, batch_first=True, bidirectional=True), nn.GRU(10, 4, batch_first=True)

        def forward(self, x):
            y, _ = self.lstm(F.relu(self.conv(x)).transpose(1, 2))
            y, _ = self.gru(y)
            return F.log_softmax(self.fc(y), -1)

    save("speech", Speech(), (torch.from_numpy(draw("spx", 2, 4, 7)),), ["x"])

    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.ConvTranspose2d(6, 8, 4, 1, 0), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 4, 2, 1),
                                     nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.2), nn.PixelShuffle(2), nn.Tanh())

        def forward(self, z):
            return self.net(z)

    save("gan", Gan(), (torch.from_numpy(draw("gz", 2, 6, 1, 1)),), ["z"], {"z": {0: "batch"}})


if __name__ == "__main__":
    for o, ir in [(7, 3), (8, 3), (9, 4), (10, 5), (11, 6), (12, 7), (13, 7), (15, 8), (18, 8), (20, 9), (22, 10)]:
        cnn(o, ir)
    elementwise()
    layout()
    spatial()
    for args in [("LSTM", "forward"), ("LSTM", "bidirectional"), ("GRU", "reverse"), ("GRU", "bidirectional", 1)]:
        recurrent(*args)
    shapes()
    qdq()
    qdq_pairs()
    functions()
    norms()
    half()
    nhwc()
    external()
    exported()
    quantised()
