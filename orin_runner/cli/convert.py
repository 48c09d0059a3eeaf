"""``orin-run convert``, which is ``python -m convert``, too: its options."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from orin_runner.cli import exits
from orin_runner.cli.output import with_output
from orin_runner.console import Notes
from orin_runner.errors import UserError

DEFAULT_MODEL = "microsoft/Phi-3-medium-4k-instruct"
HINT = "a GGUF is written whole or not at all"
"""What is said of errors that are not the user's."""


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
        OutType,
        typer.Option(
            help="auto: F16 where every value survives it, else the checkpoint's own type. "
            "f32: twice the memory; on some CPUs faster, as orin-run bench finds out."
        ),
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
    *,
    notes: Notes,
) -> None:
    """Convert a Hugging Face checkpoint to a 16-bit GGUF without altering a value, and prove it.

    Its weights are safetensors, or else .bin files, which take torch to read (the reference extra).

    The file is written under a temporary name, reopened, compared with the checkpoint bit for bit, and only then
    renamed. The proof lies beside it: OUT.gguf.manifest.json. What lies there already is not replaced, but for an
    earlier GGUF with --force.
    """
    try:
        from orin_runner.cli.conversion import run_conversion  # noqa: PLC0415 - the other commands do without
    except ModuleNotFoundError as error:
        raise UserError(f"the converter needs transformers ({error})", "pip install 'orin-run[convert]'") from error
    run_conversion(
        notes,
        model,
        out,
        outtype=outtype.value,
        allow_rounding=allow_rounding,
        window=window.value,
        force=force,
        make_default=make_default,
    )


def main() -> None:
    """Entry point."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    help_names = {"help_option_names": ["-h", "--help"]}
    app.command(cls=exits.Command, context_settings=help_names)(with_output(convert_command))
    exits.run(app, hint=HINT)
