"""Every task on all its public rows, with the tiny model: nothing computed twice, every row answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run
from eval.tasks.base import LoadOptions
from eval.tasks.registry import TASKS, get_task
from orin_runner.errors import UserError
from tests.support.commands import orin_run

MORE_OPTIONS = {
    # In the tiny model's own tokens 98 of the 5-shot prompts are longer than its 4,096 positions and would be
    # truncated; tests/whole/test_whole_mmlu.py has all of them whole, in Phi-3's tokens.
    "mmlu": ["--shots", "4"],
    "challenge": ["--max-new-tokens", "8"],
    "bbh": ["--max-new-tokens", "8"],
    "bbh_direct": ["--max-new-tokens", "8"],
    "drop": ["--max-new-tokens", "8"],
}
"""A text of the tiny model says nothing here; eight tokens are enough to decode, and keep it to minutes."""
AGAIN = {"challenge": 1.05, "bbh": 1.05, "bbh_direct": 1.1, "drop": 1.15}
"""Where texts are decoded. A text that a near-tie sends back has its prompt computed again."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name in TASKS if name != "exam"])
def test_all_rows(task: str, model: Path, orin_data: Path, tmp_path: Path) -> None:
    """As many predictions as rows, none failed, and computed / unique <= 1.01, or ``AGAIN`` where texts are decoded."""
    try:
        docs = get_task(task).load(LoadOptions(orin_data)).docs
    except UserError as error:
        if "does not exist" not in str(error):
            raise
        pytest.skip(f"not all files of {task} are here: {error}")
    options = ["--model", str(model), "--data", str(orin_data), "--out", str(tmp_path / "run")]
    done = orin_run("eval", task, *options, *MORE_OPTIONS.get(task, []))
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    section = run.report["tasks"][task]
    tokens = section["tokens"]
    assert {name for _, name in run.predictions} == {doc.id for doc in docs}
    assert len(run.predictions) == section["items"] == len(docs)
    assert not [name for name, prediction in run.predictions.items() if prediction.failed]
    assert ("greedy" in section) == (task in AGAIN)
    assert tokens["computed"] <= AGAIN.get(task, 1.01) * tokens["unique"]
    assert tokens["unique"] < tokens["sent"] or task == "challenge"
