"""``python -m convert``: a checkpoint to a GGUF with proof. Loads no llama.cpp."""

from __future__ import annotations

import enum
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.download import download
from convert.manifest import Manifest, manifest_path
from orin_runner.cli import exits
from orin_runner.console import GIB, Bar, Notes
from orin_runner.default_model import remember

DEFAULT_MODEL = "microsoft/Phi-3-medium-4k-instruct"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
        typer.Option(help="exact honours Phi-3's sliding window; off writes llama.cpp's plain layout, which drops it."),
    ] = Window.exact,
    make_default: Annotated[
        bool, typer.Option("--make-default", help="Let orin-run use this file where no --model is given.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="One line per tensor.")] = False,
) -> None:
    """Convert a Hugging Face checkpoint to a 16-bit GGUF without altering a value, and prove it.

    The file is written under a temporary name, reopened, compared with the checkpoint bit for bit, and only then
    renamed. The proof lies beside it: OUT.gguf.manifest.json.
    """
    notes = Notes()
    directory = Path(model)
    if not directory.exists() and HUB_ID.fullmatch(model):
        notes.note(f"{model} is not a local folder: downloading it from the hub (resumed where it broke off)")
        directory = download(model)
    checkpoint = replace(Checkpoint.open(directory), name=Path(model).resolve().name)
    target = out or Path("models") / f"{Path(model).resolve().name}.gguf"
    options = Options(outtype.value, allow_rounding, window.value)
    # Each tensor is checked, written and verified.
    total = 3 * sum(tensor.n_bytes for tensor in checkpoint.tensors.values())
    with notes.progress(f"converting {checkpoint.name}", total) as bar:
        manifest = convert(checkpoint, target, options, _Progress(notes, bar, verbose=verbose))
    _print_summary(notes, manifest, target)
    if make_default:
        remember(target)


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
    print(f"{target}: {target.stat().st_size / GIB:.2f} GiB, {len(manifest.tensors)} tensors ({types})")
    print(
        f"layout {manifest.layout['architecture']}"
        + (f", sliding window {window} honoured" if window else "")
        + (f", sliding window {dropped} DROPPED: longer prompts come out different" if dropped else "")
        + (f", {len(manifest.added)} zero-weight tensors added" if manifest.added else "")
    )
    print(f"{manifest.changed:,} values altered; compared bit for bit after reopening the file")
    print(f"proof: {manifest_path(target)}")
    if manifest.changed:
        worst = max(manifest.tensors, key=lambda record: record.largest_error)
        notes.warn(f"values were rounded, as allowed; the largest error is {worst.largest_error:.3g} in {worst.name}")


def main() -> None:
    """Entry point."""
    exits.run(partial(typer.run, convert_command), hint="nothing was written")
