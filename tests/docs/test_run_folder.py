"""``docs/run-folder.md`` names every key that a run leaves, a resumed one with the prompt rate measured, too."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.shapes import Energy, MeasuredGpu
from eval.tasks.registry import TASKS
from orin_runner.machine.nvml import GpuReading
from tests.support.commands import orin_run
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "run-folder.md"
ITEMS = "8"
FILES = ("items.jsonl.gz", "run.json", "predictions.jsonl", "samples.jsonl", "parts.json", "report.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A run that lost its last line and went on."""
    folder = tmp_path_factory.mktemp("run")
    model, out = folder / "tiny.gguf", folder / "run"
    convert(Checkpoint.open(tiny), model, Options())
    command = ("eval", "exam", "--model", model, "--limit", ITEMS, "--out", out)
    done = orin_run(*command)
    assert done.returncode == 0, done.stderr
    predictions = out / "predictions.jsonl"
    predictions.write_bytes(predictions.read_bytes()[:-20])
    done = orin_run(*command, "--resume", "--measure-limit", "--log-items")
    assert done.returncode == 0, done.stderr
    return out


def keys(value: Any) -> Iterator[str]:
    """Every key of a JSON value, inner ones too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def named() -> set[str]:
    """What the document has in backquotes."""
    return set(re.findall(r"`([^`\n]+)`", DOCUMENT.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_named(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    values = [json.loads(line) for line in text.splitlines()] if ".jsonl" in name else [json.loads(text)]
    # Names of tasks, of their groups ("text" is a key of predictions as well) and of their metrics are data.
    data = {*TASKS, "letters", *(metric for task in TASKS.values() for metric in task.metrics)}
    found = set(keys(values)) - data
    assert found
    assert found <= named()


def test_keys_of_gpus_are_named() -> None:
    """No GPU is needed to know them."""
    assert {*GpuReading.__dataclass_fields__, *MeasuredGpu.model_fields, *Energy.model_fields} <= named()


def test_the_run_says_which_rows_it_asked(run: Path) -> None:
    """In the settings, by which runs are compared, and in the report."""
    assert json.loads((run / "run.json").read_text())["settings"]["splits"] == {"exam": None}
    section = json.loads((run / "report.json").read_text())["tasks"]["exam"]
    assert (section["split"], section["rows"], section["items"]) == (None, 480, int(ITEMS))


def test_the_run_was_resumed(run: Path) -> None:
    """Else the keys of a resumed run would not be looked at."""
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1
    report = json.loads((run / "report.json").read_text())
    assert report["tasks"]["exam"]["resumed"] == int(ITEMS) - 1
    assert report["prompt_rate"]["tokens_per_s"] > 0
