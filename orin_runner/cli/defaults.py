"""Options that nobody has typed: those of the run that is resumed, else the environment's.

click looks a parameter up in the command's ``default_map`` where the command line does not have it, and converts and
checks what stands there as if it had been typed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from eval.data.question_file import is_question_file
from eval.runs.run import RUN, read_header
from eval.tasks.registry import names_in

DATA = "ORIN_DATA"
"""The environment's ``--data``."""
NOT_KEPT = frozenset({"out", "resume", "as_json", "verify"})
"""What is said again, or is of one command only: answers of several commands are not mixed unproven without a word."""


class Command(TyperCommand):
    """A command whose parameters have such defaults."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        found: dict[str, Any] = {"data": os.environ.get(DATA) or None}
        if typed.get("resume") and typed.get("out"):
            found.update(_of_run(Path(typed["out"])))
        ctx.default_map = {name: value for name, value in found.items() if value is not None}
        return super().parse_args(ctx, args)


def kept(context: typer.Context, settings: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """What ``run.json`` keeps of a command's parameters, so that ``--resume`` need not be told them again.

    Paths are absolute: a run may be resumed in another folder.

    Args:
        context: of the command.
        settings: of ``run.json``, which has some of them already.
        model: that is used.
    """
    found = {
        name: _plain(value)
        for name, value in context.params.items()
        if name not in NOT_KEPT and (name == "tasks" or name not in settings)
    }
    for name in ("data", "template", "fewshot"):
        found[name] = found[name] and str(Path(found[name]).absolute())
    named = found["named_tokenizer"]
    if named and Path(named).exists():  # else it is one of the hub's
        found["named_tokenizer"] = str(Path(named).absolute())
    names = names_in(found["tasks"])
    found["tasks"] = [str(Path(name).absolute()) if is_question_file(name) else name for name in names]
    return {**found, "model": str(model.absolute())}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _of_run(directory: Path) -> dict[str, Any]:
    """The parameters of the command that began a run, by name; nothing where there is no ``run.json``.

    Raises:
        UserError: it is damaged.
    """
    if not (directory / RUN).exists():
        return {}
    header = read_header(directory)
    return {**header.get("settings", {}), **header.get("options", {})}
