"""One conversion: decide types, write the GGUF tensor by tensor, reopen it, compare every value, rename it.

Memory is one tensor, not one model. The file is written under a temporary name; only a verified file gets its own.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from convert.checkpoint import Checkpoint
from convert.conversion import Conversion, Report
from convert.header import stamp
from convert.layouts.families import layout_for
from convert.layouts.layout import Layout
from convert.manifest import AddedRecord, Manifest, OmittedRecord
from convert.schemas import DAMAGED, OF_ONE_MODEL
from convert.source_tensor import DTYPES, SKIPPED
from convert.target import check_target, written
from convert.tensor_type import Use, pick_type
from convert.verify import Verified, verify
from convert.vocab.sample import Tokenize, cut_otherwise
from convert.vocab.vocabulary import read_vocabulary
from convert.write import write
from orin_runner.errors import UserError
from orin_runner.files import naming
from orin_runner.model.gguf_digests import metadata_digests
from orin_runner.model.gguf_header import Header, read_header
from orin_runner.model.gguf_keys import CHECKPOINT_SHA256, MANIFEST_SHA256
from orin_runner.version import __version__

HEADER_ALLOWANCE = 32 << 20
"""Bytes of metadata to allow for when checking free disk space: two vocabularies and the tensor table."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert. ``window`` is ``"exact"`` or ``"off"``; ``allow_rounding`` only matters for a 16-bit outtype.

    ``force`` replaces an earlier GGUF and its manifest.
    """

    outtype: str = "auto"
    allow_rounding: bool = False
    window: str = "exact"
    force: bool = False


def convert(
    checkpoint: Checkpoint,
    out: Path,
    options: Options,
    report: Report = lambda *_: None,
    tokenize: Tokenize | None = None,
) -> Manifest:
    """Convert ``checkpoint`` to ``out`` and write the manifest beside it.

    Args:
        checkpoint: an opened checkpoint.
        out: the GGUF to write; nothing is left there if anything goes wrong.
        options: how.
        report: progress.
        tokenize: llama.cpp's own vocabulary, which this package does not load; without it nobody compares it.

    Raises:
        UserError: unsupported or incomplete checkpoint, lossy type, too little disk, or something lies at ``out`` that
            is not to be replaced.
        RunError: the written file does not hold the checkpoint's values (disk or memory failure, or a bug).
    """
    check_target(out, force=options.force)  # before all weights are read
    conversion = _decide(checkpoint, out, options, report)
    with written(out, force=options.force) as (gguf, manifest_file):
        write(gguf, conversion, report)
        verified = verify(gguf, conversion, report)
        cut = tokenize and cut_otherwise(gguf, conversion.vocabulary.huggingface_json, tokenize)
        manifest = _manifest(conversion, verified, read_header(gguf), cut)
        stamp(gguf, {MANIFEST_SHA256: manifest.digest(), CHECKPOINT_SHA256: manifest.checkpoint["sha256"]})
        with naming(manifest_file):
            manifest_file.write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _decide(checkpoint: Checkpoint, out: Path, options: Options, report: Report) -> Conversion:
    layout = layout_for(checkpoint, options.window)
    sources = layout.sources()
    _match(checkpoint, layout)
    n_rows = sources[layout.tensors[0].source][0]
    vocabulary = read_vocabulary(checkpoint.directory, n_rows, checkpoint.config)
    # Before the weights are read; what they come out as is known, and checked, after that.
    _check_disk(out, layout, dict.fromkeys(sources, "F16"))
    types: dict[str, str] = {}
    altered = 0
    for group in layout.stacks():
        uses = [Use(checkpoint.tensors[name], *use) for name in group for use in layout.uses(name)]
        picked, changed = pick_type(uses, options.outtype, allow_rounding=options.allow_rounding)
        types |= dict.fromkeys(group, picked)
        altered += changed
        for name in group:
            report("check", name, checkpoint.tensors[name].n_bytes)
    _check_disk(out, layout, types)
    return Conversion(checkpoint, layout, vocabulary, types, altered)


def _match(checkpoint: Checkpoint, layout: Layout) -> None:
    """Every tensor of the layout is there in the right shape, and no other is."""
    sources = layout.sources()
    for name, shape in sources.items():
        if name not in checkpoint.tensors:
            raise UserError(f"tensor {name} is missing from {checkpoint.directory}", DAMAGED)
        found = checkpoint.tensors[name].shape
        if found != shape:
            reason = f"tensor {name} has shape {list(found)}, config.json calls for {list(shape)}"
            raise UserError(reason, OF_ONE_MODEL)
    for name, tensor in checkpoint.tensors.items():
        twin = layout.duplicates.get(name)
        if twin is not None and tensor.sha256() != checkpoint.tensors[twin].sha256():
            raise UserError(
                f"tensor {name} is not {twin}, to which config.json ties it", "set tie_word_embeddings false"
            )
        if twin is None and name not in sources and not name.endswith(SKIPPED):
            reason = f"tensor {name} is unknown to the {layout.architecture} layout; nothing is dropped silently"
            raise UserError(reason, f"{OF_ONE_MODEL}, or save it without that tensor")


def _check_disk(out: Path, layout: Layout, types: dict[str, str]) -> None:
    needed = HEADER_ALLOWANCE + sum(
        math.prod(tensor.shape) * np.dtype(DTYPES[types[tensor.source]]).itemsize for tensor in layout.tensors
    )
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{out} needs {needed / 2**30:.1f} GiB, {folder} has {free / 2**30:.1f} GiB free", "name another OUT.gguf"
        )


def _manifest(conversion: Conversion, verified: Verified, header: Header, cut: tuple[int, int] | None) -> Manifest:
    checkpoint, layout, vocabulary = conversion.checkpoint, conversion.layout, conversion.vocabulary
    return Manifest(
        tool=f"orin-run {__version__}",
        checkpoint={
            "name": checkpoint.name,
            "model_type": checkpoint.config.get("model_type"),
            "sha256": checkpoint.digest(verified.source_sha256),
        },
        layout={key: getattr(layout, key) for key in ("architecture", "window", "dropped_window")},
        tokenizer={
            "built_by": vocabulary.built_by,
            "sha256": hashlib.sha256(vocabulary.huggingface_json.encode()).hexdigest(),
            "model": vocabulary.model,
            "pre": vocabulary.pre,
            "cut_otherwise": None if cut is None else cut[0],
            "sample_pieces": None if cut is None else cut[1],
            "conflicts": [asdict(conflict) for conflict in vocabulary.conflicts],
        },
        metadata_sha256=metadata_digests(header),
        tensor_table_sha256=header.table_sha256,
        source_sha256=verified.source_sha256,
        tensors=verified.tensors,
        added=[AddedRecord(a.name, "F32", a.shape, a.value, a.reason) for a in layout.added],
        omitted=[OmittedRecord(o.source, o.rows, o.reason) for o in layout.omitted],
        verified=True,
    )
