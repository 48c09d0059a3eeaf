"""What an earlier part of a run has left, and whether this part may go on with it. Writes nothing."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.runs.part import PARTS, Part, TaskCost, read_parts
from eval.runs.prediction import Prediction, read_predictions
from eval.runs.run import PAGE, PREDICTIONS, REPORT, RUN, RUN_CONFIG, contradictions, read_header, read_report
from eval.runs.samples import SAMPLES, read_samples
from orin_runner.errors import UserError
from orin_runner.files import json_text, leads_nowhere, parse_json, read_bytes, whole_lines
from orin_runner.model.proof import Proof, Verdict

DEFAULTS: dict[str, Any] = {"draft": True, "chat": False, "too_long": "truncate", "questions": {}}
"""What a run was made with whose settings do not name one of these; of others it is None."""


SHA256 = re.compile(r"[0-9a-f]{64}")
NO_OPTIONS = ("tasks", "questions", "splits", "documents", "lm_eval")
"""Settings that no option of their name stands for."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The parts of a run before this one.

    Attributes:
        header: ``run.json``; None where the first part was killed before it wrote it, and has answered nothing.
        known: answers by (task, id); failed items are none, and are asked again.
        parts: what each of them has cost; empty where they left no record.
        size: bytes of ``predictions.jsonl``.
        whole: those of its whole lines; less than ``size`` where a kill has torn the last one.
        report: ``report.json``, empty where there is none.
    """

    header: dict[str, Any] | None = None
    known: dict[tuple[str, str], Prediction] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    size: int = 0
    whole: int = 0
    report: dict[str, Any] = field(default_factory=dict)

    def costs(self) -> dict[str, TaskCost]:
        """By task, what all parts together have cost."""
        found: dict[str, TaskCost] = {}
        for part in self.parts:
            for task, cost in part.items():
                found[task] = found.get(task, TaskCost()).together(cost)
        return found

    def is_complete(self, items: Mapping[str, int]) -> bool:
        """Whether nothing is left to ask or to report of a run with so many items of each task, skipped ones too."""
        sections = self.report.get("tasks", {})
        return (
            self.size == self.whole
            and Counter(task for task, _ in self.known) == Counter(items)
            and all(
                name in sections and sections[name]["items"] + sections[name].get("skipped", 0) == n
                for name, n in items.items()
            )
            and not any(sections[name].get("unanswered") for name in items)
            and not contradictions(self.report, self.known.values())
        )


def read_earlier(directory: Path, header: dict[str, Any]) -> Earlier:
    """Read what a run has left.

    Args:
        directory: its folder.
        header: of the run that would go on.

    Raises:
        UserError: there is no run to resume, one of another engine, model or other settings, one that is damaged, or
            one of a damaged model.
    """
    check_folder(directory, resume=True)
    if not (directory / RUN).exists():
        return Earlier()
    old = read_header(directory)
    _check_same(directory, old, parse_json(json_text(header)))
    path = directory / PREDICTIONS
    content = read_bytes(path) if path.exists() else b""
    whole = whole_lines(content)
    known = {key: p for key, p in read_predictions(path, whole.splitlines()).items() if p.failed is None}
    read_samples(directory / SAMPLES)
    return Earlier(old, known, read_parts(directory / PARTS), len(content), len(whole), read_report(directory))


def check_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with other ``settings`` than the run's, as far as they are known before its model is opened.

    Raises:
        UserError: one differs; it is named with both values. Or ``run.json`` is damaged.
    """
    if (directory / RUN).exists():
        old = read_header(directory).get("settings", {})
        _refuse(directory, old, _differing(old, parse_json(json_text(settings))))


def _check_same(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    models = [header.get("model", {}) for header in (old, new)]
    tokenizers = [model.get("tokenizer_sha256") for model in models]
    pairs = {
        "engine": [header.get("engine") for header in (old, new)],
        "model": [model.get("sha256") for model in models],
        "tokenizer": tokenizers if None not in tokenizers else [None, None],
    }
    differing = {name: (was, wanted) for name, (was, wanted) in pairs.items() if was != wanted}
    before = old.get("settings", {})
    now = {**{name: DEFAULTS.get(name) for name in before}, **new.get("settings", {})}
    _refuse(directory, before, {**_differing(before, now), **differing})
    verdict = Verdict.of_run(old)
    if verdict.proof is Proof.REFUTED:
        raise UserError(f"{directory} holds answers of a damaged model: {verdict.detail}", "begin another run")


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By option, both values of each setting in ``now`` that differs."""
    found = {}
    for name, wanted in now.items():
        # A run that is older than a setting was made with its default; the rows themselves are compared, item by item.
        was = before.get(name, wanted if name == "splits" else DEFAULTS.get(name))
        if was != wanted:
            found[name if name in NO_OPTIONS else f"--{name.replace('_', '-')}"] = (was, wanted)
    return found


def _refuse(directory: Path, old: Mapping[str, Any], differing: Mapping[str, tuple[Any, Any]]) -> None:
    lines = [f"{name} {_shown(was)}, not {_shown(wanted)}" for name, (was, wanted) in differing.items()]
    if lines:
        command = "lm-eval" if "lm_eval" in old else "eval"
        raise UserError(
            f"{directory} holds a run with {' and with '.join(lines)}",
            f"orin-run {command} --resume --out {shlex.quote(str(directory))} takes all of it from {RUN}",
        )


def _shown(value: Any) -> str:
    """A setting as a line shows it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_shown(each)}" for name, each in value.items()) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    text = "default" if value is None else str(value)
    return text[:12] if SHA256.fullmatch(text) else text


def check_folder(directory: Path, *, resume: bool = False) -> None:
    """Refuse a folder that a ``RunWriter`` refuses; for commands to ask before they load anything.

    A run that was killed between ``predictions.jsonl``, which is empty then, and ``run.json`` can be begun anew as well
    as resumed.

    Raises:
        UserError: it holds a run, or none to resume, or answers without the ``run.json`` that says of which model.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file, not a folder", "name another folder with --out")
    for path in (directory / name for name in (RUN, PREDICTIONS, REPORT, PARTS, SAMPLES, PAGE, RUN_CONFIG)):
        if leads_nowhere(path):  # what is written to it would be refused when all is computed
            reason = f"{path} is a link that leads back to itself, over too many others, or into no folder"
            raise UserError(reason, "name another folder with --out, or remove it")
    for path in (directory / name for name in (PAGE, RUN_CONFIG)):  # written at the end, and never read
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no regular file", "name another folder with --out, or remove it")
    run, predictions = directory / RUN, directory / PREDICTIONS
    if not run.exists() and predictions.exists() and not (predictions.is_file() and not predictions.stat().st_size):
        reason = f"{predictions} has answers, but {RUN}, which says of which model they are, is missing"
        raise UserError(reason, "name another folder with --out, or remove it")
    if resume and not run.exists() and not predictions.exists():
        raise UserError(f"{directory} does not hold a run to resume", "leave --resume out to begin one")
    if not resume and any((directory / name).exists() for name in (RUN, REPORT, PARTS, SAMPLES)):
        raise UserError(f"{directory} already holds a run", "name another folder with --out, or remove it")
