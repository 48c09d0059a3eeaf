"""A run on disk: ``run.json``, ``predictions.jsonl`` (appended and flushed as answers arrive) and ``report.json``.

``samples.jsonl`` has its form in ``samples``, ``parts.json`` in ``part``. Runner and reference write the same form, so
that any two runs can be compared.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from eval.runs.part import PARTS, TaskCost
from eval.runs.prediction import Prediction
from eval.runs.samples import SAMPLES, Sample, read_samples
from orin_runner.errors import UserError
from orin_runner.files import drop_torn_line, read_json

RUN, PREDICTIONS, REPORT = "run.json", "predictions.jsonl", "report.json"
DAMAGED = "run the evaluation again"
PARTS_INTERVAL = 1.0
"""Seconds between two writings of ``parts.json``."""
SAME_TO_RESUME = ("engine", "settings")
"""Parts of the header that must be equal for a run to go on; the model's digest is the third."""
SAME_TO_COMPARE = {"shots": None, "scoring": None, "chat": False, "limit": None, "max_new_tokens": None}
"""Settings that must be equal for two runs to be compared, and what a run that does not name them was made with."""


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
    """

    def __init__(self, directory: Path, header: dict[str, Any], *, resume: bool = False) -> None:
        check_folder(directory, resume=resume)
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.known: dict[tuple[str, str], Prediction] = {}
        self.earlier: dict[str, TaskCost] = {}
        self.torn = False
        self._parts: list[dict[str, TaskCost]] = [{}]  # by task; the last one is this
        self._parts_written = -math.inf
        self._predictions = (directory / PREDICTIONS).open("a", encoding="utf-8")
        try:
            _lock(self._predictions, directory)
            write_json(directory / RUN, self._taken_up(header) if resume else header)
        except UserError:
            self._predictions.close()
            raise

    def _taken_up(self, header: dict[str, Any]) -> dict[str, Any]:
        """Read what is there, drop a torn last line, and return the old header with the time it was resumed."""
        old = read_json(self.directory / RUN, DAMAGED)
        check_same(self.directory, old, header)
        self.torn = drop_torn_line(self.directory / PREDICTIONS)
        self.known = {key: p for key, p in Run.open(self.directory).predictions.items() if p.failed is None}
        parts = _read_parts(self.directory / PARTS)
        self._parts = [*parts, {}]
        for part in parts:
            for task, cost in part.items():
                self.earlier[task] = self.earlier.get(task, TaskCost()).together(cost)
        return {**old, "resumed": [*old.get("resumed", []), header["time"]]}

    def write(self, prediction: Prediction) -> None:
        """Append one prediction and flush it."""
        self._predictions.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
        self._predictions.flush()

    def spent(self, task: str, cost: TaskCost, *, last: bool = False) -> None:
        """What this part has cost for ``task`` so far; written about once a second, and at the ``last`` call."""
        self._parts[-1][task] = cost
        now = time.monotonic()
        if last or now - self._parts_written >= PARTS_INTERVAL:
            self._parts_written = now
            parts = [{task: cost.to_json() for task, cost in part.items()} for part in self._parts]
            write_json(self.directory / PARTS, parts)

    def report(self, report: dict[str, Any]) -> None:
        """Write ``report.json``."""
        write_json(self.directory / REPORT, report)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._predictions.close()


@dataclass(frozen=True, slots=True)
class Run:
    """A run read back.

    Attributes:
        directory: where it lies.
        header: ``run.json``.
        predictions: by (task, id).
        report: ``report.json``, empty if the run did not end.
        samples: ``samples.jsonl``, empty for a run that was not metered.
    """

    directory: Path
    header: dict[str, Any]
    predictions: dict[tuple[str, str], Prediction]
    report: dict[str, Any]
    samples: tuple[Sample, ...] = ()

    @classmethod
    def open(cls, directory: Path) -> Run:
        """Read a run folder.

        Raises:
            UserError: it does not hold a run, or a line cannot be read.
        """
        header_file = directory / RUN
        if not header_file.exists():
            raise UserError(f"{directory} does not hold a run", "orin-run eval TASK --out DIR writes one")
        header = read_json(header_file, DAMAGED)
        predictions: dict[tuple[str, str], Prediction] = {}
        path = directory / PREDICTIONS
        if not path.exists():
            raise UserError(f"{path} is missing", "the run cannot be read without it")
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    if row["logprobs"] is not None:
                        row["logprobs"] = tuple(row["logprobs"])
                    prediction = Prediction(**row)
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise UserError(f"{path}, line {number}: not a prediction") from error
                key = (prediction.task, prediction.id)
                # An item that failed is asked again when the run is resumed.
                if key in predictions and predictions[key].failed is None:
                    raise UserError(f"{path}, line {number}: {prediction.task} {prediction.id} stands there twice")
                predictions[key] = prediction
        report_file = directory / REPORT
        report = read_json(report_file, DAMAGED) if report_file.exists() else {}
        return cls(directory, header, predictions, report, read_samples(directory / SAMPLES))


def check_same(directory: Path, old: dict[str, Any], header: dict[str, Any]) -> None:
    """Refuse to go on with a run of another engine, other settings or another model.

    Args:
        directory: the run's folder.
        old: its ``run.json``.
        header: of the run that would go on.

    Raises:
        UserError: it is another one.
    """
    differing = [key for key in SAME_TO_RESUME if old.get(key) != header.get(key)]
    if old.get("model", {}).get("sha256") != header.get("model", {}).get("sha256"):
        differing.append("model")
    if differing:
        raise UserError(f"{directory} holds a run with other {' and '.join(differing)}", f"see {directory / RUN}")


def _read_parts(path: Path) -> list[dict[str, TaskCost]]:
    """The parts of a run; none where there is no such file (runs before there were parts), or where it is damaged."""
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        return [{task: TaskCost.from_json(cost) for task, cost in part.items()} for part in parts]
    except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
        return []


def _lock(file: TextIO, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process is writing the run in {directory}", "wait for it, or use another --out"
        ) from error


def check_folder(directory: Path, *, resume: bool = False) -> None:
    """Refuse a folder that a ``RunWriter`` refuses; for commands to ask before they load anything.

    Raises:
        UserError: it holds a run, or none to resume.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file, not a folder", "name another folder with --out")
    if resume and not (directory / RUN).exists():
        raise UserError(f"{directory} does not hold a run to resume", "leave --resume out to begin one")
    if not resume and ((directory / RUN).exists() or (directory / PREDICTIONS).exists()):
        raise UserError(f"{directory} already holds a run", "name another folder with --out, or remove it")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that a reader sees either the old or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
