"""Files that are not the published ones are told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from eval.data import digests
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from tests.support.choice_rows import jsonl, write
from tests.support.harness_cases import GSM8K
from tests.support.hub_rows import Row
from tests.support.phi3_rows import HUMANEVAL, MBPP, MMLU_PRO


def test_files_that_are_not_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for a changed file, none for the published one, gzipped or not; what is not there is no change."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's of "abc"
    monkeypatch.setattr(digests, "PUBLISHED", {"t": {"t/a": digest, "t/b": digest, "t/c": digest, "t/d": digest}})
    write(tmp_path, {"t/a": "abc", "t/b": "abd"})
    (tmp_path / "t" / "c.gz").write_bytes(gzip.compress(b"abc"))
    lines = digests.changed_files("t", tmp_path)
    assert len(lines) == 1
    assert "t/b is not the published file" in lines[0]
    assert digests.changed_files("t", tmp_path / "t") == lines  # --data names the data set's own folder
    write(tmp_path, {"t_1.1/d": "abd"})  # as an archive unpacks
    assert len(digests.changed_files("t", tmp_path, ["t_1.1"])) == 2
    assert digests.changed_files("t", None) == digests.changed_files("exam", tmp_path) == []


@pytest.mark.parametrize(
    ("task", "folder", "rows"),
    [
        ("mmlu_pro", "mmlu_pro/data", MMLU_PRO["test"]),
        ("mmlu_pro", "TIGER-Lab/MMLU-Pro/data", MMLU_PRO["test"]),
        ("humaneval", "humaneval/openai_humaneval", HUMANEVAL),
        ("humaneval", "openai_humaneval/openai_humaneval", HUMANEVAL),
        ("mbpp", "mbpp", MBPP),
        ("mbpp", "google-research/mbpp", MBPP),
        ("gsm8k_cot", "gsm8k", GSM8K),
        ("gsm8k_cot", "grade-school-math/grade_school_math/data", GSM8K),
    ],
)
def test_what_is_compared_is_what_is_read(task: str, folder: str, rows: list[Row], tmp_path: Path) -> None:
    """Another file of that name is told, and it is the one that the questions come from."""
    (name,) = digests.PUBLISHED[task]
    path = tmp_path / folder / Path(name).name
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(tmp_path, {f"{folder}/{path.name}": jsonl(*rows)})
    found = get_task(task)
    assert found.load(LoadOptions(tmp_path, shots=0)).docs
    (line,) = digests.changed_files(task, tmp_path, getattr(found, "folders", ()))
    assert f"{path} is not the published file" in line
