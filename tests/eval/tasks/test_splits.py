"""Which rows of its data set a task asks: the split that was read, and how many rows it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tasks.base import LoadOptions
from eval.tasks.registry import TASKS, get_task
from tests.support.choice_rows import GOLDEN, jsonl, write

DEV, TEST = (jsonl({"uid": "u", "context": c, "hypothesis": "It is dry.", "label": "c"}) for c in ("It rains.", "Fog."))


def first_prompt(data: Path) -> object:
    return get_task("anli").load(LoadOptions(data)).docs[0].prompt


@pytest.mark.parametrize("name", GOLDEN)
def test_rows_are_counted_before_the_limit(name: str, tmp_path: Path) -> None:
    """One question of as many as there are, and the split's name in the registry."""
    data = write(tmp_path, GOLDEN[name].files)
    found, whole = get_task(name).load(LoadOptions(data, limit=1)), get_task(name).load(LoadOptions(data))
    assert len(found.docs) == 1
    assert found.rows == whole.rows == len(whole.docs)
    assert found.split == whole.split == get_task(name).splits[0]


def test_a_data_set_without_splits_has_none(tmp_path: Path) -> None:
    """The exam and the challenge are one whole."""
    exam = get_task("exam").load(LoadOptions(limit=3))
    assert (len(exam.docs), exam.split, exam.rows) == (3, None, 480)
    row = jsonl({"message": [{"role": "user", "content": "choices: ['a']"}], "answer": "a"})
    path = write(tmp_path, {"mine.jsonl": row * 5}) / "mine.jsonl"
    challenge = get_task("challenge").load(LoadOptions(path, limit=2))
    assert (len(challenge.docs), challenge.split, challenge.rows) == (2, None, 5)
    assert {name for name, task in TASKS.items() if not task.splits} == {"exam", "challenge"}


def test_anli_says_which_split_it_fell_back_to(tmp_path: Path) -> None:
    """Dev where test is not there, for each round by itself; test where both are."""
    dev = {f"anli/R{r}/dev.jsonl": DEV for r in (1, 2, 3)}
    test = {f"anli/R{r}/test.jsonl": TEST * 2 for r in (1, 2, 3)}
    only = write(tmp_path / "dev", dev)
    mixed = write(tmp_path / "mixed", dev | {"anli/R1/test.jsonl": TEST * 2})
    both = write(tmp_path / "both", dev | test)
    found = [get_task("anli").load(LoadOptions(data, limit=2)) for data in (only, mixed, both)]
    assert [(f.split, f.rows) for f in found] == [("dev", 3), ("test and dev", 4), ("test", 6)]
    assert get_task("anli").splits == ("test", "dev")
    assert "It rains." in str(first_prompt(only))
    assert "Fog." in str(first_prompt(both))


def test_anlis_test_split_is_asked_wherever_it_lies(tmp_path: Path) -> None:
    """A copy of the hub's test goes before a published dev, and a copy of dev is found where there is nothing else."""
    hub = {"uid": "u", "premise": "Snow.", "hypothesis": "h", "label": 0}
    dev = {f"anli/R{r}_dev.jsonl": DEV for r in (1, 2, 3)}
    copies = {split: {f"anli/{split}_r{r}.jsonl": jsonl(hub) for r in (1, 2, 3)} for split in ("test", "dev")}
    found = get_task("anli").load(LoadOptions(write(tmp_path / "test", dev | copies["test"])))
    assert (found.split, "Snow." in str(found.docs[0].prompt)) == ("test", True)
    found = get_task("anli").load(LoadOptions(write(tmp_path / "dev", copies["dev"])))
    assert (found.split, found.rows) == ("dev", 3)


def test_the_public_copy_of_anli_is_dev(orin_data: Path) -> None:
    """All of the 3,198 rows in benchmarks/RESULTS.md."""
    found = get_task("anli").load(LoadOptions(orin_data))
    assert (found.split, found.rows) == ("dev", 3198)
