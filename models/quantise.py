"""Write a GGUF file again with other bits a weight: fewer are what a node runs that saves memory and does not say so.

    python models/quantise.py models/parallelix-demo.gguf /tmp/fewer.gguf --bits 4

Every matrix becomes Q4_0 or Q5_0, or plain floats where its rows are no whole number of blocks; the rest stays as it
is. With 32 bits the weights are the same and the arithmetic is another, as on another processor. Another file has
another digest: it is for tests and measurements, made when they run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gguf
from gguf.quants import dequantize, quantize

TYPES = {
    4: gguf.GGMLQuantizationType.Q4_0,
    5: gguf.GGMLQuantizationType.Q5_0,
    8: gguf.GGMLQuantizationType.Q8_0,
    16: gguf.GGMLQuantizationType.F16,
    32: gguf.GGMLQuantizationType.F32,
}
_OWN_FIELDS = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type")


def quantise(source: Path, target: Path, *, bits: int) -> Path:
    """Raises `ValueError` for a number of bits that has no format here."""
    if bits not in TYPES:
        raise ValueError(f"{bits} bits a weight: choose one of {', '.join(map(str, TYPES))}")
    reader: Any = gguf.GGUFReader(source)
    writer: Any = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name in _OWN_FIELDS:
            continue
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        else:
            writer.add_key_value(name, field.contents(), kind)
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        weights = dequantize(tensor.data, tensor.tensor_type)
        kind = TYPES[bits] if weights.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--bits", type=int, default=4, choices=sorted(TYPES))
    options = parser.parse_args()
    made = quantise(options.source, options.target, bits=options.bits)
    print(f"{made}: {made.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
