"""The header of a GGUF: metadata and tensor table. It knows no checkpoint, only what the file is to say and hold.

The digests of manifest and checkpoint are known only after the data is written. The header holds placeholders of the
same length, which ``stamp`` overwrites in place.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType

from convert.layouts.layout import Layout, stacked
from convert.source_tensor import DTYPES
from convert.vocab.vocabulary import Vocabulary
from orin_runner.errors import RunError
from orin_runner.files import naming
from orin_runner.model import gguf_keys

FILE_TYPES = {"F16": LlamaFileType.MOSTLY_F16, "BF16": LlamaFileType.MOSTLY_BF16, "F32": LlamaFileType.ALL_F32}
PLACEHOLDERS = {gguf_keys.MANIFEST_SHA256: "m" * 64, gguf_keys.CHECKPOINT_SHA256: "c" * 64}


@contextmanager
def open_gguf(
    path: Path, name: str, layout: Layout, vocabulary: Vocabulary, types: dict[str, str], main_type: str, altered: int
) -> Iterator[GGUFWriter]:
    """Write a header to ``path`` and yield the writer, which takes the tensors' data in the table's order.

    The table's order is that of ``layout.by_name()``, then ``layout.added``. The file is closed at the end.

    Args:
        path: the GGUF to write; an existing file is overwritten.
        name: of the model.
        layout: architecture, its metadata and the tensors.
        vocabulary: the tokenizer.
        types: safetensors type name by source of the layout.
        main_type: safetensors type name that stands for the whole file.
        altered: number of values that differ from the checkpoint's.

    Raises:
        OSError: ``path`` cannot be written.
    """
    writer = GGUFWriter(path, layout.architecture)
    writer.add_name(vocabulary.model_name(name))
    writer.add_type("model")
    writer.add_file_type(FILE_TYPES[main_type])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for key, value in layout.metadata.items():
        # llama.cpp reads whole numbers as unsigned; gguf would write them signed.
        kind = GGUFValueType.UINT32 if type(value) is int else GGUFValueType.get_type(value)
        writer.add_key_value(f"{layout.architecture}.{key}", value, kind)
    _add_vocabulary(writer, vocabulary)
    if layout.dropped_window is not None:
        writer.add_uint32(gguf_keys.DROPPED_WINDOW, layout.dropped_window)
    writer.add_uint64(gguf_keys.ALTERED_VALUES, altered)
    for key, placeholder in PLACEHOLDERS.items():
        writer.add_string(key, placeholder)
    table = [(name, stacked(parts), types[parts[0].source]) for name, parts in layout.by_name().items()]
    table += [(added.name, added.shape, "F32") for added in layout.added]
    for tensor_name, shape, type_name in table:
        dtype = np.dtype(DTYPES[type_name])
        n_bytes = math.prod(shape) * dtype.itemsize
        writer.add_tensor_info(tensor_name, shape, dtype, n_bytes, raw_dtype=GGMLQuantizationType[type_name])
    try:
        with naming(path):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        yield writer
    finally:
        with naming(path):
            writer.close()


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
    for key, token in vocabulary.special.items():
        if token is not None:
            writer.add_uint32(key, token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_string(gguf_keys.HUGGINGFACE_TOKENIZER, vocabulary.huggingface_json)
    if vocabulary.chat_template is not None:
        writer.add_string(gguf_keys.CHAT_TEMPLATE, vocabulary.chat_template)
    writer.add_array(gguf_keys.STOP_TOKENS, vocabulary.stop)


def stamp(path: Path, digests: dict[str, str]) -> None:
    """Overwrite the placeholder of each key with its digest, in place.

    Args:
        path: a complete GGUF.
        digests: 64 hexadecimal digits by key of ``PLACEHOLDERS``.

    Raises:
        RunError: a placeholder is not there.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for key, digest in digests.items():
            at = data.find(PLACEHOLDERS[key].encode(), data.find(key.encode()))
            if at < 0:
                raise RunError(f"{path} has no placeholder for {key}")
            data[at : at + 64] = digest.encode()
        data.flush()
