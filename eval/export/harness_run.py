"""A run of ``orin-run lm-eval``: the harness's own results and samples, as the run keeps them, in its files' form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from eval.data.text_file import lines_of
from eval.export.names import file_name
from eval.runs.prediction import DAMAGED
from eval.runs.run import Run
from orin_runner.errors import UserError
from orin_runner.files import read_bytes
from orin_runner.schema import Schema

RESULTS = "results.json"
"""The harness's results in a run's folder; a run that has them is complete."""


class _Results(TypedDict):
    configs: dict[str, Any]


class _Sample(TypedDict):
    doc_id: int
    target: Any
    arguments: list[list[Any]]
    resps: list[Any]
    filtered_resps: list[Any]
    doc_hash: str
    prompt_hash: str
    target_hash: str


FORM, SAMPLE = Schema(_Results), Schema(_Sample)


@dataclass(frozen=True, slots=True)
class Tables:
    """What is written.

    Attributes:
        results: of ``results_TIME.json``.
        samples: by the harness's task, the lines of ``samples_TASK_TIME.jsonl``.
    """

    results: Mapping[str, Any]
    samples: Mapping[str, list[dict[str, Any]]]


def is_harness_run(run: Run) -> bool:
    """Whether ``orin-run lm-eval`` has made it."""
    return "lm_eval" in run.header.get("settings", {})


def samples_file(directory: Path, task: str) -> Path:
    """Where a run keeps the harness's samples of a task."""
    return directory / f"samples_{file_name(task)}.jsonl"


def tables_of_harness(run: Run) -> Tables:
    """What the harness's own command would have written; nothing where the run is not complete.

    Raises:
        UserError: a file is missing or damaged.
    """
    path = run.directory / RESULTS
    if not path.exists():
        return Tables({}, {})
    try:
        results = json.loads(read_bytes(path))  # the harness's JSON may have NaN
        FORM.check(results)
    except ValueError as error:
        raise UserError(f"{path} does not hold the harness's results: {error}", DAMAGED) from error
    settings = run.header.get("settings", {})
    further = settings.get("lm_eval", {})
    system = further.get("system_instruction") if isinstance(further, dict) else None
    chat = run.header.get("model", {}).get("chat_template_sha256") if settings.get("chat") else None
    known = {"system_instruction": system, "chat_template_sha": chat}
    return Tables({**results, **known}, {task: list(_rows(run.directory, task)) for task in results["configs"]})


def read_samples(directory: Path, task: str) -> Iterator[dict[str, Any]]:
    """The harness's samples of a task, as a run keeps them.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = samples_file(directory, task)
    if not path.exists():
        raise UserError(f"{path} is missing", DAMAGED)
    for number, line in enumerate(lines_of(path), start=1):
        try:
            row = json.loads(line)
            SAMPLE.check(row)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not a sample ({error})", DAMAGED) from error
        yield row


def _rows(directory: Path, task: str) -> Iterator[dict[str, Any]]:
    """A task's samples as ``EvaluationTracker.save_results_samples`` writes them."""
    for row in read_samples(directory, task):
        given = [{f"arg_{j}": each for j, each in enumerate(one)} for one in row["arguments"]]
        yield {
            **row,
            "arguments": {f"gen_args_{i}": one for i, one in enumerate(given)},
            "resps": _texts(row["resps"]),
            "filtered_resps": _texts(row["filtered_resps"]),
            "target": str(row["target"]),
        }


def _texts(value: Any) -> Any:
    """``lm_eval.utils.sanitize_list``."""
    return [_texts(each) for each in value] if isinstance(value, list) else str(value)
