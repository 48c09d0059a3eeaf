"""One conversion: decide types, write the GGUF tensor by tensor, reopen it, compare every value, rename it.

Memory is one tensor, not one model. The file is written under a temporary name; only a verified file gets its own.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.checkpoint import DTYPES, Checkpoint, SourceTensor
from convert.conversion import Conversion, Report
from convert.exactness import Loss, loss
from convert.header import stamp
from convert.layouts.families import layout_for
from convert.layouts.layout import SKIPPED, Layout
from convert.manifest import AddedRecord, Manifest, manifest_path
from convert.verify import Verified, verify
from convert.vocab.vocabulary import read_vocabulary
from convert.write import write
from orin_runner import __version__
from orin_runner.errors import UserError
from orin_runner.model.gguf_keys import CHECKPOINT_SHA256, MANIFEST_SHA256

HEADER_ALLOWANCE = 32 << 20
"""Bytes of metadata to allow for when checking free disk space: two vocabularies and the tensor table."""


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
        RunError: the written file does not hold the checkpoint's values (disk or memory failure, or a bug).
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder", "name the file to write, such as model.gguf")
    conversion = _decide(checkpoint, out, options, report)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    manifest_file = manifest_path(out)
    partial_manifest = manifest_file.with_name(manifest_file.name + ".partial")
    try:
        write(partial, conversion, report)
        manifest = _manifest(conversion, verify(partial, conversion, report))
        stamp(partial, {MANIFEST_SHA256: manifest.digest(), CHECKPOINT_SHA256: manifest.checkpoint["sha256"]})
        partial_manifest.write_text(manifest.to_json(), encoding="utf-8")
        # The file holds its manifest's digest: a kill between the two leaves a pair whose digests tell them apart.
        partial.replace(out)
        partial_manifest.replace(manifest_file)
    except BaseException:
        partial.unlink(missing_ok=True)
        partial_manifest.unlink(missing_ok=True)
        raise
    return manifest


def _decide(checkpoint: Checkpoint, out: Path, options: Options, report: Report) -> Conversion:
    layout = layout_for(checkpoint.config, options.window)
    sources = layout.sources()
    _match(checkpoint, layout.architecture, sources)
    n_rows = sources[layout.tensors[0].source][0]
    vocabulary = read_vocabulary(checkpoint.directory, n_rows)
    # Before the weights are read; what they come out as is known, and checked, after that.
    _check_disk(out, layout, dict.fromkeys(sources, "F16"))
    types: dict[str, str] = {}
    altered = 0
    for name in sources:
        types[name], changed = _pick_type(checkpoint.tensors[name], options, report)
        altered += changed
    _check_disk(out, layout, types)
    return Conversion(checkpoint, layout, vocabulary, types, altered)


def _match(checkpoint: Checkpoint, architecture: str, sources: dict[str, tuple[int, ...]]) -> None:
    """Every tensor of the layout is there in the right shape, and no other is."""
    for name, shape in sources.items():
        if name not in checkpoint.tensors:
            raise UserError(f"tensor {name} is missing from {checkpoint.directory}", "download the checkpoint again")
        found = checkpoint.tensors[name].shape
        if found != shape:
            raise UserError(f"tensor {name} has shape {list(found)}, config.json calls for {list(shape)}")
    for name in checkpoint.tensors:
        if name not in sources and not name.endswith(SKIPPED):
            raise UserError(f"tensor {name} is unknown to the {architecture} layout; nothing is dropped silently")


def _pick_type(source: SourceTensor, options: Options, report: Report) -> tuple[str, int]:
    """The type to store ``source`` as (safetensors name), and how many values that alters."""
    if len(source.shape) == 1:
        return "F32", 0  # llama.cpp wants vectors in F32; widening is exact
    wanted = options.outtype.upper()
    if wanted == "AUTO":
        exact = (t for t in ("F16", "BF16") if not loss(source.chunks(), source.dtype, t, stop_at_first=True).changed)
        wanted, found = next(exact, source.dtype), Loss(0, 0.0)
    else:
        found = loss(source.chunks(), source.dtype, wanted)
    report("check", source.name, source.n_bytes)
    if found.changed and not options.allow_rounding:
        raise UserError(
            f"tensor {source.name}: {found.changed:,} of {math.prod(source.shape):,} values do not survive "
            f"{options.outtype} (largest error {found.largest_error:.3g})",
            "use --outtype auto, or --allow-rounding to round them",
        )
    return wanted, found.changed


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


def _manifest(conversion: Conversion, verified: Verified) -> Manifest:
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
        },
        source_sha256=verified.source_sha256,
        tensors=verified.tensors,
        added=[AddedRecord(a.name, "F32", a.shape, a.value, a.reason) for a in layout.added],
        verified=True,
    )
