"""The items of one run, or of several side by side, as the page's browser of items reads them.

Columns instead of objects, and once what many prompts begin with: a page may have 14,042 items to unpack and to search.
Knows no markup: ``script.js.j2`` places what is here.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from eval.near_ties import NearTies
from eval.report.visible import all_visible
from eval.runs.items import Asked, read_items
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from orin_runner.files import json_text

Key = tuple[str, str]
"""Task and id of an item."""
Prompt = tuple[str | None, str | list[str] | None]
"""What others begin with as well, and what follows; a list where each choice has its own."""
UNKNOWN: Prompt = (None, None)
PACKING = 6
"""gzip's level: the highest takes three times as long for a hundredth less."""
DIGITS = 5
"""Behind the point of a log-probability, a margin, a score; ``predictions.jsonl`` has all of them."""


def item_data(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """All items of the runs in columns, those of the first run first.

    The order is that of the questions where ``items.jsonl.gz`` tells it, else that of the ids.

    Returns:
        ``tasks``, ``groups``, ``beginnings``: texts that columns name by their places.
        ``items``, with columns for what is true of an item in all runs: ``task``, ``group``, ``id``, ``target``,
        ``n_tokens``, ``right`` (all that is right, None where that is the target alone), ``choices`` and ``labels``
        (None of a text, and where nothing was logged), ``beginning`` (None where the prompt shares none) and
        ``prompt`` (what follows it, a list where each choice has its own, None where nothing was logged).
        ``runs``, for each its ``name``, by task the names of its ``metrics``, and ``items`` with columns: ``answer``
        (None where the run has not the item), ``correct``, ``near_tie``, ``margin``, ``logprobs``, ``text``,
        ``scores`` in the order of ``metrics``, ``truncated``, ``failed``, ``skipped``, and ``beginning`` and
        ``prompt`` where they are not those of all runs.

    Raises:
        UserError: an ``items.jsonl.gz`` is damaged.
        OSError: one cannot be read.
    """
    logged = [read_items(run.directory) for run in runs]
    keys = list(dict.fromkeys(key for run, asked in zip(runs, logged, strict=True) for key in _in_order(run, asked)))
    prompts = [_prompts(run, asked) for run, asked in zip(runs, logged, strict=True)]
    known = {key: _first(prompts, key) or UNKNOWN for key in keys}
    questions = [_question(_first([r.predictions for r in runs], key), _first(logged, key), known[key]) for key in keys]
    places: dict[str, dict[str | None, int]] = {"task": {}, "group": {}, "beginning": {}}
    columns = _columns(questions, places)
    metrics = [_metrics(run) for run in runs]
    answers = [
        [{**answer, **_prompt(_other(own, key, known[key]))} for key, answer in _answers(run, keys, scored)]
        for run, own, scored in zip(runs, prompts, metrics, strict=True)
    ]
    return {
        "items": columns,
        "runs": [
            {"name": name, "metrics": scored, "items": _columns(rows, places)}
            for name, scored, rows in zip(names, metrics, answers, strict=True)
        ],
        **{f"{name}s": list(found) for name, found in places.items()},
    }


def packed(data: Mapping[str, Any]) -> str:
    """``data`` as JSON, gzipped, in base64; what a reader could not see of its texts is spelled out."""
    return base64.b64encode(gzip.compress(json_text(all_visible(data)).encode(), PACKING, mtime=0)).decode()


def _first(tables: Iterable[Mapping[Key, Any]], key: Key) -> Any:
    return next((table[key] for table in tables if key in table), None)


def _in_order(run: Run, asked: Mapping[Key, Asked]) -> list[Key]:
    """The items of a run: as they were asked, else by task and by id, item 10 behind item 9."""
    tasks = list(dict.fromkeys(task for task, _ in run.predictions))
    others = sorted(run.predictions.keys() - asked.keys(), key=lambda key: (tasks.index(key[0]), _natural(key[1])))
    return [key for key in asked if key in run.predictions] + others


def _natural(name: str) -> list[tuple[int, str]]:
    return [(len(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _prompts(run: Run, asked: Mapping[Key, Asked]) -> dict[Key, Prompt]:
    """The prompts that a run has logged, each without the lines that all of its group begin with."""
    groups: dict[Key, list[Asked]] = {}
    for key, item in asked.items():
        if key in run.predictions:
            groups.setdefault((key[0], run.predictions[key].group), []).append(item)
    found: dict[Key, Prompt] = {}
    for members in groups.values():
        texts = [item["prompt"] for item in members if item["prompt"] is not None]
        beginning = _common_lines(texts) if len(texts) > 1 else ""
        for item in members:
            text = item["prompt"]
            whole = item["prompts"] if text is None else text[len(beginning) :]
            found[item["task"], item["id"]] = (beginning or None if text is not None else None, whole)
    return found


def _common_lines(texts: Sequence[str]) -> str:
    """The lines that all texts begin with."""
    low, high = min(texts), max(texts)  # what these two share all between them share
    common = next((at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))
    return low[: low.rfind("\n", 0, common) + 1]


def _question(item: Prediction, asked: Asked | None, prompt: Prompt) -> dict[str, Any]:
    """What is true of an item in all runs."""
    right = None if asked is None or asked["right"] == [item.target] else asked["right"]
    return {
        **{name: getattr(item, name) for name in ("task", "group", "id", "target", "n_tokens")},
        "right": right,
        "choices": None if asked is None else asked["choices"],
        "labels": None if asked is None else asked["labels"],
        **_prompt(prompt),
    }


def _answers(
    run: Run, keys: Sequence[Key], metrics: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """What became of each item in one run."""
    near_ties = {task: NearTies.of(run.report.get("tasks", {}).get(task, {})) for task, _ in keys}
    names = ("correct", "text", "truncated", "failed", "skipped")
    for key in keys:
        item = run.predictions.get(key)
        scores = None if item is None else [item.scores.get(name) for name in metrics.get(key[0], ())]
        yield (
            key,
            {
                "answer": None if item is None else item.prediction,
                **{name: getattr(item, name, None) for name in names},
                "near_tie": item is not None and near_ties[key[0]].holds(item),
                "margin": None if item is None else _rounded(item.margin),
                "logprobs": None if item is None or item.logprobs is None else list(map(_rounded, item.logprobs)),
                "scores": None if scores is None else list(map(_rounded, scores)),
            },
        )


def _other(own: Mapping[Key, Prompt], key: Key, known: Prompt) -> Prompt:
    """A run's own prompt, where it is not the known one."""
    prompt = own.get(key, UNKNOWN)
    return UNKNOWN if prompt == known else prompt


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"beginning": prompt[0], "prompt": prompt[1]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _metrics(run: Run) -> dict[str, list[str]]:
    """By task, the names of its metrics."""
    return {task: list(item.scores) for (task, _), item in run.predictions.items() if item.scores}


def _columns(rows: Sequence[Mapping[str, Any]], places: Mapping[str, dict[Any, int]]) -> dict[str, list[Any]]:
    """``rows`` as columns, those in ``places`` as numbers; a text that is not there yet is added to them."""
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    for name in columns.keys() & places.keys():
        column = columns[name]
        columns[name] = [None if text is None else places[name].setdefault(text, len(places[name])) for text in column]
    return columns
