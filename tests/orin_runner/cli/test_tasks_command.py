"""What ``orin-run tasks`` says of a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tasks.registry import get_task
from orin_runner.cli.tasks import print_tasks, task_row
from tests.support.choice_rows import GOLDEN, jsonl, write
from tests.support.commands import orin_run, refused


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


def test_licence_and_source_stand_where_a_task_is_named(tmp_path: Path) -> None:
    """And nowhere in the list; a group is named, too."""
    task = get_task("boolq")
    done = orin_run("tasks", "boolq,piqa", "--data", write(tmp_path, GOLDEN["piqa"].files))
    assert done.returncode == 0, done.stderr
    found = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [words for words in found if len(words) == 1] == [["boolq"], ["piqa"]]
    assert ["licence", task.licence] in found
    assert ["source", task.source] in found
    assert ["rows", "1"] in found
    assert ["groups", "phi3, challenge2024"] in found
    listed = orin_run("tasks").stdout
    assert task.licence not in listed
    assert task.source not in listed
    refused(orin_run("tasks", "bolq"), "boolq")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Of one that is there, tasks without files are not."""
    refused(orin_run("tasks", "--data", tmp_path / "dta"), "dta does not exist")
    assert orin_run("tasks", "boolq", "--data", tmp_path).returncode == 0
