"""``orin_runner.evaluate``: ``orin-run eval`` called from Python. The command's own code runs, on the same options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from orin_runner.cli.caller import Call
from orin_runner.cli.exits import BrokenOffError, mistake_in
from orin_runner.cli.main import app
from orin_runner.console import Notes
from orin_runner.errors import RunError


def evaluate(tasks: str | Sequence[str], model: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Evaluate tasks on a GGUF, and return what ``report.json`` in the run's folder says.

    The folder is written as ``orin-run eval`` writes it, below ``runs/`` where no ``out`` is named. Progress goes to
    standard error, and nothing to standard output.

    Args:
        tasks: names of tasks, of groups, or of files of questions.
        model: a GGUF; None for ``$ORIN_MODEL`` or the last one converted.
        options: those of ``orin-run eval``, with underscores for their dashes: ``limit=100``, ``too_long="skip"``,
            ``draft=False``. None stands for the default.

    Returns:
        The report: by task its accuracy, metrics, clocks and tokens under ``tasks``, and more of the run beside it
        (docs/run-folder.md). Items that ``failed`` count as wrong; a warning says so.

    Raises:
        UserError: a task, an option or a file will not do; nothing has been asked.
        RunError: not even the shortest request fits into memory, or the run could not go on. What was answered is in
            the folder.
        KeyboardInterrupt: Ctrl-C; a report of what was answered is in the folder, and ``resume=True`` goes on.
    """
    call = Call("orin_runner.evaluate", {"tasks": tasks, "model": model, **options})
    command: Any = typer.main.get_command(app).commands["eval"]  # type: ignore[attr-defined]
    try:
        with command.make_context("eval", [], obj=call) as context:
            command.invoke(context)
    except BrokenOffError as error:
        raise KeyboardInterrupt(error.hint) from error
    except typer.Exit as error:
        raise RunError("the model does not fit into memory: orin-run plan says what would") from error
    except RunError as error:
        if call.report is None:
            raise
        Notes().warn(str(error))  # items failed
    except Exception as error:  # click's, which typer has under another name in each version
        mistake = mistake_in(error)
        if mistake is None or mistake is error:
            raise
        raise mistake from error
    assert call.report is not None
    return call.report
