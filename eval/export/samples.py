"""The lines of ``samples_TASK_TIME.jsonl`` (``SampleResult`` of lm_eval 0.4.13): one for each item and filter."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.export.names import Leaf
from eval.runs.items import Asked
from eval.runs.prediction import Prediction
from eval.tasks.registry import TASKS

UNKNOWN = "None"
"""As the harness writes ``None`` among responses: whether a choice is the greedy continuation is not in a run."""
INDEX = re.compile(r"[0-9]{1,9}")


def samples(leaf: Leaf, items: Mapping[tuple[str, str], Asked]) -> Iterator[dict[str, Any]]:
    """The lines of ``samples_TASK_TIME.jsonl``: one for each item and filter, all with the same keys."""
    ordered = sorted(leaf.predictions, key=lambda prediction: (len(prediction.id), prediction.id))
    ends = [prediction.id.removeprefix(f"{prediction.group}/") for prediction in ordered]
    indexed = leaf.task in TASKS and all(map(INDEX.fullmatch, ends))
    asked = all((leaf.task, prediction.id) in items for prediction in ordered)
    any_failed = any(prediction.failed is not None for prediction in ordered)
    for kept, names in leaf.filters.items():
        for i, prediction in enumerate(ordered):
            item = items[leaf.task, prediction.id] if asked else None
            doc = _doc(prediction, item)
            answered = _responses(prediction)
            # Of further filters only the scores are known, not the texts that they take for the answer.
            first = next(iter(prediction.scores)) in names.values()
            yield {
                "doc_id": int(ends[i]) if indexed else i,
                "doc": doc,
                "target": prediction.target,
                **({} if item is None else {"arguments": _arguments(item)}),
                "resps": [[answer] for answer in answered],
                "filtered_resps": _filtered(prediction) if first else [],
                "filter": kept,
                "metrics": list(names),
                "doc_hash": hashed(json.dumps(doc, indent=2, ensure_ascii=False)),
                **({} if item is None else {"prompt_hash": hashed(_prompts(item)[0])}),
                "target_hash": hashed(prediction.target),
                **({"failed": prediction.failed} if any_failed else {}),
                **{metric: prediction.scores.get(ours, 0.0) for metric, ours in names.items()},
            }


def _doc(prediction: Prediction, item: Asked | None) -> dict[str, Any]:
    """In place of the row of the data set, which a run does not hold, what it says of the question."""
    said = {} if item is None else {name: item[name] for name in ("choices", "labels", "right")}
    return {"id": prediction.id, "group": prediction.group, **{k: v for k, v in said.items() if v is not None}}


def _responses(prediction: Prediction) -> list[Any]:
    """What the model answered to each request; nothing where an item failed."""
    if prediction.logprobs is not None:
        return [[str(logprob), UNKNOWN] for logprob in prediction.logprobs]
    return [] if prediction.text is None else [prediction.text]


def _filtered(prediction: Prediction) -> list[Any]:
    return [prediction.prediction] if prediction.text is not None else _responses(prediction)


def _prompts(item: Asked) -> list[str]:
    """The context of each request."""
    if item["prompts"]:
        return item["prompts"]
    return [item["prompt"] or ""] * (1 if item["choices"] is None else len(item["choices"]))


def _arguments(item: Asked) -> dict[str, dict[str, Any]]:
    """Context and continuation of each request, or context and how its text ends."""
    ends = {"until": item.get("until"), "max_gen_toks": item.get("max_new_tokens"), "do_sample": False}
    seconds: Sequence[Any] = [ends] if item["choices"] is None else item["choices"]
    pairs = zip(_prompts(item), seconds, strict=True)
    return {f"gen_args_{i}": {"arg_0": context, "arg_1": second} for i, (context, second) in enumerate(pairs)}


def own_hashes(row: Mapping[str, Any]) -> str:
    """What a line with a prompt adds to the harness's ``task_hashes``."""
    return "".join(row[f"{name}_hash"] for name in ("doc", "prompt", "target"))


def hashed(text: str) -> str:
    """``lm_eval.utils.hash_string``."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
