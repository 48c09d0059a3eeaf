"""A checkpoint to a GGUF with proof, and the lines that say so. Loads no llama.cpp; a process that it starts does."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.download import HUB_ID, download_checkpoint
from convert.manifest import Manifest
from convert.target import check_target
from orin_runner.console import GIB, Bar, Notes, say
from orin_runner.default_model import remember
from orin_runner.model.gguf_digests import manifest_path
from orin_runner.workers.vocabulary import tokenized

NAMED = 5
"""Tensors named in a warning."""


def run_conversion(
    notes: Notes,
    model: str,
    out: Path | None,
    *,
    outtype: str,
    allow_rounding: bool,
    window: str,
    force: bool,
    make_default: bool,
) -> None:
    """Convert, with the options of the command; a detail for each tensor.

    Raises:
        UserError: the checkpoint or the target will not do.
    """
    target = out or Path("models") / f"{Path(model).resolve().name}.gguf"
    check_target(target, force=force)  # before hours of downloading
    directory = Path(model)
    if not directory.exists() and HUB_ID.fullmatch(model):
        notes.note(f"{model} is not a local folder: downloading it from the hub (resumed where it broke off)")
        directory = download_checkpoint(model)
    checkpoint = replace(Checkpoint.open(directory), name=_name(model))
    options = Options(outtype, allow_rounding, window, force)
    # Each tensor is checked, written and verified.
    total = 3 * sum(tensor.n_bytes for tensor in checkpoint.tensors.values())
    with notes.progress(f"converting {checkpoint.name}", total) as bar:
        manifest = convert(checkpoint, target, options, _Progress(notes, bar), tokenized)
    _print_summary(notes, manifest, target)
    if make_default:
        remember(target)


def _name(model: str) -> str:
    """The model's name, in valid Unicode whatever bytes the file system has."""
    return os.fsencode(Path(model).resolve().name).decode(errors="replace")


class _Progress:
    """Says how far the conversion is."""

    def __init__(self, notes: Notes, bar: Bar) -> None:
        self._notes, self._bar = notes, bar
        self._done = 0

    def __call__(self, stage: str, name: str, n_bytes: int) -> None:
        self._done += n_bytes
        self._bar.update(self._done, stage)
        if stage == "verify":
            self._notes.detail(f"verified {name}")


def _print_summary(notes: Notes, manifest: Manifest, target: Path) -> None:
    counts = Counter(record.type for record in manifest.tensors)
    types = " + ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    window, dropped = manifest.layout["window"], manifest.layout["dropped_window"]
    say(f"{target}: {target.stat().st_size / GIB:.2f} GiB, {len(manifest.tensors)} tensors ({types})")
    say(
        f"layout {manifest.layout['architecture']}"
        + (f", sliding window {window} honoured" if window else "")
        + (f", sliding window {dropped} DROPPED: longer prompts come out different" if dropped else "")
        + (f", {len(manifest.added)} constant tensors added" if manifest.added else "")
    )
    say(f"{manifest.changed:,} values altered; compared bit for bit after reopening the file")
    cut, pieces = manifest.tokenizer["cut_otherwise"], manifest.tokenizer["sample_pieces"]
    say(
        f"tokenizer {manifest.tokenizer['model']}, {manifest.tokenizer['pre']}; llama.cpp's cuts {cut:,} of {pieces:,} "
        f"pieces of a sample text otherwise"
    )
    say(f"proof: {manifest_path(target)}")
    if found := manifest.tokenizer["conflicts"]:
        named = ", ".join(f"{c['token'].upper()} {c['named']} in {c['file']} ({c['tokenizer']})" for c in found)
        notes.warn(f"other files name other special tokens than the tokenizer, whose are taken: {named}")
    if manifest.changed:
        worst = max(manifest.tensors, key=lambda record: record.largest_error)
        notes.warn(f"values were rounded, as allowed; the largest error is {worst.largest_error:.3g} in {worst.name}")
    not_finite: Counter[str] = Counter()
    for record in manifest.tensors:
        not_finite[record.source] += record.non_finite
    if total := not_finite.total():
        named = ", ".join(f"{n:,} in {name}" for name, n in not_finite.most_common(NAMED) if n)
        others = sum(1 for n in not_finite.values() if n) - NAMED
        notes.warn(
            f"{total:,} values of the checkpoint are not finite: {named}"
            + (f" and others in {others} more tensors" if others > 0 else "")
            + "; what they reach cannot be scored"
        )
