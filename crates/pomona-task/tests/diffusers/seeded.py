"""Weights and inputs as a function of their name: the tests make the same ones in Rust, so no file holds them.

A tensor's stream is splitmix64 from the FNV-1a hash of its name; the upper 24 bits of a number are a float in [-1, 1).
"""
import numpy as np
import torch


def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name, shape):
    n = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    return u.reshape(shape)


def weight(name, shape):
    u = np.asarray(uniform(name, shape))
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return u * np.float32(1.5 / np.sqrt(np.float64(fan_in)))
    if name.endswith(".conv_block.1.running_var"):
        # Deep plain networks: signals must not fade on their way.
        return np.float32(0.5) + u * np.float32(0.125)
    if name.endswith((".weight", ".running_var")):
        return np.float32(1) + u * np.float32(0.25)
    return np.asarray(u * np.float32(0.125))


def fill(module, prefix=""):
    state = {k: torch.from_numpy(weight(prefix + k, tuple(v.shape))) for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    return module.eval().float()


def data(name, shape, scale=1.5):
    return torch.from_numpy(uniform("input:" + name, shape) * np.float32(scale))
