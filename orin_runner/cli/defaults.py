"""Options that nobody has typed: those of ``--config``, of the run that is resumed, of the environment, in that order.

click looks a parameter up in the command's ``default_map`` where the command line does not have it, and converts and
checks what stands there as if it had been typed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from eval.data.question_file import is_question_file
from eval.runs.run import RUN, RUN_CONFIG, read_header
from eval.tasks.registry import names_in
from orin_runner.cli import exits
from orin_runner.cli.caller import Call
from orin_runner.cli.config import CONFIG, checked, keys_of, read_config, toml_text
from orin_runner.errors import UserError
from orin_runner.files import write_whole

NAMES = ("tasks", "model", "named_tokenizer", "data", "template", "fewshot")
"""Parameters whose mistakes are told by their values."""
DATA = "ORIN_DATA"
"""The environment's ``--data``."""
NOT_KEPT = frozenset({"out", "resume", "as_json", CONFIG, "quiet", "verbose", "log_file"})
"""What is said again, or is of one command only."""
NOT_RESUMED = NOT_KEPT | {"verify"}
"""Answers of several commands are not mixed unproven without a word."""
PATHS = ("data", "template", "fewshot", "prompt_cache")


class Command(TyperCommand):
    """A command whose parameters have such defaults.

    Called from Python its context's ``obj`` is a ``Call``, whose options count as typed.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell asks for completions
            return super().parse_args(ctx, args)
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        typed = {name: value for name, value in typed.items() if value is not None and value != ()}
        called = {} if ctx.obj is None else _of_call(ctx.obj, self)
        typed |= called
        config = _of_file(Path(typed[CONFIG]), self) if CONFIG in typed else {}
        given = {**config, **typed}
        run = _of_run(Path(given["out"]), self) if given.get("resume") and given.get("out") else {}
        found = {"data": os.environ.get(DATA) or None, **run, **config, **called}
        ctx.default_map = {name: value for name, value in found.items() if value is not None}
        if config:
            ctx.meta[CONFIG] = typed[CONFIG], {name: value for name, value in config.items() if name not in typed}
        with _named_file(self, ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _named_file(self, ctx):
            return super().invoke(ctx)


def _of_file(path: Path, command: Command) -> dict[str, Any]:
    keys = keys_of(command)
    return {keys[key].name: value for key, value in read_config(path, command).items()}


def _of_call(call: Call, command: Command) -> dict[str, Any]:
    keys = {key.replace("-", "_"): param for key, param in keys_of(command).items() if param.name != "as_json"}
    found = checked(call.options, keys, call.name, "docs/cli.md has the options, with dashes")
    return {keys[key].name: value for key, value in found.items()}


@contextmanager
def _named_file(command: Command, ctx: Any) -> Iterator[None]:
    """A mistake in what ``--config`` has set names the file as well, where it names the option, task or path."""
    try:
        yield
    except Exception as error:  # click's, which typer has under another name in each version
        mistake = exits.mistake_in(error)
        file, given = ctx.meta.get(CONFIG, ("", {}))
        names = {f"--{key}" for key, param in keys_of(command).items() if param.name in given}
        for value in (given[name] for name in NAMES if name in given):
            names |= {value} if isinstance(value, str) else {*value}
        if mistake is None or not any(_mentions(mistake.message, name) for name in names):
            raise
        raise UserError(f"{file}: {mistake.message}", mistake.hint) from error


def _mentions(message: str, text: str) -> bool:
    return re.search(rf"(?<![\w./-]){re.escape(text)}(?![\w./-])", message) is not None


def kept(context: typer.Context, settings: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """What ``run.json`` keeps of a command's parameters, so that ``--resume`` need not be told them again.

    Args:
        context: of the command.
        settings: of ``run.json``, which has some of them already.
        model: that is used.
    """
    found = parameters(context, model)
    return {
        name: value
        for name, value in found.items()
        if name not in NOT_RESUMED and (name == "tasks" or name not in settings)
    }


def write_config(directory: Path, context: typer.Context, found: Mapping[str, Any]) -> None:
    """Write what repeats a run with ``--config``, where that is not there: each parameter that has not its default.

    Args:
        directory: of the run.
        context: of the command.
        found: its parameters (``parameters``).

    Raises:
        OSError: it cannot be written.
    """
    path = directory / RUN_CONFIG
    if path.exists():
        return
    left, values = dict(found), {}
    for key, param in keys_of(context.command).items():
        value = None if param.name in NOT_KEPT else left.pop(param.name, None)  # a key for each, its first
        if value not in (None, [], _plain(param.default)):
            values[key] = value
    text = f"# orin-run {context.command.name} --config {RUN_CONFIG} does this again; --out names another folder.\n"
    write_whole(path, text + toml_text(values))


def parameters(context: typer.Context, model: Path) -> dict[str, Any]:
    """A command's parameters as JSON has them, with absolute paths: they may be used in another folder."""
    found = {name: _plain(value) for name, value in context.params.items()}
    found["model"] = str(model.absolute())
    for name in PATHS:
        found[name] = found.get(name) and str(Path(found[name]).absolute())
    named = found.get("named_tokenizer")
    if named and Path(named).exists():  # else it is one of the hub's
        found["named_tokenizer"] = str(Path(named).absolute())
    names = names_in(found["tasks"])
    found["tasks"] = [str(Path(name).absolute()) if is_question_file(name) else name for name in names]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _of_run(directory: Path, command: Command) -> dict[str, Any]:
    """The parameters of the command that began a run, by name; nothing where there is no ``run.json``.

    Raises:
        UserError: it is damaged, or of another command.
    """
    if not (directory / RUN).exists():
        return {}
    header = read_header(directory)
    if (owner := "lm-eval" if "lm_eval" in header.get("settings", {}) else "eval") != command.name:
        again = f"orin-run {owner} --resume --out {shlex.quote(str(directory))}"
        raise UserError(f"{directory} holds a run of {owner}", again)
    return {**header.get("settings", {}), **header.get("options", {})}
