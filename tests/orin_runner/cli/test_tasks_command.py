"""What ``orin-run tasks`` says of a task."""

from __future__ import annotations

from pathlib import Path

from eval.tasks.registry import get_task
from orin_runner.cli.tasks import task_row
from tests.support.choice_rows import GOLDEN, write


def test_the_list_of_tasks(tmp_path: Path) -> None:
    """Rows where the files are there, worked examples of the harness and of Phi-3's report."""
    data = write(tmp_path, GOLDEN["piqa"].files)
    row = task_row(get_task("piqa"), data)
    assert (row["rows"], row["default_shots"], row["phi3_shots"], row["licence"]) == (1, 0, 5, "AFL-3.0")
    assert task_row(get_task("boolq"), data)["rows"] is None
