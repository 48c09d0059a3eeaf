"""GGUFs as other converters leave them: without this tool's keys, quantized by llama.cpp, or with keys changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp
from gguf import GGUFReader, GGUFValueType, GGUFWriter

OURS = ("orin.", "tokenizer.huggingface.json")
"""What the names of keys begin with that this tool's converter alone writes."""
Q8_0, Q4_1 = 7, 3
"""``LLAMA_FTYPE_MOSTLY_Q8_0`` and ``_Q4_1``"""


def rewritten(
    source: Path,
    target: Path,
    *,
    without: tuple[str, ...] = OURS,
    changed: Mapping[str, str | int] | None = None,
    architecture: str | None = None,
) -> Path:
    """A copy of ``source`` with the gguf library.

    Args:
        without: keys whose names begin with one of these are left out.
        changed: keys with another value, added where the file has none; numbers as uint32.
        architecture: another one, in the names of its keys too.
    """
    reader = GGUFReader(source)
    old = str(reader.fields["general.architecture"].contents())
    new = architecture or old
    writer = GGUFWriter(target, new)
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "general.architecture", *without)) or name in (changed or {}):
            continue
        inner = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
        if inner is GGUFValueType.ARRAY:  # an array without elements
            continue
        key = name.replace(f"{old}.", f"{new}.", 1) if name.startswith(f"{old}.") else name
        writer.add_key_value(key, field.contents(), field.types[0], inner)
    for name, value in (changed or {}).items():
        kind = GGUFValueType.STRING if isinstance(value, str) else GGUFValueType.UINT32
        writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return target


def quantized(source: Path, target: Path, ftype: int = Q8_0) -> Path:
    """``source`` as llama.cpp's own quantization makes ``ftype`` of it; all of its keys are kept."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params) == 0
    return target


def contents(path: Path) -> dict[str, Any]:
    """By key of a GGUF its value, as the gguf library has it."""
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}
