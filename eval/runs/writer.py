"""A run as it is written: ``run.json``, ``predictions.jsonl`` (a line as each answer arrives), ``report.json``.

``parts.json`` has its form in ``part``; ``samples.jsonl`` is the meter's.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from eval.runs.part import PARTS, Part, TaskCost, write_parts
from eval.runs.prediction import Prediction
from eval.runs.resume import Earlier, check_folder, read_earlier
from eval.runs.run import PREDICTIONS, REPORT, RUN
from orin_runner.errors import RunError, UserError
from orin_runner.files import append_bytes, json_text, make_folder, naming, write_whole
from orin_runner.model.proof import Proof, Verdict

PARTS_INTERVAL = 1.0
"""Seconds between two writings of ``parts.json``."""


class RunWriter:
    """Writes one run. Its folder is locked against a second process for as long as the writer is open.

    Args:
        directory: the run's folder, which must not hold a run yet, or the one to resume.
        header: what ``run.json`` says: command, model, versions, device, settings.
        resume: go on with a run that was broken off; it must have been one of the same model and settings.

    Attributes:
        known: answers that the folder held before, by (task, id); failed items are none, and are asked again.
        earlier: what the parts before this one have cost, by task; of parts that left no record nothing is in it.
        torn: whether the last line was incomplete and has been dropped.

    Raises:
        UserError: the folder holds a run, or none to resume, or one of something else; another process writes it.
            Nothing has been changed then.
        OSError: a file cannot be written; it is named. So of all methods.
        RunError: of all methods: the folder is no longer there.
    """

    def __init__(self, directory: Path, header: dict[str, Any], *, resume: bool = False) -> None:
        check_folder(directory, resume=resume)
        earlier = read_earlier(directory, header) if resume else Earlier()
        make_folder(directory)
        self.directory = directory
        self.known = dict(earlier.known)
        self.earlier = earlier.costs()
        self.torn = earlier.whole < earlier.size
        self._parts: list[Part] = [*earlier.parts, {}]  # the last one is this
        self._parts_written = -math.inf
        self._path = directory / PREDICTIONS
        self._written = 0
        self._predictions = self._path.open("ab", buffering=0)  # on disk with each line
        try:
            _lock(self._predictions, directory, earlier.size)
            with naming(self._path):
                self._predictions.truncate(earlier.whole)
            old = earlier.header
            self._earlier_verdict = Verdict.of_run(old) if old else None
            self._header = {**old, "resumed": [*old.get("resumed", []), header["time"]]} if old else header
            write_json(directory / RUN, self._header)
        except BaseException:
            self._predictions.close()
            raise

    def write(self, prediction: Prediction) -> None:
        """Append one prediction; it is on disk, or with the system at least, when this returns."""
        self._check_still_there()
        with naming(self._path):
            append_bytes(self._predictions, prediction.line())
        self._written += 1

    def spent(self, task: str, cost: TaskCost, *, last: bool = False) -> None:
        """What this part has cost for ``task`` so far; written about once a second, and at the ``last`` call."""
        self._parts[-1][task] = cost
        now = time.monotonic()
        if last or now - self._parts_written >= PARTS_INTERVAL:
            self._parts_written = now
            with self._there():
                write_parts(self.directory / PARTS, self._parts)

    def proved(self, verdict: Verdict) -> None:
        """Write what is known of the model's file by now; of a resumed run the weakest of its parts counts."""
        known = verdict if self._earlier_verdict is None else self._earlier_verdict.together(verdict)
        refuted = {"altered_values": None} if known.proof is Proof.REFUTED else {}
        model = {**self._header["model"], **known.keys, **refuted}
        if model != self._header["model"]:
            self._header = {**self._header, "model": model}
            with self._there():
                write_json(self.directory / RUN, self._header)

    def report(self, report: dict[str, Any]) -> None:
        """Write ``report.json``."""
        with self._there():
            write_json(self.directory / REPORT, report)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Look for the folder before something is written into it, and again if that fails."""
        self._check_still_there()
        try:
            yield
        except OSError:
            self._check_still_there()
            raise

    def _check_still_there(self) -> None:
        """What is written to a file that was removed is lost without a word from the system."""
        own = os.fstat(self._predictions.fileno())
        try:
            there = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            there = None
        if there is None or not os.path.samestat(own, there):
            n = f"the {len(self.known) + self._written} answers of the run"
            lost = f"{n} are lost" if not own.st_nlink else f"{n} are where it is now, and --resume goes on there"
            raise RunError(f"{self._path} was removed or renamed while the run wrote it: {lost}")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._predictions.close()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that a reader sees either the old or the whole new one."""
    write_whole(path, json_text(value, indent=1) + "\n")


def _lock(file: BinaryIO, directory: Path, size: int) -> None:
    """Lock ``predictions.jsonl``, which had ``size`` bytes when it was read."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.fstat(file.fileno()).st_size == size
    except BlockingIOError:
        ours = False
    if not ours:
        raise UserError(f"another process is writing the run in {directory}", "wait for it, or use another --out")
