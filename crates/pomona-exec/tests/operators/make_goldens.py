#!/usr/bin/env python3
"""Writes operators.json: what each operator of the graph gives in PyTorch, with gradients, on small seeded inputs.

Needs torch. Everything is computed in double precision and stored as little-endian float32 in hexadecimal. Gradients are
those of the sum of every output times a seeded upstream tensor.

    python make_goldens.py        # writes operators.json beside this file
"""
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
RANDOM = torch.Generator().manual_seed(20)
CASES = []


def r(*shape):
    """Values that float32 holds exactly, so that both sides start from the same."""
    return torch.randn(shape, generator=RANDOM).float().double()


def positive(*shape):
    return r(*shape).abs() + 0.25


def ints(high, *shape):
    return torch.randint(0, high, shape, generator=RANDOM)


def pack(t):
    t = t.detach()
    out = {"shape": list(t.shape)}
    if t.dtype == torch.bool:
        out["bool"] = [bool(v) for v in t.flatten()]
    elif not t.is_floating_point():
        out["int"] = [int(v) for v in t.flatten()]
    else:
        out["float"] = np.ascontiguousarray(t.float().numpy()).astype("<f4").tobytes().hex()
    return out


def case(name, op, inputs, f, weights=None, fixed=(), smooth=True):
    """`f(*inputs, **weights)`; `fixed` names weights without a gradient; not `smooth`: no gradients at all."""
    weights = dict(weights or {})
    leaves = [t.clone().requires_grad_() if t.is_floating_point() and smooth else t for t in inputs]
    params = {k: t.clone().requires_grad_() if smooth and k not in fixed else t for k, t in weights.items()}
    out = f(*leaves, **params)
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    record = {"name": name, "node": op, "inputs": [pack(t) for t in inputs],
              "weights": {k: pack(t) for k, t in weights.items()}, "outputs": [pack(t) for t in outs]}
    tracked = [t for t in outs if t.requires_grad]
    if smooth and tracked:
        upstream = [r(*t.shape) if t.requires_grad else None for t in outs]
        loss = sum((t * u).sum() for t, u in zip(outs, upstream) if u is not None)
        wanted = [("inputs", i, t) for i, t in enumerate(leaves) if t.requires_grad]
        wanted += [("weights", k, t) for k, t in params.items() if t.requires_grad]
        found = torch.autograd.grad(loss, [t for _, _, t in wanted], allow_unused=True)
        record["upstream"] = [pack(u) if u is not None else None for u in upstream]
        record["gradients"] = {"inputs": {}, "weights": {}}
        for (kind, key, t), g in zip(wanted, found):
            record["gradients"][kind][str(key)] = pack(g if g is not None else torch.zeros_like(t))
    CASES.append(record)


def op(name, /, **attrs):
    return {"op": name, **attrs}


def conv_attrs(rank, stride=1, padding=0, dilation=1, groups=1):
    pad = padding if isinstance(padding, list) else [[padding, padding]] * rank
    return {"stride": [stride] * rank, "padding": pad, "dilation": [dilation] * rank, "groups": groups}


def bordered(x, padding, **kw):
    flat = [v for pair in reversed(padding) for v in pair]
    return F.pad(x, flat, **kw)


# Products with weights.
case("linear", op("linear"), [r(2, 3, 5)], lambda x, weight, bias: F.linear(x, weight, bias),
     {"weight": r(4, 5), "bias": r(4)})
case("linear without bias", op("linear"), [r(3, 5)], lambda x, weight: F.linear(x, weight), {"weight": r(4, 5)})
case("embedding", op("embedding"), [ints(7, 2, 3)], lambda i, weight: F.embedding(i, weight), {"weight": r(7, 4)})
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TURNED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(name, x, weight, bias=True, **kw):
    rank = x.dim() - 2
    a = conv_attrs(rank, **kw)

    def f(x, weight, bias=None):
        return CONV[rank](bordered(x, a["padding"]), weight, bias, a["stride"], 0, a["dilation"], a["groups"])

    w = {"weight": weight, **({"bias": r(weight.shape[0])} if bias else {})}
    case(name, op("conv", **a), [x], f, w)


conv("conv 1d", r(2, 3, 9), r(4, 3, 3), stride=2, padding=1)
conv("conv 2d", r(2, 3, 5, 6), r(4, 3, 3, 3), padding=1)
conv("conv 2d 1x1", r(1, 4, 3, 3), r(2, 4, 1, 1), bias=False)
conv("conv 2d stride", r(1, 3, 7, 7), r(2, 3, 3, 3), stride=2, padding=1)
conv("conv 2d dilation", r(1, 2, 7, 7), r(2, 2, 3, 3), dilation=2, padding=2)
conv("conv 2d grouped", r(1, 4, 5, 5), r(6, 2, 3, 3), groups=2)
conv("conv 2d depthwise", r(1, 4, 5, 5), r(4, 1, 3, 3), groups=4, padding=1)
conv("conv 2d uneven border", r(1, 2, 6, 5), r(2, 2, 3, 3), stride=2, padding=[[0, 1], [2, 0]])
conv("conv 3d", r(1, 2, 4, 4, 4), r(3, 2, 3, 3, 3), padding=1)


def turned(name, x, weight, outs, extra=0, bias=True, **kw):
    rank = x.dim() - 2
    a = conv_attrs(rank, **kw)

    def f(x, weight, bias=None):
        y = TURNED[rank](x, weight, bias, a["stride"], 0, extra, a["groups"], a["dilation"])
        for i, (before, after) in enumerate(a["padding"]):
            y = y.narrow(i + 2, before, y.shape[i + 2] - before - after)
        return y

    w = {"weight": weight, **({"bias": r(outs)} if bias else {})}
    case(name, op("conv_transpose", **a, output_padding=[extra] * rank), [x], f, w)


turned("conv transpose 1d", r(2, 3, 5), r(3, 2, 4), 2, stride=2, padding=1)
turned("conv transpose 2d", r(1, 3, 4, 3), r(3, 2, 4, 4), 2, stride=2, padding=1)
turned("conv transpose 2d output padding", r(1, 2, 3, 3), r(2, 3, 3, 3), 3, stride=2, padding=1, extra=1)
turned("conv transpose 2d grouped", r(1, 4, 3, 3), r(4, 1, 3, 3), 2, groups=2, stride=2, bias=False)
turned("conv transpose 2d dilation", r(1, 2, 3, 3), r(2, 2, 2, 2), 2, dilation=2)
turned("conv transpose 2d uneven border", r(1, 2, 4, 4), r(2, 2, 3, 3), 2, stride=2, padding=[[0, 1], [1, 0]])

# Normalisation.
case("layer norm", op("layer_norm", axes=1, eps=1e-5), [r(2, 3, 8)],
     lambda x, weight, bias: F.layer_norm(x, [8], weight, bias, 1e-5), {"weight": r(8), "bias": r(8)})
case("layer norm of two axes", op("layer_norm", axes=2, eps=1e-3), [r(2, 3, 4)],
     lambda x, weight, bias: F.layer_norm(x, [3, 4], weight, bias, 1e-3), {"weight": r(3, 4), "bias": r(3, 4)})
case("layer norm plain", op("layer_norm", axes=1, eps=1e-5), [r(3, 6)], lambda x: F.layer_norm(x, [6], eps=1e-5))


def rms(x, weight, eps, offset):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * (offset + weight)


case("rms norm", op("rms_norm", eps=1e-5, offset=0.0), [r(2, 3, 8)],
     lambda x, weight: rms(x, weight, 1e-5, 0), {"weight": r(8)})
case("rms norm offset", op("rms_norm", eps=1e-6, offset=1.0), [r(3, 8)],
     lambda x, weight: rms(x, weight, 1e-6, 1), {"weight": r(8)})
case("group norm", op("group_norm", groups=2, eps=1e-5), [r(2, 6, 3, 3)],
     lambda x, weight, bias: F.group_norm(x, 2, weight, bias, 1e-5), {"weight": r(6), "bias": r(6)})
case("group norm 1d plain", op("group_norm", groups=3, eps=1e-5), [r(2, 6, 4)], lambda x: F.group_norm(x, 3, eps=1e-5))
case("instance norm", op("instance_norm", eps=1e-5), [r(2, 3, 4, 4)],
     lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias, eps=1e-5), {"weight": r(3), "bias": r(3)})
STATS = ("running_mean", "running_var")


def running(x, running_mean, running_var, weight=None, bias=None):
    return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.1, 1e-5)


case("batch norm", op("batch_norm", eps=1e-5, momentum=0.1, statistics="running"), [r(2, 3, 4, 4)], running,
     {"weight": r(3), "bias": r(3), "running_mean": r(3), "running_var": positive(3)}, fixed=STATS)
case("batch norm of rows", op("batch_norm", eps=1e-5, momentum=0.1, statistics="running"), [r(4, 3)], running,
     {"running_mean": r(3), "running_var": positive(3)}, fixed=STATS)
case("batch norm by the batch", op("batch_norm", eps=1e-5, momentum=0.1, statistics="batch"), [r(2, 3, 4, 4)],
     lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-5), {"weight": r(3), "bias": r(3)})

# Element by element. Steps and kinks are avoided by the seeds: no value sits on one.
ACTIVATIONS = {
    "relu": F.relu, "relu6": F.relu6, "silu": F.silu, "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "sigmoid": torch.sigmoid, "hard_swish": F.hardswish, "tanh": torch.tanh, "softplus": F.softplus, "mish": F.mish,
    "selu": F.selu, "exp": torch.exp, "abs": torch.abs, "neg": torch.neg, "sin": torch.sin, "cos": torch.cos,
    "erf": torch.erf,
}
for name, f in ACTIVATIONS.items():
    case(name, op("activation", function=name), [r(3, 7) * 4], f)
for name, f in {"log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal}.items():
    case(name, op("activation", function=name), [positive(3, 5)], f)
case("leaky relu", op("activation", function={"leaky_relu": 0.2}), [r(3, 5)], lambda x: F.leaky_relu(x, 0.2))
case("elu", op("activation", function={"elu": 0.7}), [r(3, 5)], lambda x: F.elu(x, 0.7))
case("hard sigmoid", op("activation", function={"hard_sigmoid": [0.2, 0.5]}), [r(3, 5) * 4],
     lambda x: (0.2 * x + 0.5).clamp(0, 1))
for name, f in {"floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "sign": torch.sign}.items():
    case(name, op("activation", function=name), [torch.cat([r(2, 5) * 4, torch.tensor([[0.5, 1.5, 2.5, -0.5, 0.0]])])], f,
         smooth=False)
case("not", op("activation", function="not"), [ints(2, 5).bool()], torch.logical_not, smooth=False)
case("softplus far out", op("activation", function="softplus"), [torch.tensor([-90.0, -20, 20, 90])], F.softplus)
case("sigmoid far out", op("activation", function="sigmoid"), [torch.tensor([-90.0, -20, 20, 90])], torch.sigmoid)
case("prelu", op("p_relu"), [r(2, 3, 4)], lambda x, weight: F.prelu(x, weight), {"weight": r(3)})
case("prelu of one slope", op("p_relu"), [r(2, 3, 4)], lambda x, weight: F.prelu(x, weight), {"weight": r(1)})
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "min": torch.minimum,
          "max": torch.maximum}
for name, f in BINARY.items():
    case(name, op("binary", function=name), [r(2, 3, 4), r(3, 1) + 0.1], f)
case("mul of one shape", op("binary", function="mul"), [r(3, 4), r(3, 4)], torch.mul)
case("pow", op("binary", function="pow"), [positive(3, 4), r(4)], torch.pow)
case("mod", op("binary", function="mod"), [r(3, 4) * 5, positive(4)], torch.remainder, smooth=False)
COMPARE = {"equal": torch.eq, "less": torch.lt, "less_equal": torch.le, "greater": torch.gt, "greater_equal": torch.ge}
for name, f in COMPARE.items():
    case(name, op("binary", function=name), [ints(3, 3, 4), ints(3, 4)], f, smooth=False)
    case(name + " of floats", op("binary", function=name), [ints(3, 3, 4).double(), ints(3, 4).double()], f, smooth=False)
case("and", op("binary", function="and"), [ints(2, 3, 4).bool(), ints(2, 4).bool()], torch.logical_and, smooth=False)
case("or", op("binary", function="or"), [ints(2, 3, 4).bool(), ints(2, 4).bool()], torch.logical_or, smooth=False)
case("integers", op("binary", function="mod"), [ints(9, 3, 4) - 4, ints(3, 4) + 1], torch.remainder, smooth=False)
case("large integers", op("binary", function="equal"), [torch.tensor([2**53 + 1, 5]), torch.tensor([2**53, 5])], torch.eq,
     smooth=False)
SCALAR = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
for name, f in SCALAR.items():
    case(f"{name} number", op("scalar", function=name, value=1.5), [r(3, 4)], lambda x, f=f: f(x, 1.5))
    case(f"number {name}", op("scalar", function=name, value=1.5, reversed=True), [positive(3, 4)],
         lambda x, f=f: f(torch.tensor(1.5), x))
case("pow number", op("scalar", function="pow", value=3.0), [r(3, 4)], lambda x: x**3)
case("number pow", op("scalar", function="pow", value=2.0, reversed=True), [r(3, 4)], lambda x: 2**x)
case("max number", op("scalar", function="max", value=0.3), [r(3, 4)], lambda x: x.clamp(min=0.3))
case("min number", op("scalar", function="min", value=0.3), [r(3, 4)], lambda x: x.clamp(max=0.3))
case("less than number", op("scalar", function="less", value=1.0), [ints(3, 5)], lambda x: x < 1, smooth=False)
case("add of three", op("add"), [r(2, 3), r(2, 3), r(2, 3)], lambda a, b, c: a + b + c)
case("where", op("where"), [ints(2, 3, 1).bool(), r(3, 4), r(4)], torch.where)
case("clip", op("clip", min=-0.5, max=0.8), [r(3, 5)], lambda x: x.clamp(-0.5, 0.8))
case("clip above", op("clip", min=None, max=0.8), [r(3, 5)], lambda x: x.clamp(max=0.8))
case("dropout at inference", op("dropout", rate=0.5), [r(3, 4)], lambda x: x * 1)
case("cast to integers", op("cast", to="int"), [r(3, 4) * 4], lambda x: x.long(), smooth=False)
case("cast to floats", op("cast", to="float"), [ints(9, 3, 4)], lambda x: x.double(), smooth=False)
case("cast to truth", op("cast", to="bool"), [ints(3, 3, 4)], lambda x: x.bool(), smooth=False)

# Attention.


def attention(q, k, v, mask=None, *, heads, kv_heads, scale, causal, window=None, softcap=None):
    b, n, _ = q.shape
    m = k.shape[1]
    q = q.view(b, n, heads, -1).transpose(1, 2)
    k = k.view(b, m, kv_heads, -1).transpose(1, 2).repeat_interleave(heads // kv_heads, 1)
    v = v.view(b, m, kv_heads, -1).transpose(1, 2).repeat_interleave(heads // kv_heads, 1)
    logits = q @ k.transpose(2, 3) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    if mask is not None:
        logits = logits + mask
    row, column = torch.arange(n)[:, None] + m - n, torch.arange(m)[None]
    hidden = torch.zeros(n, m, dtype=torch.bool)
    if causal:
        hidden |= column > row
    if window:
        hidden |= column <= row - window
    logits = logits.masked_fill(hidden, -math.inf)
    return (logits.softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1)


def attend(name, inputs, **kw):
    attrs = {"heads": 2, "kv_heads": 2, "scale": 0.5, "causal": False, **kw}
    case(name, op("attention", **attrs), inputs, lambda *t: attention(*t, **attrs))


attend("attention", [r(2, 3, 8), r(2, 5, 8), r(2, 5, 6)])
attend("attention causal", [r(1, 4, 8), r(1, 4, 8), r(1, 4, 8)], causal=True)
attend("attention with a past", [r(1, 2, 8), r(1, 5, 4), r(1, 5, 4)], heads=4, kv_heads=2, causal=True)
attend("attention window", [r(1, 6, 4), r(1, 6, 4), r(1, 6, 4)], causal=True, window=3)
attend("attention softcap", [r(1, 3, 4) * 3, r(1, 4, 4) * 3, r(1, 4, 4)], softcap=2.0)
attend("attention mask", [r(2, 3, 4), r(2, 4, 4), r(2, 4, 4), r(2, 1, 1, 4)])
attend("attention mask and softcap", [r(1, 3, 4), r(1, 4, 4), r(1, 4, 4), r(1, 2, 3, 4)], softcap=1.5)
attend("attention of one query", [r(1, 1, 8), r(1, 6, 4), r(1, 6, 6)], heads=4, kv_heads=2, causal=True)


def rope(x, positions, heads, rotary, theta, pairing, scaling):
    b, n, width = x.shape
    d = width // heads
    frequency = theta ** (-torch.arange(0, rotary, 2) / rotary)
    if scaling["kind"] == "linear":
        frequency = frequency / scaling["factor"]
    elif scaling["kind"] == "divisors":
        frequency = frequency / torch.tensor(scaling["divisors"])
    elif scaling["kind"] == "llama3":
        wave = 2 * math.pi / frequency
        old, low, high = (scaling[k] for k in ("original_context", "low_freq_factor", "high_freq_factor"))
        smooth = (old / wave - low) / (high - low)
        mixed = (1 - smooth) * frequency / scaling["factor"] + smooth * frequency
        frequency = torch.where(wave > old / low, frequency / scaling["factor"],
                                torch.where(wave < old / high, frequency, mixed))
    angle = positions.double()[..., None] * frequency
    angle = angle.expand(b, n, rotary // 2)[:, :, None]
    cos, sin = angle.cos(), angle.sin()
    x = x.view(b, n, heads, d)
    turn, rest = x[..., :rotary], x[..., rotary:]
    if pairing == "halves":
        p, q = turn.chunk(2, -1)
        turn = torch.cat([p * cos - q * sin, q * cos + p * sin], -1)
    else:
        p, q = turn[..., 0::2], turn[..., 1::2]
        turn = torch.stack([p * cos - q * sin, q * cos + p * sin], -1).flatten(-2)
    return torch.cat([turn, rest], -1).reshape(b, n, width)


def roped(name, x, positions, **kw):
    a = {"heads": 2, "rotary": 4, "theta": 100.0, "pairing": "halves", "scaling": {"kind": "none"}, **kw}
    case(name, op("rope", **a), [x, positions], lambda x, p: rope(x, p, **a))


roped("rope", r(2, 3, 8), torch.tensor([0, 1, 5]))
roped("rope interleaved", r(2, 3, 8), torch.tensor([2, 3, 4]), pairing="interleaved")
roped("rope partial", r(1, 3, 12), torch.tensor([1, 2, 3]))
roped("rope positions of each sample", r(2, 3, 8), torch.tensor([[0, 1, 2], [7, 8, 9]]))
roped("rope linear", r(1, 3, 8), torch.tensor([1, 2, 30]), scaling={"kind": "linear", "factor": 4.0})
roped("rope divisors", r(1, 3, 8), torch.tensor([1, 2, 3]), scaling={"kind": "divisors", "divisors": [1.0, 3.5]})
roped("rope llama3", r(1, 4, 16), torch.tensor([1, 9, 17, 40]), rotary=8, theta=10000.0,
      scaling={"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 64})

# Products, layout.
case("mat mul", op("mat_mul", transpose_b=False), [r(2, 3, 4), r(2, 4, 5)], torch.matmul)
case("mat mul broadcast", op("mat_mul", transpose_b=False), [r(2, 3, 3, 4), r(3, 4, 2)], torch.matmul)
case("mat mul transposed", op("mat_mul", transpose_b=True), [r(2, 3, 4), r(2, 5, 4)],
     lambda a, b: a @ b.transpose(-1, -2))
case("softmax", op("softmax", axis=2), [r(2, 3, 5)], lambda x: x.softmax(2))
case("softmax inside", op("softmax", axis=1), [r(2, 3, 5) * 30], lambda x: x.softmax(1))
case("log softmax", op("softmax", axis=1, log=True), [r(2, 5)], lambda x: x.log_softmax(1))
case("concat", op("concat", axis=1), [r(2, 3, 2), r(2, 1, 2), r(2, 2, 2)], lambda *t: torch.cat(t, 1))
case("concat of integers", op("concat", axis=0), [ints(9, 3), ints(9, 2)], lambda *t: torch.cat(t), smooth=False)
case("split", op("split", axis=1, map={"by": "parts", "sizes": [1, 3, 2]}), [r(2, 6)], lambda x: x.split([1, 3, 2], 1))


def shares(x, groups, sizes):
    rows = x.view(x.shape[0], groups, sum(sizes)).split(sizes, 2)
    return [t.reshape(x.shape[0], -1) for t in rows]


case("split interleaved", op("split", axis=1, map={"by": "interleaved", "groups": 3, "sizes": [2, 1]}), [r(2, 9)],
     lambda x: shares(x, 3, [2, 1]))
case("slice", op("slice", axis=1, start=1, end=6, step=2), [r(2, 7)], lambda x: x[:, 1:6:2])
case("slice of integers", op("slice", axis=0, start=2, end=5, step=1), [ints(9, 7)], lambda x: x[2:5], smooth=False)
case("reshape", op("reshape", shape=[3, 4]), [r(2, 6)], lambda x: x.reshape(3, 4))
case("transpose", op("transpose", axes=[2, 0, 1]), [r(2, 3, 4)], lambda x: x.permute(2, 0, 1))
case("expand", op("expand", shape=[2, 3, 4]), [r(3, 1)], lambda x: x.expand(2, 3, 4))
case("gather", op("gather", axis=1), [r(2, 5, 3), ints(5, 2, 2)], lambda x, i: x[:, i])
case("gather of integers", op("gather", axis=0), [ints(9, 5), ints(5, 3)], lambda x, i: x[i], smooth=False)
PADS = [[0, 0], [0, 0], [1, 2], [2, 0]]
case("pad constant", op("pad", amounts=PADS, mode={"mode": "constant", "value": 1.5}), [r(1, 2, 3, 4)],
     lambda x: F.pad(x, [2, 0, 1, 2], value=1.5))
case("pad reflect", op("pad", amounts=PADS, mode={"mode": "reflect"}), [r(1, 2, 4, 4)],
     lambda x: F.pad(x, [2, 0, 1, 2], mode="reflect"))
case("pad edge", op("pad", amounts=PADS, mode={"mode": "edge"}), [r(1, 2, 3, 4)],
     lambda x: F.pad(x, [2, 0, 1, 2], mode="replicate"))


def pool(name, x, kind, kernel, stride, padding, ceil=False, count=True):
    rank = x.dim() - 2
    f = {("max", 1): F.max_pool1d, ("max", 2): F.max_pool2d, ("max", 3): F.max_pool3d,
         ("average", 1): F.avg_pool1d, ("average", 2): F.avg_pool2d, ("average", 3): F.avg_pool3d}[kind, rank]
    extra = {"count_include_pad": count} if kind == "average" else {}
    a = dict(kind=kind, kernel=[kernel] * rank, stride=[stride] * rank, padding=[[padding] * 2] * rank, ceil=ceil,
             count_padding=count)
    case(name, op("pool", **a), [x], lambda x: f(x, kernel, stride, padding, ceil_mode=ceil, **extra))


pool("max pool", r(1, 2, 7, 6), "max", 3, 2, 1)
pool("max pool ceiling", r(1, 2, 6, 6), "max", 3, 2, 0, ceil=True)
pool("max pool of negatives at the border", -positive(1, 1, 4, 4), "max", 3, 2, 1)
pool("max pool 1d", r(2, 3, 8), "max", 2, 2, 0)
pool("max pool 3d", r(1, 2, 4, 4, 4), "max", 2, 2, 0)
pool("average pool", r(1, 2, 7, 6), "average", 3, 2, 1)
pool("average pool without border", r(1, 2, 7, 6), "average", 3, 2, 1, count=False)
pool("average pool ceiling", r(1, 2, 6, 6), "average", 3, 2, 1, ceil=True)
pool("average pool ceiling without border", r(1, 2, 6, 6), "average", 3, 2, 1, ceil=True, count=False)
pool("average pool 1d", r(2, 3, 8), "average", 4, 2, 1)
case("max pool uneven border",
     op("pool", kind="max", kernel=[2, 3], stride=[2, 2], padding=[[0, 1], [1, 0]], ceil=False, count_padding=True),
     [r(1, 2, 5, 6)], lambda x: F.max_pool2d(F.pad(x, [1, 0, 0, 1], value=-math.inf), (2, 3), 2))
case("adaptive average pool", op("adaptive_pool", kind="average", size=[2, 3]), [r(1, 2, 5, 7)],
     lambda x: F.adaptive_avg_pool2d(x, (2, 3)))
case("global average pool", op("adaptive_pool", kind="average", size=[1, 1]), [r(2, 3, 4, 4)],
     lambda x: F.adaptive_avg_pool2d(x, 1))
case("adaptive max pool", op("adaptive_pool", kind="max", size=[2, 2]), [r(1, 2, 5, 4)],
     lambda x: F.adaptive_max_pool2d(x, 2))


def resize(name, x, mode, coordinates, size, f):
    case(name, op("resize", mode=mode, coordinates=coordinates, size=list(size)), [x], f)


def interpolate(size, mode, **kw):
    return lambda x: F.interpolate(x, size=size, mode=mode, **kw)


for label, size in (("up", (6, 7)), ("down", (3, 2))):
    x = r(1, 2, 4, 5)
    resize(f"resize nearest {label}", x, "nearest", "asymmetric", size, interpolate(size, "nearest"))
    resize(f"resize linear {label}", x, "linear", "half_pixel", size, interpolate(size, "bilinear"))
    resize(f"resize linear corners {label}", x, "linear", "align_corners", size,
           interpolate(size, "bilinear", align_corners=True))
    resize(f"resize cubic {label}", x, "cubic", "half_pixel", size, interpolate(size, "bicubic"))
    resize(f"resize cubic corners {label}", x, "cubic", "align_corners", size,
           interpolate(size, "bicubic", align_corners=True))
resize("resize nearest 1d", r(1, 2, 4), "nearest", "asymmetric", (8,), interpolate(8, "nearest"))
resize("resize linear 3d", r(1, 1, 2, 3, 2), "linear", "half_pixel", (4, 4, 3), interpolate((4, 4, 3), "trilinear"))
case("pixel shuffle", op("pixel_shuffle", factor=2), [r(1, 8, 2, 3)], lambda x: F.pixel_shuffle(x, 2))
case("pixel unshuffle", op("pixel_shuffle", factor=2, inverse=True), [r(1, 2, 4, 6)], lambda x: F.pixel_unshuffle(x, 2))

# Reductions and indices.
REDUCE = {"mean": lambda x: x.mean((1, 2)), "sum": lambda x: x.sum((1, 2)), "max": lambda x: x.amax((1, 2)),
          "min": lambda x: x.amin((1, 2)), "prod": lambda x: x.flatten(1).prod(1),
          "l2": lambda x: x.pow(2).sum((1, 2)).sqrt()}
for name, f in REDUCE.items():
    case(f"reduce {name}", op("reduce", function=name, axes=[1, 2], keep=False), [r(3, 2, 4)], f)
case("reduce mean kept", op("reduce", function="mean", axes=[0, 2], keep=True), [r(3, 2, 4)],
     lambda x: x.mean((0, 2), keepdim=True))
case("reduce integers", op("reduce", function="sum", axes=[1], keep=False), [ints(9, 3, 4)], lambda x: x.sum(1), smooth=False)
case("arg max", op("arg_max", axis=1, keep=False), [r(3, 5)], lambda x: x.argmax(1), smooth=False)
case("arg max kept", op("arg_max", axis=0, keep=True), [r(3, 5)], lambda x: x.argmax(0, keepdim=True), smooth=False)
case("top k", op("top_k", k=3), [r(2, 6)], lambda x: x.topk(3), smooth=False)
case("cumulative sum", op("cum_sum", axis=1), [r(2, 5, 2)], lambda x: x.cumsum(1))
case("cumulative sum of integers", op("cum_sum", axis=0), [ints(9, 5)], lambda x: x.cumsum(0), smooth=False)


def sinusoid(t, width, period, cosine_first, shift):
    half = width // 2
    angle = t[..., None] * torch.exp(-math.log(period) * torch.arange(half) / (half - shift))
    parts = [angle.cos(), angle.sin()] if cosine_first else [angle.sin(), angle.cos()]
    return F.pad(torch.cat(parts, -1), [0, width % 2])


case("sinusoid", op("sinusoid", width=8, max_period=10000.0, cosine_first=True, shift=0.0), [torch.tensor([0.0, 1.0, 37.0])],
     lambda t: sinusoid(t, 8, 10000.0, True, 0), smooth=False)
case("sinusoid sine first", op("sinusoid", width=7, max_period=100.0, cosine_first=False, shift=1.0),
     [torch.tensor([[0.5], [3.0]])], lambda t: sinusoid(t, 7, 100.0, False, 1), smooth=False)
case("constant", op("constant"), [], lambda weight: weight * 1, {"weight": r(2, 3)})
case("range", op("range", end=5), [], lambda: torch.arange(5), smooth=False)

# Recurrence.


def recurrent(name, cell, direction, bias=True, reset_after=True, steps=4):
    width, hidden = 3, 4
    gates = 4 if cell == "lstm" else 3
    ends = {"forward": [""], "reverse": [""], "both": ["", "_reverse"]}[direction]
    weights = {}
    for end in ends:
        weights["weight_ih" + end] = r(gates * hidden, width)
        weights["weight_hh" + end] = r(gates * hidden, hidden)
        if bias:
            weights["bias_ih" + end] = r(gates * hidden)
            weights["bias_hh" + end] = r(gates * hidden)
    states = [r(2, len(ends) * hidden) for _ in range(2 if cell == "lstm" else 1)]

    def run(x, h0, c0=None, **w):
        ys, hs, cs = [], [], []
        for d, end in enumerate(ends):
            back = direction == "reverse" or end
            h = h0[:, d * hidden:(d + 1) * hidden]
            c = c0[:, d * hidden:(d + 1) * hidden] if c0 is not None else None
            made = [None] * steps
            for t in (reversed(range(steps)) if back else range(steps)):
                wi, wh = w["weight_ih" + end], w["weight_hh" + end]
                bi, bh = w.get("bias_ih" + end, torch.zeros(gates * hidden)), w.get("bias_hh" + end, torch.zeros(gates * hidden))
                a, b = x[:, t] @ wi.T + bi, h @ wh.T + bh
                if cell == "lstm":
                    i, f, g, o = (a + b).chunk(4, 1)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * c.tanh()
                else:
                    (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
                    reset, z = (ar + br).sigmoid(), (az + bz).sigmoid()
                    if not reset_after:
                        bn = (reset * h) @ wh[2 * hidden:].T + bh[2 * hidden:]
                        n = (an + bn).tanh()
                    else:
                        n = (an + reset * bn).tanh()
                    h = (1 - z) * n + z * h
                made[t] = h
            ys.append(torch.stack(made, 1))
            hs.append(h)
            cs.append(c)
        out = [torch.cat(ys, 2), torch.cat(hs, 1)]
        return out + ([torch.cat(cs, 1)] if cell == "lstm" else [])

    x = r(2, steps, width)
    # The loop above agrees with the library's own, where the library has the variant.
    if direction != "reverse" and bias and reset_after:
        lib = (torch.nn.LSTM if cell == "lstm" else torch.nn.GRU)(width, hidden, batch_first=True, bidirectional=direction == "both")
        with torch.no_grad():
            for k, v in weights.items():
                base, end = (k[:-8], "_reverse") if k.endswith("_reverse") else (k, "")
                getattr(lib, base + "_l0" + end).copy_(v)
        split = [s.view(2, len(ends), hidden).transpose(0, 1).contiguous() for s in states]
        y, _ = lib(x, tuple(split) if cell == "lstm" else split[0])
        assert torch.allclose(y, run(x, *states, **weights)[0], atol=1e-12), name
    case(name, op("recurrent", cell=cell, hidden=hidden, direction=direction, reset_after=reset_after), [x, *states], run, weights)


for cell in ("lstm", "gru"):
    for direction in ("forward", "reverse", "both"):
        recurrent(f"{cell} {direction}", cell, direction)
    recurrent(f"{cell} without bias", cell, "forward", bias=False)
recurrent("gru reset before", "gru", "forward", reset_after=False)

out = Path(__file__).with_name("operators.json")
out.write_text("[\n" + ",\n".join(json.dumps(c) for c in CASES) + "\n]\n")
print(f"{len(CASES)} cases, {out.stat().st_size} bytes")
