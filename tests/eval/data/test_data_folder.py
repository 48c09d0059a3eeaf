"""``--data`` that names no folder at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import UserError


@pytest.mark.parametrize("task", ["mmlu", "piqa", "gsm8k", "drop", "bbh"])
def test_it_is_named_and_no_file_in_it(task: str, tmp_path: Path) -> None:
    """Where nothing is, what else could lie there helps nobody."""
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.touch()
    for data, said in ((missing, "does not exist"), (file, "is no folder")):
        with pytest.raises(UserError) as refusal:
            get_task(task).load(LoadOptions(data))
        assert str(refusal.value) == f"{data} {said}; --data names the folder that holds the data sets' folders"
    with pytest.raises(UserError, match=f"{tmp_path}/{task}/.* does not exist; .* which may also hold"):
        get_task(task).load(LoadOptions(tmp_path))
