"""Runs made by hand for pages, and a page as a reader sees it."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from eval.report.item_data import item_data, packed
from eval.report.page import render, view
from eval.report.section import task_report
from eval.runs.items import ITEMS
from eval.runs.measured import summary
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.samples import SAMPLES, Sample
from eval.runs.writer import RunWriter
from orin_runner.machine.nvml import GpuReading
from orin_runner.machine.sensors import Reading
from tests.support.predictions import noise

EVIL = "<script>console.error('ran')</script><img src=x onerror=alert(1)>\"'&"
TWO_GPUS = (
    GpuReading("0", "H100", 2500.0, 2400.0, 100.0, 80.0, 1700.0, 61.0, ()),
    GpuReading("1", "H200", 2800.0, None, 150.0, 90.0, 1800.0, 71.0, ("thermal",)),
)


def item(i: int, **changes: Any) -> Prediction:
    """An item with two choices, right in three of four cases."""
    base = Prediction(
        task="t",
        id=f"subject_{i % 3}/{i}",
        group=f"subject_{i % 3}",
        prediction="A" if i % 4 else "B",
        target="A",
        correct=i % 4 > 0,
        logprobs=(-0.1 - i / 100, -2.5),
        text=None,
        margin=2.4 - i / 100,
        margin_scale=1.0,
        n_tokens=10 + i,
        tokens_sha256="0" * 64,
        scores={"acc": float(i % 4 > 0), "acc_norm": 0.0},
    )
    return replace(base, **changes)


def write(directory: Path, items: list[Prediction], *, header: dict[str, Any] | None = None, **report: Any) -> Run:
    """A run of one task with a report as ``orin-run eval`` writes it."""
    clocks = {"start": 0.25, "load": 1.5, "data": 0.5, "tokenize": 0.25, "prefill": 7.25, "score": 0.25}
    section = task_report(items, {"sent": 9000, "unique": 4500, "computed": 4600}, clocks)
    with RunWriter(directory, header or {"engine": "llama.cpp", "model": {"name": "m.gguf"}}) as writer:
        for prediction in items:
            writer.write(prediction)
        writer.report({"tasks": {"t": {**section, "noise": noise(0.03)}} if items else {}, **report})
    return Run.open(directory)


def metered(
    run: Run, seconds: int = 20, *, known: bool = True, unified: bool = False, gpus: tuple[GpuReading, ...] = ()
) -> Run:
    """``run`` with samples of a resumed run; ``known``: GPU memory and power, too; ``gpus``: and of each GPU."""
    gpu, watts = (2800.0, 250.0) if known else (None, None)
    samples = [
        Sample(part, float(t), "t", 90 * t, float(t), t, Reading(400.0 + t, 9000.0 + t, gpu, watts, gpus))
        for part in range(2)
        for t in range(seconds)
    ]
    (run.directory / SAMPLES).write_bytes(b"".join(sample.line() for sample in samples))
    measured = summary(samples, unified=unified, power_source="NVML GPU 0" if known else None)
    report = {**run.report, "measured": measured}
    (run.directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return Run.open(run.directory)


def limited(run: Run) -> Run:
    """``run`` with its share of the machine's limit."""
    tasks = {"t": {**run.report["tasks"]["t"], "share_of_prompt_rate": 0.9149}}
    return replace(run, report={**run.report, "tasks": tasks, "prompt_rate": {"tokens_per_s": 1234.4}})


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in {"style", "script"}

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words += data.replace("\u202f", " ").split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def headings(self) -> str:
        return " | ".join(
            re.findall(r"(?:Calibration|Margins|Further metrics|Failures|Memory plan|Weights)", self.text)
        )


def page_of(*runs: Run) -> Page:
    return Page(render(view(runs)))


def whole(*runs: Run) -> str:
    """The page with its items."""
    items = packed(item_data(runs, [run.directory.name for run in runs]))
    return render(view(runs), items if any(run.predictions for run in runs) else None)


def log(run: Run, *asked: dict[str, Any]) -> Run:
    """``run`` with an ``items.jsonl.gz``: for each of its items ``asked``, or what stands for all of them."""
    known: dict[str, Any] = {"prompt": None, "prompts": None, "choices": None, "labels": None, "right": ["A"]}
    lines = [
        {**known, "task": key[0], "id": key[1], **more}
        for key, more in zip(run.predictions, asked or [{}] * len(run.predictions), strict=True)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.directory / ITEMS).write_bytes(gzip.compress(text.encode()))
    return run


def drawn(page: Page) -> list[str]:
    """What each chart over time shows."""
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    return [label.removesuffix(" over time") for label in labels if label.endswith(" over time")]
