"""``python -m convert``: a checkpoint to a GGUF with proof. Loads no llama.cpp; a process that it starts does."""

from __future__ import annotations

import enum
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.download import HUB_ID, download_checkpoint
from convert.manifest import Manifest
from convert.target import check_target
from orin_runner.cli import exits
from orin_runner.console import GIB, Bar, Notes, say
from orin_runner.default_model import remember
from orin_runner.errors import UserError
from orin_runner.model.gguf_digests import manifest_path
from orin_runner.workers.vocabulary import tokenized

DEFAULT_MODEL = "microsoft/Phi-3-medium-4k-instruct"
NAMED = 5
"""Tensors named in a warning."""


class OutType(str, enum.Enum):
    """Tensor types on offer."""

    auto = "auto"
    f16 = "f16"
    bf16 = "bf16"
    f32 = "f32"


class Window(str, enum.Enum):
    """What becomes of a sliding window."""

    exact = "exact"
    off = "off"


def convert_command(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, or hub id such as org/model.")] = DEFAULT_MODEL,
    out: Annotated[Path | None, typer.Argument(metavar="OUT.gguf", help="Default: models/NAME.gguf.")] = None,
    outtype: Annotated[
        OutType, typer.Option(help="auto: F16 where every value survives it, else the checkpoint's own type.")
    ] = OutType.auto,
    allow_rounding: Annotated[
        bool, typer.Option("--allow-rounding", help="Round values that do not survive --outtype; the file says so.")
    ] = False,
    window: Annotated[
        Window,
        typer.Option(help="exact honours a sliding window; off writes llama.cpp's plain layout, which drops it."),
    ] = Window.exact,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier GGUF of that name, and its manifest; nothing else.")
    ] = False,
    make_default: Annotated[
        bool, typer.Option("--make-default", help="Let orin-run use this file where no --model is given.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="One line per tensor.")] = False,
) -> None:
    """Convert a Hugging Face checkpoint to a 16-bit GGUF without altering a value, and prove it.

    Its weights are safetensors, or else .bin files, which take torch to read (the reference extra).

    The file is written under a temporary name, reopened, compared with the checkpoint bit for bit, and only then
    renamed. The proof lies beside it: OUT.gguf.manifest.json. What lies there already is not replaced, but for an
    earlier GGUF with --force.
    """
    notes = Notes()
    target = out or Path("models") / f"{Path(model).resolve().name}.gguf"
    _need_utf8(Path(model))
    _need_utf8(target)
    check_target(target, force=force)  # before hours of downloading
    directory = Path(model)
    if not directory.exists() and HUB_ID.fullmatch(model):
        notes.note(f"{model} is not a local folder: downloading it from the hub (resumed where it broke off)")
        directory = download_checkpoint(model)
    checkpoint = replace(Checkpoint.open(directory), name=_name(model))
    options = Options(outtype.value, allow_rounding, window.value, force)
    # Each tensor is checked, written and verified.
    total = 3 * sum(tensor.n_bytes for tensor in checkpoint.tensors.values())
    with notes.progress(f"converting {checkpoint.name}", total) as bar:
        manifest = convert(checkpoint, target, options, _Progress(notes, bar, verbose=verbose), tokenized)
    _print_summary(notes, manifest, target)
    if make_default:
        remember(target)


def _need_utf8(path: Path) -> None:
    """Refuse a name that the tokenizers library and llama.cpp cannot take."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path} is not a name in UTF-8", "rename it") from error


def _name(model: str) -> str:
    """The model's name, in valid Unicode whatever bytes the file system has."""
    return os.fsencode(Path(model).resolve().name).decode(errors="replace")


class _Progress:
    """Says how far the conversion is."""

    def __init__(self, notes: Notes, bar: Bar, *, verbose: bool) -> None:
        self._notes, self._bar, self._verbose = notes, bar, verbose
        self._done = 0

    def __call__(self, stage: str, name: str, n_bytes: int) -> None:
        self._done += n_bytes
        self._bar.update(self._done, stage)
        if self._verbose and stage == "verify":
            self._notes.note(f"verified {name}")


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
        f"tokenizer {manifest.tokenizer['model']}, {manifest.tokenizer['pre']}: orin-run uses the checkpoint's own; "
        f"llama.cpp's cuts {cut:,} of {pieces:,} pieces of a sample text otherwise"
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


def main() -> None:
    """Entry point."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=exits.Command, context_settings={"help_option_names": ["-h", "--help"]})(convert_command)
    exits.run(app, hint="a GGUF is written whole or not at all")
