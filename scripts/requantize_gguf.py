"""Writes a GGUF with its matrices in another encoding, for comparisons at equal weights.

Usage: requantize_gguf.py IN.gguf OUT.gguf [Q8_0]
Matrices become Q8_0 (or another type that the gguf package can quantize to), vectors f32; metadata are copied. Runs in an
environment with gguf."""

import os
import sys

import gguf
import numpy as np


def main(source, target, name="Q8_0"):
    kind = gguf.GGMLQuantizationType[name]
    reader = gguf.GGUFReader(source)
    field = reader.get_field("general.architecture")
    writer = gguf.GGUFWriter(target + ".part", field.contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kinds = field.types
        sub = kinds[-1] if kinds[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kinds[0], sub_type=sub)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        if values.ndim < 2 or values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(target + ".part", target)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
