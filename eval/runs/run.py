"""A run on disk, read back: ``run.json``, ``predictions.jsonl``, ``report.json``, ``samples.jsonl``.

Runner and reference write the same form (``writer``), so that any two runs can be compared.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.runs.prediction import DAMAGED, Prediction, read_predictions
from eval.runs.samples import SAMPLES, Sample, read_samples
from orin_runner.errors import UserError
from orin_runner.files import read_bytes, read_json
from orin_runner.model.gguf_file import EXACT

if TYPE_CHECKING:
    from orin_runner.schema import Schema

RUN, PREDICTIONS, REPORT = "run.json", "predictions.jsonl", "report.json"
PAGE, RUN_CONFIG = "report.html", "run.toml"
SAME = 1e-9
"""Two sums of the same scores in another order differ by less."""
SAME_TO_COMPARE = {
    "shots": None,
    "scoring": None,
    "chat": False,
    "protocol": None,
    "max_new_tokens": None,
    "lm_eval": None,
}
"""Settings that must be equal for two runs to be compared, and what a run that does not name them was made with."""


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
            UserError: it does not hold a run, or a file of it has not the form that ``docs/run-folder.md`` says.
        """
        if not (directory / RUN).exists():
            raise UserError(f"{directory} does not hold a run", "orin-run eval TASK --out DIR writes one")
        header = read_header(directory)
        path = directory / PREDICTIONS
        if not path.exists():
            raise UserError(f"{path} is missing", "the run cannot be read without it")
        predictions = read_predictions(path, io.BytesIO(read_bytes(path)))
        return cls(directory, header, predictions, read_report(directory), read_samples(directory / SAMPLES))


def contradictions(report: dict[str, Any], predictions: Iterable[Prediction]) -> dict[str, tuple[float, float]]:
    """By task, the accuracy that ``report.json`` says and that of the answers, where these are as many and differ."""
    scores: dict[str, list[float]] = {}
    for prediction in predictions:
        if prediction.skipped is None:
            scores.setdefault(prediction.task, []).append(prediction.score)
    found = {}
    for task, section in report.get("tasks", {}).items():
        own = scores.get(task, [])
        mean = sum(own) / max(1, len(own))
        if section["items"] == len(own) and abs(section["accuracy"] - mean) > SAME:
            found[task] = (section["accuracy"], mean)
    return found


def quantized_types(header: dict[str, Any]) -> tuple[str, ...]:
    """The quantized ggml types of the model of a ``run.json``, most tensors first; empty at full precision."""
    types = header.get("model", {}).get("types", {})
    return tuple(sorted((name for name in types if name not in EXACT), key=lambda name: -types[name]))


def lossy_line(header: dict[str, Any]) -> str | None:
    """What is said of a run of a quantized model; None of another's."""
    types = quantized_types(header)
    return (
        f"lossy: the model is quantized ({', '.join(types)}), its answers are not the checkpoint's" if types else None
    )


def read_header(directory: Path) -> dict[str, Any]:
    """``run.json``.

    Raises:
        UserError: it is missing, or has not its form.
    """
    from eval.runs.shapes import HEADER  # noqa: PLC0415 - brings pydantic along

    return _checked(directory / RUN, HEADER)


def read_report(directory: Path) -> dict[str, Any]:
    """``report.json``, empty where there is none.

    Raises:
        UserError: it has not its form.
    """
    from eval.runs.shapes import REPORT as FORM  # noqa: PLC0415 - as above

    return _checked(directory / REPORT, FORM) if (directory / REPORT).exists() else {}


def _checked(path: Path, form: Schema[Any]) -> dict[str, Any]:
    value = read_json(path, DAMAGED)
    form.check_row(str(path), value, DAMAGED)
    return value
