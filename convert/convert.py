"""One conversion: decide types, write the GGUF tensor by tensor, reopen it, compare every value, rename it.

Memory is one tensor, not one model. The file is written under a temporary name; only a verified file gets its own.
"""

from __future__ import annotations

import hashlib
import mmap
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from gguf.gguf_reader import ReaderTensor

from convert.checkpoint import DTYPES, Bits, Checkpoint, SourceTensor
from convert.exactness import compare, loss, recode
from convert.layouts.layout import SKIPPED, Layout, OutputTensor, layout_for
from convert.manifest import (
    ALTERED_KEY,
    CHECKPOINT_KEY,
    DROPPED_WINDOW_KEY,
    MANIFEST_KEY,
    STOP_KEY,
    AddedRecord,
    Manifest,
    TensorRecord,
    manifest_path,
)
from convert.vocab.vocabulary import Vocabulary, read_vocabulary
from orin_runner import __version__
from orin_runner.errors import UserError

GGML_TYPES = {
    "F16": GGMLQuantizationType.F16,
    "BF16": GGMLQuantizationType.BF16,
    "F32": GGMLQuantizationType.F32,
}
FILE_TYPES = {
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "F32": LlamaFileType.ALL_F32,
}
DIGEST_PLACEHOLDER = {MANIFEST_KEY: "m" * 64, CHECKPOINT_KEY: "c" * 64}
"""Both digests are known only after the data is written; these fixed-length strings are then overwritten in place."""

HEADER_ALLOWANCE = 32 << 20
"""Bytes of metadata to allow for when checking free disk space: two vocabularies and the tensor table."""

Report = Callable[[str, str, int], None]
"""Called with (stage, tensor name, bytes done) as tensors are checked, written and verified."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert. ``window`` is ``"exact"`` or ``"off"``; ``allow_rounding`` only matters for a 16-bit outtype."""

    outtype: str = "auto"
    allow_rounding: bool = False
    window: str = "exact"


def convert(checkpoint: Checkpoint, out: Path, options: Options, report: Report = lambda *_: None) -> Manifest:
    """Convert ``checkpoint`` to ``out`` and write the manifest beside it.

    Args:
        checkpoint: an opened checkpoint.
        out: the GGUF to write; nothing is left there if anything goes wrong.
        options: how.
        report: progress.

    Raises:
        UserError: unsupported or incomplete checkpoint, lossy type, too little disk.
        RuntimeError: the written file does not hold the checkpoint's values (disk or memory failure, or a bug).
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder", "name the file to write, such as model.gguf")
    layout = layout_for(checkpoint.config, options.window)
    _match(checkpoint, layout)
    n_rows = checkpoint.tensors[layout.tensors[0].source].shape[0]
    vocabulary = read_vocabulary(checkpoint.directory, n_rows)
    # Before the weights are read; what they come out as is known, and checked, after that.
    _check_disk(out, layout, dict.fromkeys(layout.sources, "F16"))
    types: dict[str, str] = {}
    altered = 0
    for name in layout.sources:
        types[name], changed = _pick_type(checkpoint.tensors[name], options, report)
        altered += changed
    _check_disk(out, layout, types)
    manifest = Manifest(
        tool=f"orin-run {__version__}",
        checkpoint={"name": checkpoint.name, "model_type": checkpoint.config.get("model_type")},
        layout={
            "architecture": layout.architecture,
            "window": layout.window,
            "dropped_window": layout.dropped_window,
        },
        tokenizer={
            "built_by": vocabulary.built_by,
            "sha256": hashlib.sha256(vocabulary.huggingface_json.encode()).hexdigest(),
        },
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    manifest_file = manifest_path(out)
    partial_manifest = manifest_file.with_name(manifest_file.name + ".partial")
    try:
        writer = GGUFWriter(partial, layout.architecture)
        try:
            _add_metadata(writer, checkpoint, layout, vocabulary, types, altered)
            _write_tensors(writer, checkpoint, layout, types, manifest, report)
        finally:
            writer.close()
        _verify(partial, checkpoint, layout, types, manifest, report)
        if manifest.changed != altered:
            raise RuntimeError(f"{manifest.changed} values of {partial} differ from the checkpoint's, not {altered}")
        checkpoint_digest = checkpoint.digest(manifest.source_sha256)
        manifest.checkpoint["sha256"] = checkpoint_digest
        manifest.verified = True
        _stamp(partial, {MANIFEST_KEY: manifest.digest(), CHECKPOINT_KEY: checkpoint_digest})
        partial_manifest.write_text(manifest.to_json(), encoding="utf-8")
        # The file holds its manifest's digest: a kill between the two leaves a pair whose digests tell them apart.
        partial.replace(out)
        partial_manifest.replace(manifest_file)
    except BaseException:
        partial.unlink(missing_ok=True)
        partial_manifest.unlink(missing_ok=True)
        raise
    return manifest


def _match(checkpoint: Checkpoint, layout: Layout) -> None:
    """Every tensor of the layout is there in the right shape, and no other is."""
    for name, shape in layout.sources.items():
        if name not in checkpoint.tensors:
            raise UserError(f"tensor {name} is missing from {checkpoint.directory}", "download the checkpoint again")
        found = checkpoint.tensors[name].shape
        if found != shape:
            raise UserError(f"tensor {name} has shape {list(found)}, config.json calls for {list(shape)}")
    for name in checkpoint.tensors:
        if name not in layout.sources and not name.endswith(SKIPPED):
            raise UserError(
                f"tensor {name} is unknown to the {layout.architecture} layout; nothing is dropped silently"
            )


def _pick_type(source: SourceTensor, options: Options, report: Report) -> tuple[str, int]:
    """The type to store ``source`` as (safetensors name), and how many values that alters."""
    if len(source.shape) == 1:
        return "F32", 0  # llama.cpp wants vectors in F32; widening is exact
    wanted = options.outtype.upper()
    if wanted != "AUTO":
        found = loss(source.chunks(), source.dtype, wanted)
        report("check", source.name, source.n_bytes)
        if found.changed and not options.allow_rounding:
            raise UserError(
                f"tensor {source.name}: {found.changed:,} of {np.prod(source.shape):,} values do not survive "
                f"{options.outtype} (largest error {found.largest_error:.3g})",
                "use --outtype auto, or --allow-rounding to round them",
            )
        return wanted, found.changed
    for candidate in ("F16", "BF16"):
        if not loss(source.chunks(), source.dtype, candidate, stop_at_first=True).changed:
            report("check", source.name, source.n_bytes)
            return candidate, 0
    report("check", source.name, source.n_bytes)
    return source.dtype, 0


def _check_disk(out: Path, layout: Layout, types: dict[str, str]) -> None:
    needed = HEADER_ALLOWANCE + sum(
        int(np.prod(tensor.shape)) * (4 if types[tensor.source] == "F32" else 2) for tensor in layout.tensors
    )
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{out} needs {needed / 2**30:.1f} GiB, {folder} has {free / 2**30:.1f} GiB free", "name another OUT.gguf"
        )


def _add_metadata(
    writer: GGUFWriter,
    checkpoint: Checkpoint,
    layout: Layout,
    vocabulary: Vocabulary,
    types: dict[str, str],
    altered: int,
) -> None:
    name = checkpoint.name
    if checkpoint.config.get("model_type") == "phi3" and "phi3" not in name.lower().replace("phi-3", "phi3"):
        # llama.cpp strips white space after special tokens, as Phi-3 does, only under such a name (llama-vocab.cpp).
        name = f"phi-3 {name}"
    writer.add_name(name)
    writer.add_type("model")
    largest = max(types.items(), key=lambda item: checkpoint.tensors[item[0]].n_bytes)[1]
    writer.add_file_type(FILE_TYPES[largest])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in layout.metadata.items():
        full = f"{layout.architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, value)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    for token, add in (
        (vocabulary.bos, writer.add_bos_token_id),
        (vocabulary.eos, writer.add_eos_token_id),
        (vocabulary.unk, writer.add_unk_token_id),
        (vocabulary.pad, writer.add_pad_token_id),
        (vocabulary.eot, writer.add_eot_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_string("tokenizer.huggingface.json", vocabulary.huggingface_json)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
    if vocabulary.stop:
        writer.add_array(STOP_KEY, vocabulary.stop)
    if layout.dropped_window is not None:
        writer.add_uint32(DROPPED_WINDOW_KEY, layout.dropped_window)
    writer.add_uint64(ALTERED_KEY, altered)
    for key, placeholder in DIGEST_PLACEHOLDER.items():
        writer.add_string(key, placeholder)


def _write_tensors(
    writer: GGUFWriter,
    checkpoint: Checkpoint,
    layout: Layout,
    types: dict[str, str],
    manifest: Manifest,
    report: Report,
) -> None:
    for tensor in layout.tensors:
        target = types[tensor.source]
        item = 4 if target == "F32" else 2
        dtype = np.dtype(DTYPES[target])
        writer.add_tensor_info(
            tensor.name, tensor.shape, dtype, int(np.prod(tensor.shape)) * item, raw_dtype=GGML_TYPES[target]
        )
    for added in layout.added:
        writer.add_tensor_info(added.name, added.shape, np.dtype(np.float32), 4 * int(np.prod(added.shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in layout.tensors:
        source = checkpoint.tensors[tensor.source]
        bits = source.read() if tensor.rows is None else source.read()[tensor.rows]
        values = recode(bits, source.dtype, types[tensor.source])
        writer.write_tensor_data(values)
        manifest.tensors.append(
            TensorRecord(
                name=tensor.name,
                type=types[tensor.source],
                shape=tensor.shape,
                sha256="",  # of what is read back: see _verify
                source=tensor.source,
                source_dtype=source.dtype,
                transform=tensor.transform,
            )
        )
        report("write", tensor.name, values.nbytes)
    for added in layout.added:
        writer.write_tensor_data(np.full(added.shape, added.value, dtype=np.float32))
        manifest.added.append(AddedRecord(added.name, "F32", added.shape, added.value, added.reason))


def _verify(
    path: Path,
    checkpoint: Checkpoint,
    layout: Layout,
    types: dict[str, str],
    manifest: Manifest,
    report: Report,
) -> None:
    """Reopen the file, undo every transform and compare bit for bit; fills in digests and changed counts."""
    entries = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    records = {record.name: i for i, record in enumerate(manifest.tensors)}
    if set(entries) != set(records) | {added.name for added in layout.added}:
        raise RuntimeError(f"{path} does not hold the tensors it should")
    by_source: dict[str, list[OutputTensor]] = {}
    for tensor in layout.tensors:
        by_source.setdefault(tensor.source, []).append(tensor)
    with ThreadPoolExecutor(max_workers=2) as pool:  # hashing releases the interpreter lock
        for name, outputs in by_source.items():
            source = checkpoint.tensors[name]
            original = source.read()
            source_digest = pool.submit(_sha256, original)
            covered = np.zeros(source.shape[0], dtype=np.int64)
            for tensor in outputs:
                stored = _read_back(path, entries[tensor.name], tensor, types[name])
                digest = pool.submit(_sha256, stored)
                rows = np.arange(source.shape[0]) if tensor.rows is None else tensor.rows
                covered[rows] += 1
                # Undo: the file's row r is row rows[r] of the checkpoint tensor. A layout takes contiguous row ranges.
                first = int(rows.min())
                undone = np.empty_like(stored)
                undone[rows - first] = stored
                found = compare(undone, types[name], original[first : first + len(rows)], source.dtype)
                index = records[tensor.name]
                manifest.tensors[index] = replace(
                    manifest.tensors[index],
                    sha256=digest.result(),
                    changed=found.changed,
                    largest_error=found.largest_error,
                )
                report("verify", tensor.name, stored.nbytes)
            manifest.source_sha256[name] = source_digest.result()
            if not np.all(covered == 1):
                raise RuntimeError(f"rows of {name} are lost or stand in {path} twice")
    for added in layout.added:
        values = entries[added.name].data
        if not np.array_equal(values, np.full(added.shape, added.value, dtype=np.float32)):
            raise RuntimeError(f"{path}: added tensor {added.name} is not what it should be")


def _read_back(path: Path, entry: ReaderTensor, tensor: OutputTensor, target: str) -> Bits:
    """The raw values of a tensor of the written file, in the layout's shape."""
    shape = tuple(reversed([int(n) for n in entry.shape]))
    if entry.tensor_type != GGML_TYPES[target] or shape != tensor.shape:
        raise RuntimeError(f"{path}: tensor {tensor.name} has type {entry.tensor_type.name}, shape {shape}")
    count = int(np.prod(shape))
    values: Bits = np.fromfile(path, dtype=DTYPES[target], count=count, offset=int(entry.data_offset))
    return values.reshape(shape)


def _sha256(values: Bits) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _stamp(path: Path, digests: dict[str, str]) -> None:
    """Overwrite the placeholder of each key with its digest, in place."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for key, digest in digests.items():
            at = data.find(DIGEST_PLACEHOLDER[key].encode(), data.find(key.encode()))
            if at < 0:
                raise RuntimeError(f"{path} has no placeholder for {key}")
            data[at : at + 64] = digest.encode()
        data.flush()
