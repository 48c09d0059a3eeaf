"""Writing a run's files in lm-evaluation-harness's form, named as its ``EvaluationTracker`` names them (0.4.13)."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from eval.export.harness_run import Tables, is_harness_run, tables_of_harness
from eval.export.names import file_name, leaves
from eval.export.results import results
from eval.export.samples import hashed, own_hashes, samples
from eval.runs.items import read_items
from eval.runs.prediction import DAMAGED
from eval.runs.run import RUN, Run
from orin_runner.errors import UserError
from orin_runner.files import make_folder, write_whole
from orin_runner.model.proof import Proof, Verdict


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        results: ``results_TIME.json``.
        samples: the ``samples_TASK_TIME.jsonl`` beside it.
        without_prompts: the harness's tasks whose prompts are not known, as the run has no ``items.jsonl.gz`` of them.
    """

    results: Path
    samples: list[Path]
    without_prompts: list[str]


def export(run: Run, out: Path) -> Export:
    """Write ``run`` as the harness writes it, into a folder of the model's name below ``out``.

    The files go by the time at which the run began: a run that is exported twice replaces its own files only.

    Raises:
        UserError: the run has no answer yet, is of a damaged model, or is damaged itself.
        OSError: a file cannot be written; it is named.
    """
    time = _time(run)
    verdict = Verdict.of_run(run.header)
    if verdict.proof is Proof.REFUTED:
        reason = f"{run.directory} holds answers of a damaged model: {verdict.detail}"
        raise UserError(reason, "convert it again, and run it anew")
    found = tables_of_harness(run) if is_harness_run(run) else _tables(run)
    if not found.samples:
        again = f"--resume --out {shlex.quote(str(run.directory))}"
        hint = f"orin-run {'lm-eval' if is_harness_run(run) else 'eval'} {again} goes on with it"
        raise UserError(f"{run.directory} has no results yet", hint)
    known = {name: rows for name, rows in found.samples.items() if "prompt_hash" in rows[0]}
    model = run.header.get("model", {}).get("name", "")
    folder = file_name(model) if model.strip(".") else "model"
    content = {
        **found.results,
        "date": time.timestamp(),
        "task_hashes": {name: hashed("".join(map(own_hashes, rows))) for name, rows in known.items()},
        "model_source": run.header.get("engine", ""),
        "model_name": model,
        "model_name_sanitized": folder,
    }
    make_folder(out / folder)
    date = time.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    written = Export(
        out / folder / f"results_{date}.json",
        [out / folder / f"samples_{file_name(name)}_{date}.jsonl" for name in found.samples],
        [name for name in found.samples if name not in known],
    )
    for path, rows in zip(written.samples, found.samples.values(), strict=True):
        write_whole(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    write_whole(written.results, json.dumps(content, indent=2, ensure_ascii=False))
    return written


def _tables(run: Run) -> Tables:
    """A run of our own tasks."""
    tasks, items = leaves(run), read_items(run.directory)
    rows = {leaf.name: list(samples(leaf, items)) for found in tasks.values() for leaf in found}
    return Tables(results(run, tasks), rows)


def _time(run: Run) -> datetime:
    """When the run began."""
    try:
        return datetime.fromisoformat(run.header.get("time", ""))
    except ValueError as error:
        raise UserError(f"{run.directory / RUN}: 'time' is no time", DAMAGED) from error
