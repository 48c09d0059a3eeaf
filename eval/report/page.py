"""``report.html``: what a person wants to know of one run, or of several side by side.

``view`` works out every number as one JSON object; ``page.html.j2`` and the templates that it includes only place them.
The page is one file without font or address. Its one script is the browser of items, whose data are packed: no text of
theirs is markup. All else that comes from data is escaped by the template engine, and what a reader could not see of it
is spelled out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from eval.near_ties import NearTies
from eval.report.charts import charts
from eval.report.facts import asked_differently, describe, differing
from eval.report.figures import calibration, margins, scale, wilson
from eval.report.item_data import item_data, packed
from eval.report.meanings import IN_WORDS, MEANINGS
from eval.report.section import CHALLENGE_2023, CHALLENGE_2024, task_report
from eval.report.visible import visible
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from orin_runner.files import write_whole

SHOWN_ITEMS, SHOWN_FAILURES = 10, 50
SHOWN_CHARACTERS = 300
"""Of a text in a table of items; ``predictions.jsonl`` has all of it."""
ENERGY = {
    "joules_per_item": "J an item",
    "joules_per_1000_tokens": "J per 1,000 tokens",
    "items_per_wh": "items per Wh",
}
"""Of ``energy`` of a run's ``measured``, what is shown and how it is called."""
COLOURS = 6
"""Of runs, or of the GPUs of one; a seventh has the first again."""
FAINTEST = 0.2
"""Of what is drawn: with one item the 95 % interval is four fifths of the axis."""
STAGES = ("start", "load", "data", "tokenize", "plan", "prefill", "check", "decode", "score")


def view(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the page shows but the items, as JSON.

    ``runs``; ``differing``, what is not the same in all of them; ``asked_differently``, a line for each run that was
    asked otherwise than the first; and in ``tasks`` an entry for each run, None where it has none.
    """
    names = _names(runs)
    described = [describe(run, name) for run, name in zip(runs, names, strict=True)]
    tasks: dict[str, list[Any]] = {}
    for number, run in enumerate(runs):
        for task, entry in _tasks(run).items():
            tasks.setdefault(task, [None] * len(runs))[number] = {"run": number, **entry}
    return {
        "runs": described,
        "differing": differing(runs),
        "asked_differently": asked_differently(runs, names),
        "tasks": tasks,
    }


def render(shown: dict[str, Any], items: str | None = None) -> str:
    """The page of a ``view``.

    Args:
        items: the browser's ``packed`` data; None leaves the browser out.
    """
    environment = jinja2.Environment(
        autoescape=True,
        finalize=visible,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = lambda value, digits=2: f"{100 * value:.{digits}f}\N{NARROW NO-BREAK SPACE}%"
    environment.filters["number"] = lambda value, digits=0: f"{value:,.{digits}f}"
    environment.filters["digits"] = digits
    environment.filters["short"] = shorten
    environment.filters["weight"] = weight
    page = environment.get_template("page.html.j2").render(
        **shown,
        items=items,
        several=len(shown["runs"]) > 1,
        colours=COLOURS,
        scales={task: scale(entries) for task, entries in shown["tasks"].items()},
        charts=charts([run["over_time"] for run in shown["runs"]]),
        stages=STAGES,
        meanings=MEANINGS,
        in_words=IN_WORDS,
        energy_labels=ENERGY,
        failures_shown=SHOWN_FAILURES,
    )
    return page.lstrip()


def write_page(runs: Sequence[Run], path: Path) -> dict[str, Any]:
    """Write the page, and return its ``view``.

    Raises:
        UserError: an ``items.jsonl.gz`` is damaged.
        OSError: a file cannot be read or written.
    """
    shown = view(runs)
    items = packed(item_data(runs, _names(runs))) if shown["tasks"] else None
    write_whole(path, render(shown, items))
    return shown


def digits(value: float) -> str:
    """A value above 0 with three digits; all of those in front of the point, at most six behind it."""
    return f"{value:,.{min(6, max(0, 2 - math.floor(math.log10(value))))}f}"


def shorten(text: str) -> str:
    """``text`` as a table shows it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def weight(interval: tuple[float, float]) -> str:
    """How opaque the mark of an accuracy is: the fainter, the wider its 95 % interval."""
    return f"{max(FAINTEST, 1 - (interval[1] - interval[0])):.2f}"


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names, with as much of the path in front as tells the runs apart."""
    paths = [run.directory.resolve() for run in runs]
    for depth in range(1, 4):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _tasks(run: Run) -> dict[str, dict[str, Any]]:
    """Per task of a run what its page shows."""
    by_task: dict[str, list[Prediction]] = {}
    for prediction in run.predictions.values():
        by_task.setdefault(prediction.task, []).append(prediction)
    return {task: _entry(found, run.report.get("tasks", {}).get(task)) for task, found in by_task.items()}


def _entry(predictions: Sequence[Prediction], section: dict[str, Any] | None) -> dict[str, Any]:
    """One task of one run. Tokens and clocks are absent if the run was killed before it could report them."""
    asked = [prediction for prediction in predictions if prediction.skipped is None]
    if section is None or section["items"] != len(asked):
        section = task_report(predictions, {"computed": 0}, {})
        kept = ("accuracy", "stderr", "items", "failed", "skipped", "truncated", "metrics", "groups")
        section = {key: section[key] for key in kept}
    clocks = section.get("clocks", {})
    groups = {
        name: {**values, "interval": wilson(values["accuracy"], int(values["items"]))}
        for name, values in section["groups"].items()
    }
    truncated = section.get("truncated")
    if truncated is not None:
        truncated = {**truncated, "interval": wilson(truncated["accuracy"], int(truncated["items"]))}
    further = dict(list(section.get("metrics", {}).items())[1:])
    certain = sorted((p for p in asked if p.margin is not None), key=lambda p: p.margin or 0.0)
    failures = [{"id": p.id, "reason": p.failed} for p in predictions if p.failed is not None]
    return {
        **{key: section[key] for key in ("accuracy", "stderr", "items", "failed")},
        "split": section.get("split"),
        "rows": section.get("rows"),
        "first": section.get("first"),
        "interval": wilson(section["accuracy"], section["items"]),
        "groups": groups if len(groups) > 1 else {},
        "truncated": truncated,
        "skipped": len(predictions) - len(asked),
        "metric": next(iter(section.get("metrics", {})), None),
        "metrics": further,
        "clocks": {"2024": clocks.get(CHALLENGE_2024), "2023": clocks.get(CHALLENGE_2023)},
        "stages": {name: clocks[name] for name in STAGES if clocks.get(name)},
        "items_per_s": section.get("items_per_s") or None,
        "computed_tokens_per_s": section.get("computed_tokens_per_s") or None,
        "share_of_prompt_rate": section.get("share_of_prompt_rate"),
        "tokens": section.get("tokens"),
        "greedy": section.get("greedy"),
        "noise": section.get("noise") or None,
        "resumed": section.get("resumed", 0),
        "without_record": section.get("without_record", 0),
        "unanswered": section.get("unanswered", 0),
        "calibration": calibration(predictions),
        "margins": margins(predictions, NearTies.of(section)),
        "longest": [_item(p) for p in sorted(asked, key=lambda p: -p.n_tokens)[:SHOWN_ITEMS]],
        "least_certain": [_item(p) for p in certain[:SHOWN_ITEMS]],
        "failures": failures,
    }


def _item(prediction: Prediction) -> dict[str, Any]:
    names = ("id", "group", "prediction", "target", "correct", "margin", "n_tokens")
    return {name: getattr(prediction, name) for name in names}
