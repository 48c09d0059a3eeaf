"""Programs that are killed at random moments."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.waiting import until

AFTER_S = 0.02
"""Seconds between the moment at which a file is written and the kill, at most."""


@dataclass(frozen=True)
class Killed:
    """What became of a program.

    Attributes:
        leader: process id, and that of its group.
        status: as ``subprocess`` has it: negative for a signal.
        output, errors: what it wrote.
        landed: whether the signal ended it; it had not ended of itself before.
    """

    leader: int
    status: int
    output: str
    errors: str
    landed: bool


def started(argv: Sequence[str | Path]) -> subprocess.Popen[str]:
    """A program at the head of a process group of its own, which heeds Ctrl-C also where these tests do not."""
    return subprocess.Popen(
        [*argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
    )


def heeds_signals(process: subprocess.Popen[str]) -> bool:
    """Whether it has a handler for SIGTERM, as ``/proc`` says; before, Python itself answers Ctrl-C, by a traceback."""
    assert process.poll() is None, process.communicate()
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def wait_for_an_answer(process: subprocess.Popen[str], out: Path) -> None:
    """Until the run in ``out`` has its first answer; it must not have ended before."""
    predictions = out / "predictions.jsonl"
    while not predictions.exists() or not predictions.stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)


def interrupted(process: subprocess.Popen[str], out: Path) -> tuple[str, str]:
    """Ctrl-C as soon as the run in ``out`` has an answer; all that it writes to stdout and stderr."""
    wait_for_an_answer(process, out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    return stdout, stderr


def wait_for_a_moment(
    process: subprocess.Popen[str], rng: random.Random, files: Sequence[Path], seconds: float
) -> None:
    """Until a time within ``seconds``, or until one of ``files`` appears or is written again; or the process ends."""
    path = rng.choice([None, *files])
    if path is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, seconds))
        return
    before = written(path)
    while process.poll() is None and written(path) == before:
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, AFTER_S))


def written(path: Path) -> int:
    """When it was, in nanoseconds; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill_at_a_moment(
    argv: Sequence[str | Path], how: signal.Signals, rng: random.Random, files: Sequence[Path], seconds: float
) -> Killed:
    """Start a program and send it ``how`` at a random moment (``wait_for_a_moment``)."""
    process = started(argv)
    if how == signal.SIGINT:
        until(partial(heeds_signals, process))
    wait_for_a_moment(process, rng, files, seconds)
    process.send_signal(how)  # does nothing where poll() has seen the end
    output, errors = process.communicate(timeout=300)
    return Killed(process.pid, process.returncode, output, errors, process.returncode in {-how, 128 + how})


def group_has_ended(leader: int) -> bool:
    """Whether no process of the group runs; what has ended and was not waited for does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(group) == leader and state not in {"Z", "X"}:
                return False
    return True
