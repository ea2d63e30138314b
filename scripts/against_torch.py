"""PyTorch's side of `pomona-bench against-torch`: operations and whole nets, run on request.

Reads lines `NAME RUNS` on stdin and answers each with one JSON line: wall-clock and processor seconds of every run, and the
process's peak memory in bytes so far. NAME is an operation with `_f` (forward) or `_fb` (forward and backward) behind it, or a
whole net. Two runs before the first measured ones are not counted. Needs torch.
"""
import json
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 2


def operation(function, *shapes, grad=None):
    """(forward, forward and backward) of a function on random tensors; `grad` counts the inputs that need a gradient."""
    tensors = [torch.randn(s) if isinstance(s, tuple) else s for s in shapes]
    with_grad = len(tensors) if grad is None else grad
    leaves = [t.clone().requires_grad_() if i < with_grad else t for i, t in enumerate(tensors)]

    def forward():
        with torch.no_grad():
            function(*tensors)

    with torch.no_grad():
        above = torch.ones_like(function(*tensors))

    def both():
        for leaf in leaves[:with_grad]:
            leaf.grad = None
        function(*leaves).backward(above)

    return forward, both


def conv(stride=1, padding=1, groups=1):
    return lambda x, w, b: F.conv2d(x, w, b, stride=stride, padding=padding, groups=groups)


def gqa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def operations():
    targets = torch.randint(0, 4096, (1024,))
    return {
        "linear": lambda: operation(F.linear, (1024, 1024), (1024, 1024), (1024,)),
        "linear_wide": lambda: operation(F.linear, (1024, 288), (4096, 288), (4096,)),
        "conv64": lambda: operation(conv(), (4, 64, 64, 64), (64, 64, 3, 3), (64,)),
        "conv320": lambda: operation(conv(), (1, 320, 64, 64), (320, 320, 3, 3), (320,)),
        "conv1x1": lambda: operation(conv(padding=0), (4, 128, 32, 32), (256, 128, 1, 1), (256,)),
        "conv_stride2": lambda: operation(conv(stride=2), (4, 64, 64, 64), (128, 64, 3, 3), (128,)),
        "depthwise": lambda: operation(conv(groups=192), (4, 192, 56, 56), (192, 1, 3, 3), (192,)),
        "conv1d": lambda: operation(lambda x, w, b: F.conv1d(x, w, b, padding=2), (4, 128, 512), (128, 128, 5), (128,)),
        "transposed": lambda: operation(lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1), (4, 64, 32, 32), (64, 64, 4, 4), (64,)),
        "group_norm_silu": lambda: operation(lambda x, w, b: F.silu(F.group_norm(x, 32, w, b)), (1, 320, 64, 64), (320,), (320,)),
        "group_norm": lambda: operation(lambda x, w, b: F.group_norm(x, 32, w, b), (1, 320, 64, 64), (320,), (320,)),
        "layer_norm": lambda: operation(lambda x, w, b: F.layer_norm(x, (320,), w, b), (4096, 320), (320,), (320,)),
        "rms_norm": lambda: operation(lambda x, w: F.rms_norm(x, (576,), w, 1e-5), (2048, 576), (576,)),
        "batch_norm": lambda: operation(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (8, 64, 56, 56), (64,), (64,)),
        "softmax": lambda: operation(lambda x: torch.softmax(x, -1), (8, 1024, 1024)),
        "gelu": lambda: operation(F.gelu, (4096, 1024)),
        "swiglu": lambda: operation(lambda g, u: F.silu(g) * u, (2048, 1536), (2048, 1536)),
        "attention": lambda: operation(F.scaled_dot_product_attention, (1, 8, 1024, 40), (1, 8, 1024, 40), (1, 8, 1024, 40)),
        "attention_4096": lambda: operation(F.scaled_dot_product_attention, (1, 2, 4096, 40), (1, 2, 4096, 40), (1, 2, 4096, 40)),
        "attention_causal": lambda: operation(gqa, (2, 9, 512, 64), (2, 3, 512, 64), (2, 3, 512, 64)),
        "cross_entropy": lambda: operation(lambda x: F.cross_entropy(x, targets), (1024, 4096)),
        "embedding": lambda: operation(lambda w: F.embedding(targets, w), (4096, 288)),
        "lstm": lambda: recurrent(nn.LSTM(128, 256, batch_first=True), (8, 100, 128)),
        "gru": lambda: recurrent(nn.GRU(128, 256, batch_first=True), (8, 100, 128)),
    }


def recurrent(net, shape):
    x = torch.randn(shape)
    above = torch.ones(*shape[:2], net.hidden_size)

    def forward():
        with torch.no_grad():
            net(x)

    def both():
        net.zero_grad()
        net(x)[0].backward(above)

    return forward, both


class Residual(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(h))) + self.skip(x)


class UNet(nn.Module):
    """10.3M parameters: four levels, one residual block a level, skips joined by concatenation."""

    WIDTHS = (64, 128, 256, 256)

    def __init__(self):
        super().__init__()
        widths = self.WIDTHS
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Residual(widths[max(i - 1, 0)], w) for i, w in enumerate(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:3])
        self.middle = Residual(widths[3], widths[3])
        below = (widths[3], widths[3], widths[2], widths[1])
        self.up = nn.ModuleList(Residual(b + w, w) for b, w in zip(below, reversed(widths)))
        self.grow = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in reversed(widths[1:]))
        self.norm, self.last = nn.GroupNorm(8, widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x):
        h, skips = self.first(x), []
        for i, block in enumerate(self.down):
            h = block(h)
            skips.append(h)
            if i < 3:
                h = self.shrink[i](h)
        h = self.middle(h)
        for i, block in enumerate(self.up):
            h = block(torch.cat([h, skips.pop()], 1))
            if i < 3:
                h = self.grow[i](F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.last(F.silu(self.norm(h)))


class Block(nn.Module):
    def __init__(self, width=288, heads=6, inner=768):
        super().__init__()
        linear = lambda a, b: nn.Linear(a, b, bias=False)
        self.heads = heads
        self.q, self.k, self.v, self.o = (linear(width, width) for _ in range(4))
        self.gate, self.up, self.down = linear(width, inner), linear(width, inner), linear(inner, width)
        self.norm1, self.norm2 = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)

    def forward(self, x):
        batch, tokens, width = x.shape
        n = self.norm1(x)
        q, k, v = (p(n).view(batch, tokens, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(batch, tokens, width))
        n = self.norm2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class LanguageModel(nn.Module):
    """8.3M parameters: six blocks of width 288, 4,096 tokens in the vocabulary."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4096, 288)
        self.blocks = nn.Sequential(*(Block() for _ in range(6)))
        self.norm, self.head = nn.RMSNorm(288, 1e-5), nn.Linear(288, 4096, bias=False)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.embed(ids))))


def nets():
    def unet():
        net, x, y = UNet(), torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)
        return net, lambda: net(x), lambda: F.mse_loss(net(x), y)

    def lm():
        net, ids, targets = LanguageModel(), torch.randint(0, 4096, (4, 256)), torch.randint(0, 4096, (4, 256))
        return net, lambda: net(ids), lambda: F.cross_entropy(net(ids).flatten(0, 1), targets.flatten())

    return {"unet": unet, "lm": lm}


def whole(net, forward, loss):
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)

    def train():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def run():
        with torch.no_grad():
            forward()

    return run, train


def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    known, every, made = operations(), nets(), {}
    for line in sys.stdin:
        name, runs = line.split()
        stem, kind = name.rsplit("_", 1)
        if stem not in made:
            # One case at a time: what another one holds is not this one's memory.
            made = {stem: whole(*every[stem]()) if stem in every else known[stem]()}
        run = made[stem][kind in ("fb", "train")]
        run()
        run()
        wall, processor = [], []
        for _ in range(int(runs)):
            began, before = time.perf_counter(), time.process_time()
            run()
            wall.append(time.perf_counter() - began)
            processor.append(time.process_time() - before)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        parameters = sum(p.numel() for p in every[stem]()[0].parameters()) if stem in every else 0
        print(json.dumps({"wall": wall, "processor": processor, "peak": peak, "parameters": parameters, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
