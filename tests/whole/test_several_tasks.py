"""A run of several tasks: each one's clock from the start of the process is without the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.recomputed import Watched, near_s, watched_run
from tests.support.small_data import small_data

TASKS = ("exam", "winogrande")


def holds(watched: Watched) -> None:
    """The last task's clock and the others' seconds are the time to the last answer; each begins with the process."""
    clocks = {name: section["clocks"] for name, section in watched.report["tasks"].items()}
    assert tuple(clocks) == TASKS
    first, last = (clocks[name] for name in TASKS)
    near = near_s()
    spent = {name: clock["challenge 2024"] for name, clock in clocks.items()}
    assert spent["exam"] > 2 * near, "else nobody could tell"
    whole = last["challenge 2023"] + spent["exam"]
    assert -near <= whole - watched.last_answer_s <= near + last.get("check", 0.0)
    for name, clock in clocks.items():
        assert clock["challenge 2023"] >= clock["start"] + clock["load"] + spent[name] - near / 10
    assert first["challenge 2023"] + spent["winogrande"] <= watched.last_answer_s + near


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_data(tmp_path_factory.mktemp("data"))


def test_a_run_takes_other_tasks_off(tmp_path: Path, tiny: Path, data: Path) -> None:
    model = tmp_path / "tiny.gguf"
    convert(Checkpoint.open(tiny), model, Options())
    holds(watched_run(tmp_path / "run", "eval", *TASKS, "--model", model, "--data", data, "--limit", "60"))


def test_the_reference_takes_other_tasks_off(tmp_path: Path, tiny: Path, data: Path) -> None:
    """Its start is the process's, too: the import of torch belongs to it."""
    holds(watched_run(tmp_path / "run", "reference", *TASKS, "--model", tiny, "--data", data, "--limit", "12"))
