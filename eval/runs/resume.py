"""What an earlier part of a run has left, and whether this part may go on with it. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.runs.part import PARTS, Part, TaskCost, read_parts
from eval.runs.prediction import Prediction, read_predictions
from eval.runs.run import PREDICTIONS, REPORT, RUN, read_header, read_report
from eval.runs.samples import SAMPLES, read_samples
from orin_runner.errors import UserError
from orin_runner.files import json_text, parse_json, read_bytes, whole_lines
from orin_runner.model.proof import Proof, Verdict

DEFAULTS: dict[str, Any] = {"draft": True, "chat": False, "too_long": "truncate"}
"""What a run was made with whose settings do not name one of these; of others it is None."""


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
            and len(self.known) == sum(items.values())
            and all(
                name in sections and sections[name]["items"] + sections[name].get("skipped", 0) == n
                for name, n in items.items()
            )
            and not any(sections[name].get("unanswered") for name in items)
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


def _check_same(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    differing = ["engine"] if old.get("engine") != new.get("engine") else []
    before, now = old.get("settings", {}), new.get("settings", {})
    for name in dict.fromkeys([*before, *now]):
        # A run that is older than a setting was made with its default; the rows themselves are compared, item by item.
        default = now.get("splits") if name == "splits" else DEFAULTS.get(name)
        if before.get(name, default) != now.get(name, default):
            differing.append(f"settings ({name})")
    if old.get("model", {}).get("sha256") != new.get("model", {}).get("sha256"):
        differing.append("model")
    digests = [header.get("model", {}).get("tokenizer_sha256") for header in (old, new)]
    if None not in digests and digests[0] != digests[1]:
        differing.append("tokenizer")
    if differing:
        raise UserError(f"{directory} holds a run with other {' and '.join(differing)}", f"see {directory / RUN}")
    verdict = Verdict.of_run(old)
    if verdict.proof is Proof.REFUTED:
        raise UserError(f"{directory} holds answers of a damaged model: {verdict.detail}", "begin another run")


def check_folder(directory: Path, *, resume: bool = False) -> None:
    """Refuse a folder that a ``RunWriter`` refuses; for commands to ask before they load anything.

    A run that was killed between ``predictions.jsonl``, which is empty then, and ``run.json`` can be begun anew as well
    as resumed.

    Raises:
        UserError: it holds a run, or none to resume, or answers without the ``run.json`` that says of which model.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file, not a folder", "name another folder with --out")
    run, predictions = directory / RUN, directory / PREDICTIONS
    if not run.exists() and predictions.exists() and not (predictions.is_file() and not predictions.stat().st_size):
        reason = f"{predictions} has answers, but {RUN}, which says of which model they are, is missing"
        raise UserError(reason, "name another folder with --out, or remove it")
    if resume and not run.exists() and not predictions.exists():
        raise UserError(f"{directory} does not hold a run to resume", "leave --resume out to begin one")
    if not resume and any((directory / name).exists() for name in (RUN, REPORT, PARTS, SAMPLES)):
        raise UserError(f"{directory} already holds a run", "name another folder with --out, or remove it")
