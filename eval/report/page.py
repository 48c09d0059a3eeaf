"""``report.html``: what a person wants to know of one run, or of several side by side.

``view`` works out every number as one JSON object; ``page.html.j2`` only places them. The page is one file: no
script, no font, no address. All that comes from data is escaped by the template engine, and
what a reader could not see of it is spelled out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from eval.intervals import wilson_interval
from eval.near_ties import NearTies
from eval.report.charts import charts, lines
from eval.report.meanings import MEANINGS
from eval.report.section import CHALLENGE_2023, CHALLENGE_2024, task_report
from eval.runs.measured import summary
from eval.runs.prediction import Prediction
from eval.runs.run import Run, lossy_line
from orin_runner.console import printable
from orin_runner.files import write_whole
from orin_runner.model.proof import Proof, Verdict

PAGE = "report.html"
SHOWN_ITEMS, SHOWN_FAILURES = 10, 50
SHOWN_CHARACTERS = 300
"""Of a text in a table of items; ``predictions.jsonl`` has all of it."""
KEPT = "\t\n\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""A page shows lines as lines, and needs the joiners to spell Persian, Hindi and many emoji."""
CONFIDENCE_BINS, MARGIN_BINS = 10, 24
ENERGY = {
    "joules_per_item": "J an item",
    "joules_per_1000_tokens": "J per 1,000 tokens",
    "items_per_wh": "items per Wh",
}
"""Of ``energy`` of a run's ``measured``, what is shown and how it is called."""
STAGES = ("start", "load", "data", "tokenize", "plan", "prefill", "check", "decode", "score")


def wilson(mean: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; all there is where nothing was asked.

    For scores between 0 and 1 it is wider than need be: no such score varies more than right and wrong do.
    """
    return wilson_interval(mean * n, n) if n else (0.0, 1.0)


def calibration(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """How often the favoured choice is right, by the probability that the choices' log-probabilities give it.

    The confidence is the largest softmax over the choices' summed log-probabilities. Where a task compares something
    else first, right means right by the sums (``acc``). Probability masses over several true choices have no single
    favourite and are left out.

    Returns:
        ``bins`` of equal width (``items``, and their mean ``confidence`` and ``accuracy``) without empty ones; ``ece``,
        the expected calibration error (Naeini et al. 2015): the mean of |accuracy - confidence|, weighted by items.
        None without an item to count.
    """
    bins: list[list[tuple[float, float]]] = [[] for _ in range(CONFIDENCE_BINS)]
    for prediction in predictions:
        logprobs = prediction.logprobs
        if logprobs is None or len(logprobs) < 2 or "mc2" in prediction.scores:
            continue
        best = max(logprobs)
        if not math.isfinite(best) or any(map(math.isnan, logprobs)):
            continue
        confidence = 1.0 / sum(math.exp(value - best) for value in logprobs)
        right = prediction.scores.get("acc", float(prediction.correct))
        bins[min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)].append((confidence, right))
    items = sum(map(len, bins))
    if not items:
        return None
    found = []
    for number, members in enumerate(bins):
        if members:
            confidence, right = (sum(column) / len(members) for column in zip(*members, strict=True))
            low = number / CONFIDENCE_BINS
            found.append({"from": low, "items": len(members), "confidence": confidence, "accuracy": right})
    ece = sum(row["items"] / items * abs(row["accuracy"] - row["confidence"]) for row in found)
    return {"items": items, "ece": ece, "bins": found}


def margins(predictions: Sequence[Prediction], near_ties: NearTies) -> dict[str, Any] | None:
    """Items right and wrong by margin, in bins of equal width from 0; None without a margin.

    Args:
        near_ties: which margins rounding may turn. Where that is the same for all items it is ``near_tie``.
    """
    found = [(p.margin, p.correct) for p in predictions if p.margin is not None]
    if not found:
        return None
    top = max(margin for margin, _ in found) or 1.0
    right, wrong = [0] * MARGIN_BINS, [0] * MARGIN_BINS
    for margin, correct in found:
        at = min(max(int(margin / top * MARGIN_BINS), 0), MARGIN_BINS - 1)
        (right if correct else wrong)[at] += 1
    bounds = {bound for p in predictions if (bound := near_ties.bound(p)) is not None}
    below = near_ties.count(predictions)
    near_tie = bounds.pop() if len(bounds) == 1 else None
    return {"top": top, "right": right, "wrong": wrong, "near_tie": near_tie, "below": below}


def view(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the page shows, as JSON: ``runs``, and per task an entry for each of them, None where it has none."""
    names = _names(runs)
    described = [_describe(run, name) for run, name in zip(runs, names, strict=True)]
    tasks: dict[str, list[Any]] = {}
    for number, run in enumerate(runs):
        for task, entry in _tasks(run).items():
            tasks.setdefault(task, [None] * len(runs))[number] = {"run": number, **entry}
    return {"runs": described, "tasks": tasks}


def render(shown: dict[str, Any]) -> str:
    """The page of a ``view``."""
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
    page = environment.get_template("page.html.j2").render(
        **shown,
        scales={task: _scale(entries) for task, entries in shown["tasks"].items()},
        charts=charts([run["over_time"] for run in shown["runs"]]),
        stages=STAGES,
        meanings=MEANINGS,
        energy_labels=ENERGY,
        failures_shown=SHOWN_FAILURES,
    )
    return page.lstrip()


def write_page(runs: Sequence[Run], path: Path) -> dict[str, Any]:
    """Write the page and return what it shows."""
    shown = view(runs)
    write_whole(path, render(shown))
    return shown


def visible(value: Any) -> Any:
    """A text as the page holds it: what cannot be seen is spelled out (``printable``), but for ``KEPT``.

    Markup is the template's own.
    """
    return printable(value, KEPT) if type(value) is str else value


def digits(value: float) -> str:
    """A value above 0 with three digits; all of those in front of the point, at most six behind it."""
    return f"{value:,.{min(6, max(0, 2 - math.floor(math.log10(value))))}f}"


def shorten(text: str) -> str:
    """``text`` as a table shows it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names, with as much of the path in front as tells the runs apart."""
    paths = [run.directory.resolve() for run in runs]
    for depth in range(1, 4):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _describe(run: Run, name: str) -> dict[str, Any]:
    """What is true of a run as a whole."""
    header = dict(run.header)
    model, memory = header.pop("model", {}), header.pop("memory", None)
    conversion = {label: model[key] for label, key in CONVERSION.items() if model.get(key) is not None}
    if "tensors" in conversion:
        conversion["tensors"] = ", ".join(f"{count} {kind}" for kind, count in conversion["tensors"].items())
    if "checkpoint_sha256" in model and model.get("altered_values") is not None:
        # A GGUF of this project's converter is known by its manifest's digest.
        conversion = {"manifest digest" if k == "file digest" else k: v for k, v in conversion.items()}
    return {
        "name": name,
        "directory": str(run.directory),
        "engine": header.get("engine", ""),
        "model": model.get("name", ""),
        "time": header.get("time", ""),
        "ended": bool(run.report),
        "warnings": [*_damage(run), *filter(None, [lossy_line(run.header)]), *run.report.get("warnings", [])],
        "prompt_rate": run.report.get("prompt_rate"),
        "restarts": run.report.get("restarts", 0),
        "conversion": conversion,
        "memory": None if memory is None else _memory(memory),
        "measured": _measured(run),
        "over_time": lines(run.samples, unified=_unified(run)),
        "environment": _flat(header),
    }


def _damage(run: Run) -> list[str]:
    verdict = Verdict.of_run(run.header)
    said = f"the model is damaged, and its answers count for nothing: {verdict.detail}"
    return [said] if verdict.proof is Proof.REFUTED else []


def _measured(run: Run) -> dict[str, Any] | None:
    """What a run's samples come to; a killed run has no report, but samples. Older reports know less."""
    measured = run.report.get("measured") or summary(run.samples, unified=_unified(run))
    return measured and {"energy": {}, "gpus": [], **measured}


def _unified(run: Run) -> bool:
    device = run.header.get("memory", {}).get("device", {})
    return bool(device.get("cuda") and device.get("unified"))


CONVERSION = {
    "file": "name",
    "layout": "architecture",
    "tensors": "types",
    "number format": "dtype",
    "values altered": "altered_values",
    "tokenizer": "tokenizer",
    "tokenizer digest": "tokenizer_sha256",
    "proof": "proof",
    "proof, why no more": "proof_detail",
    "file digest": "sha256",
    "checkpoint digest": "checkpoint_sha256",
    "sliding window": "window",
    "window honoured": "window_honoured",
}


def _memory(memory: dict[str, Any]) -> dict[str, Any]:
    """The plan's terms in MiB."""
    mib = 1 << 20
    device = memory.get("device", {})
    return {
        "terms": {name: size / mib for name, size in memory.get("terms", {}).items()},
        "assumed": memory.get("assumed", []),
        "total": memory.get("total", 0) / mib,
        "available": device.get("available", 0) / mib,
        "device": device.get("name", ""),
        "settings": memory.get("settings", {}),
    }


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested objects as one table of ``outer inner: value``; what is not set is left out."""
    if isinstance(value, dict):
        rows: dict[str, Any] = {}
        for key, inner in value.items():
            rows |= _flat(inner, f"{name} {key}".strip().replace("_", " "))
        return rows
    if isinstance(value, list):
        parts = (" ".join(map(str, item.values())) if isinstance(item, dict) else str(item) for item in value)
        return {name: "; ".join(parts)} if value else {}
    return {} if value is None else {name: value}


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
        "interval": wilson(section["accuracy"], section["items"]),
        "groups": groups if len(groups) > 1 else {},
        "truncated": truncated,
        "skipped": len(predictions) - len(asked),
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


def _scale(entries: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """The axis of a task's intervals: whole tenths around all of them, marked at its ends and in the middle."""
    parts = [part for entry in entries if entry for part in (entry, entry["truncated"], *entry["groups"].values())]
    shown = [part["interval"] for part in parts if part]
    low = math.floor(10 * min(low for low, _ in shown) + 1e-9)
    high = max(math.ceil(10 * max(high for _, high in shown) - 1e-9), low + 1)
    if (high - low) % 2:
        low, high = (low - 1, high) if low else (low, high + 1)
    return {"low": low / 10, "high": high / 10, "marks": [low / 10, (low + high) / 20, high / 10]}
