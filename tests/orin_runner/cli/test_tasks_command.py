"""What ``orin-run tasks`` says of a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tasks.registry import get_task
from orin_runner.cli.tasks import print_tasks, task_row
from tests.support.choice_rows import GOLDEN, jsonl, write


def test_the_list_of_tasks(tmp_path: Path) -> None:
    """Rows where the files are there, worked examples of the harness and of Phi-3's report."""
    data = write(tmp_path, GOLDEN["piqa"].files)
    row = task_row(get_task("piqa"), data)
    assert (row["rows"], row["default_shots"], row["phi3_shots"], row["licence"]) == (1, 0, 5, "AFL-3.0")
    assert task_row(get_task("boolq"), data)["rows"] is None


def test_the_split_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ANLI's dev where test is not; without files, or without --data, what would be read."""
    row = jsonl({"uid": "u", "context": "It rains.", "hypothesis": "It is dry.", "label": "c"})
    data = write(tmp_path, {f"anli/R{r}/dev.jsonl": row for r in (1, 2, 3)})
    rows = [task_row(get_task(name), data) for name in ("anli", "boolq", "exam")]
    assert [(row["split"], row["rows"]) for row in rows] == [("dev", 3), (None, None), (None, 480)]
    assert [list(row["splits"]) for row in rows] == [["test", "dev"], ["validation"], []]
    rows.append(task_row(get_task("anli"), None))
    print_tasks(rows)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["task", "split", "rows"]
    assert [line[1:3] for line in lines if line[0] in {"anli", "exam"}] == [
        ["dev", "3"],
        ["480", "0"],
        ["test,", "else"],
    ]
