"""Writes the GGUF of a conversion, one tensor in memory at a time. What it wrote is not believed: see ``verify``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convert.conversion import Conversion, Report
from convert.exactness import recode
from convert.header import open_gguf
from orin_runner.files import naming


def write(path: Path, conversion: Conversion, report: Report) -> None:
    """Write header and tensors to ``path``, the digests still placeholders.

    Raises:
        UserError: a shard ends within a tensor.
        OSError: ``path`` cannot be written.
    """
    checkpoint, layout, types = conversion.checkpoint, conversion.layout, conversion.types
    with open_gguf(
        path, checkpoint.name, layout, conversion.vocabulary, types, conversion.main_type, conversion.altered
    ) as writer:
        for name, parts in layout.by_name().items():
            stacked = []
            for part in parts:
                source = checkpoint.tensors[part.source]
                bits = source.read() if part.rows is None else source.read()[part.rows]
                stacked.append(recode(bits, source.dtype, types[part.source], part.exponent))
            values = stacked[0] if len(stacked) == 1 else np.concatenate(stacked)
            with naming(path):
                writer.write_tensor_data(values)
            report("write", name, values.nbytes)
        for added in layout.added:
            with naming(path):
                writer.write_tensor_data(added.values)
