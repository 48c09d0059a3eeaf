"""``python -m convert``: the converter's command line, the only module of it that prints and exits."""

from __future__ import annotations

import enum
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.download import download
from convert.manifest import Manifest, manifest_path
from orin_runner.console import GIB, Notes
from orin_runner.default_model import remember
from orin_runner.errors import UserError, os_error_line

DEFAULT_MODEL = "microsoft/Phi-3-medium-4k-instruct"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

notes = Notes()


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


def command(
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
    directory = Path(model)
    if not directory.exists() and HUB_ID.fullmatch(model):
        notes.note(f"{model} is not a local folder: downloading it from the hub (resumed where it broke off)")
        directory = download(model)
    checkpoint = replace(Checkpoint.open(directory), name=Path(model).resolve().name)
    target = out or Path("models") / f"{Path(model).resolve().name}.gguf"
    options = Options(outtype.value, allow_rounding, window.value)
    total = sum(tensor.n_bytes for tensor in checkpoint.tensors.values())
    done: dict[str, int] = {}
    with notes.progress(f"converting {checkpoint.name}", 3 * total) as bar:

        def report(stage: str, name: str, n_bytes: int) -> None:
            done[stage] = done.get(stage, 0) + n_bytes
            bar.update(sum(done.values()), stage)
            if verbose and stage == "verify":
                notes.note(f"verified {name}")

        manifest = convert(checkpoint, target, options, report)
    _summary(manifest, target)
    if make_default:
        remember(target)


def _summary(manifest: Manifest, target: Path) -> None:
    counts: dict[str, int] = {}
    for record in manifest.tensors:
        counts[record.type] = counts.get(record.type, 0) + 1
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
    """Entry point: every user mistake is one line and exit status 2."""
    try:
        typer.run(command)
    except UserError as error:
        notes.error(error.message, error.hint)
        sys.exit(2)
    except OSError as error:
        notes.error(os_error_line(error), "nothing was written")
        sys.exit(2)
    except RuntimeError as error:
        notes.error(str(error), "nothing was written")
        sys.exit(1)
    except KeyboardInterrupt:
        notes.error("interrupted", "nothing was written")
        sys.exit(130)


if __name__ == "__main__":
    main()
