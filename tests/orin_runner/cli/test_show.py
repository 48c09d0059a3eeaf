"""What the command prints."""

from __future__ import annotations

from pathlib import Path

from eval.evaluate import Status
from eval.tasks import get_task
from orin_runner.cli.show import status_line, task_row
from tests.support.choice_rows import GOLDEN, write


def test_the_list_of_tasks(tmp_path: Path) -> None:
    """Rows where the files are there, worked examples of the harness and of Phi-3's report."""
    data = write(tmp_path, GOLDEN["piqa"].files)
    row = task_row(get_task("piqa"), data)
    assert (row["rows"], row["default_shots"], row["phi3_shots"], row["licence"]) == (1, 0, 5, "AFL-3.0")
    assert task_row(get_task("boolq"), data)["rows"] is None


def test_the_line_of_a_task() -> None:
    """By hand: 3 of 4 right, 2 of them answered now in 8 s, 75 of 300 tokens sent must be computed."""
    status = Status(done=4, right=3, items=10, computed=50, unique=75, sent=300, resumed=2)
    assert status_line(status, 8.0) == "4/10 items, 75.0% right, 0.2 items/s, 75% of tokens saved"
    # Nothing answered or counted yet: nothing is said of it.
    assert status_line(Status(0, 0, 10, 0, 0, 0, 0), 0.0) == "0/10 items"
