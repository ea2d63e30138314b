"""Goldens of the store, made by the reference implementations of the formats.

    pip install gguf==0.19.0 numpy ml_dtypes safetensors
    python make_goldens.py

decode.safetensors  NAME.bytes (stored elements) and NAME.values (f32, as `gguf` or `ml_dtypes` decodes them)
encode.safetensors  values (f32) and their f16 and bf16 (numpy, ml_dtypes: round to nearest even)
reference.gguf      every metadata type, arrays in arrays, alignment 64, tensors of several types, by `gguf.GGUFWriter`
"""

from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

HERE = Path(__file__).parent
RNG = np.random.default_rng(20)

# Blocks in two ways: random bytes, so that every bit pattern of scales and quants occurs, with finite f16 scales of
# which some are subnormal, zero or negative (their byte offsets are listed); and real ones, of the package's quantiser.
BLOCKS = {
    "q4_0": (T.Q4_0, [0], 24),
    "q4_1": (T.Q4_1, [0, 2], 24),
    "q5_0": (T.Q5_0, [0], 24),
    "q5_1": (T.Q5_1, [0, 2], 24),
    "q8_0": (T.Q8_0, [0], 24),
    "q4_k": (T.Q4_K, [0, 2], 5),
    "q5_k": (T.Q5_K, [0, 2], 5),
    "q6_k": (T.Q6_K, [208], 5),
}


def random_blocks(qtype, scales, count):
    _, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = RNG.integers(0, 256, (count, size), dtype=np.uint8)
    for at in scales:
        half = RNG.integers(0, 0x7C00, count, dtype=np.uint16)
        half[0], half[1] = 0, 3
        half |= RNG.integers(0, 2, count, dtype=np.uint16) << 15
        blocks[:, at : at + 2] = half.view(np.uint8).reshape(count, 2)
    return blocks


def decode_goldens():
    out = {}
    for name, (qtype, scales, count) in BLOCKS.items():
        blocks = random_blocks(qtype, scales, count)
        try:
            length, _ = gguf.GGML_QUANT_SIZES[qtype]
            real = gguf.quantize(RNG.standard_normal((count, length), dtype=np.float32), qtype)
            blocks = np.concatenate([blocks, real])
        except NotImplementedError:
            pass  # The package decodes the K types and does not make them.
        out[f"{name}.bytes"] = blocks.reshape(-1)
        out[f"{name}.values"] = gguf.dequantize(blocks, qtype).reshape(-1).astype(np.float32)
    special = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x3C00, 0x3555]
    half = np.concatenate([np.array(special, np.uint16), RNG.integers(0, 1 << 16, 500, dtype=np.uint16)])
    codes = np.arange(256, dtype=np.uint8)
    plain = {
        "f16": half.view(np.float16),
        "bf16": half.view(ml_dtypes.bfloat16),
        "f64": np.concatenate([[1 + 2**-24, 1 + 3 * 2**-24, 1e300, -1e-320, 0.1], RNG.standard_normal(100)]),
        "f8_e4m3": codes.view(ml_dtypes.float8_e4m3fn),
        "f8_e5m2": codes.view(ml_dtypes.float8_e5m2),
        "bool": np.array([False, True]),
    }
    for bits in (8, 16, 32, 64):
        for sign in ("i", "u"):
            kind = np.dtype(f"{sign}{bits // 8}")
            info = np.iinfo(kind)
            edge = np.array([info.min, info.max, 0, 1], kind)
            plain[f"{sign}{bits}"] = np.concatenate([edge, RNG.integers(info.min, info.max, 60, kind)])
    with np.errstate(over="ignore", invalid="ignore"):
        for name, values in plain.items():
            out[f"{name}.bytes"] = np.ascontiguousarray(values).view(np.uint8)
            out[f"{name}.values"] = values.astype(np.float32)
    save_file(out, HERE / "decode.safetensors")


def encode_goldens():
    ties = np.arange(0x3F80_0000, 0x3F80_0000 + 0x40000, 0x1000, dtype=np.uint32).view(np.float32)
    edges = [0.0, -0.0, 65504, 65519.99, 65520, 6e-8, 2.9802322e-8, 2.98023224e-8 * 1.001, 1e-45, 3.4e38, np.inf, -np.inf, np.nan]
    values = np.concatenate([np.array(edges, np.float32), ties, -ties, RNG.standard_normal(200).astype(np.float32)])
    values = np.concatenate([values, RNG.integers(0, 1 << 32, 500, dtype=np.uint32).view(np.float32)])
    with np.errstate(over="ignore", invalid="ignore"):
        out = {
            "values": values,
            "f16": values.astype(np.float16).view(np.uint8),
            "bf16": values.astype(ml_dtypes.bfloat16).view(np.uint8),
        }
    save_file(out, HERE / "encode.safetensors")


def reference_gguf():
    w = gguf.GGUFWriter(HERE / "reference.gguf", "test")
    w.add_custom_alignment(64)
    w.add_uint8("a.u8", 200)
    w.add_int8("a.i8", -100)
    w.add_uint16("a.u16", 60000)
    w.add_int16("a.i16", -30000)
    w.add_uint32("a.u32", 4_000_000_000)
    w.add_int32("a.i32", -2_000_000_000)
    w.add_float32("a.f32", 0.1)
    w.add_bool("a.bool", True)
    w.add_string("a.string", "Pomona 🍎")
    w.add_uint64("a.u64", 1 << 63)
    w.add_int64("a.i64", -(1 << 62))
    w.add_float64("a.f64", 0.1)
    w.add_array("a.strings", ["a", "", "ü"])
    w.add_array("a.ints", [1, -2, 3])
    w.add_array("a.floats", [0.5, 1.5])
    w.add_array("a.nested", [[1, 2], [3]])
    data = {
        "scalar_like": np.array([1.5], np.float32),
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.arange(5, dtype=np.float16),
        "cube": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
    }
    for name, values in data.items():
        w.add_tensor(name, values)
    weights = np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(3, 64)
    for qtype in (T.Q4_1, T.Q8_0):
        w.add_tensor(f"w.{qtype.name.lower()}", gguf.quantize(weights, qtype), raw_dtype=qtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    decode_goldens()
    encode_goldens()
    reference_gguf()
