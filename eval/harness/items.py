"""``items.jsonl.gz`` of a run of lm-evaluation-harness: of the samples that it keeps, and of its predictions."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.export.harness_run import read_samples
from eval.harness.model import stops_and_bound
from eval.runs.items import write_lines
from eval.runs.prediction import Prediction, read_predictions
from eval.runs.run import PREDICTIONS
from orin_runner.files import read_bytes


def write_harness_items(directory: Path) -> None:
    """Write ``items.jsonl.gz`` of a run that is complete: a line for each line of ``predictions.jsonl``.

    Raises:
        UserError: ``predictions.jsonl`` or a task's samples are damaged.
        OSError: a file cannot be read or written; it is named.
    """
    path = directory / PREDICTIONS
    write_lines(directory, _items(directory, read_predictions(path, io.BytesIO(read_bytes(path)))))


def _items(directory: Path, known: Mapping[tuple[str, str], Prediction]) -> Iterator[tuple[Prediction, dict[str, Any]]]:
    for task in dict.fromkeys(task for task, _ in known):
        # A document has a sample for each filter, with the same arguments.
        samples = {str(sample["doc_id"]): sample for sample in read_samples(directory, task)}
        for doc_id, sample in samples.items():
            prediction = known.get((task, doc_id))
            if prediction is not None:
                yield prediction, _asked(prediction, sample)


def _asked(prediction: Prediction, sample: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of an item; a choice is called as its prediction calls it."""
    arguments, target = sample["arguments"], sample["target"]
    contexts, behind = [given[0] for given in arguments], [given[1] for given in arguments if len(given) > 1]
    choices = until = bound = None
    if isinstance(behind[0] if behind else None, dict):
        until, bound = stops_and_bound(behind[0])
    elif behind:  # with its mutual information in a metric each choice is asked twice
        choices = behind[: len(prediction.logprobs or ())]
        contexts = contexts[: len(choices)]
    single = len(set(contexts)) == 1
    labels = [prediction.target] if choices is not None and len(choices) == 1 else range(len(choices or ()))
    return {
        "task": prediction.task,
        "id": prediction.id,
        "group": prediction.group,
        "prompt": contexts[0] if single else None,
        "prompts": None if single else contexts,
        "choices": choices,
        "labels": None if choices is None else list(map(str, labels)),
        "target": prediction.target,
        "right": list(map(str, target)) if isinstance(target, list) and target else [prediction.target],
        "until": until,
        "max_new_tokens": bound,
        "n_tokens": prediction.n_tokens,
        "choice_tokens": None,
        "truncated": prediction.truncated,
    }
