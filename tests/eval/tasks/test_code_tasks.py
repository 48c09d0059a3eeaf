"""HumanEval and MBPP: prompts, programs, malformed data, and that code is run only where it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval import code_run
from eval.tasks import code
from eval.tasks.base import LoadOptions, in_chat
from eval.tasks.code import CodeTask
from eval.tasks.doc import Doc
from eval.tasks.registry import TASKS, get_task
from orin_runner.cli.options import check_code
from orin_runner.errors import UserError
from tests.support.choice_rows import jsonl, write
from tests.support.phi3_rows import HUMANEVAL, MBPP
from tests.support.published import FILES


def docs(task: str, folder: Path, **options: Any) -> list[Doc]:
    return get_task(task).load(LoadOptions(write(folder, FILES[task]), **options)).docs


def program(task: str, doc: Doc, text: str) -> str:
    found = get_task(task)
    assert isinstance(found, CodeTask)
    return found.program(doc, text)


def test_humaneval_to_the_letter(tmp_path: Path) -> None:
    """The prompt as it is, and the program that is run."""
    first, second = docs("humaneval", tmp_path)
    assert (first.id, second.id) == ("HumanEval/0", "HumanEval/1")
    assert second.prompt == "\ndef twice(x):\n    # doubled \n"
    assert (first.until, first.max_new_tokens) == (("\nclass", "\ndef", "\n#", "\nif", "\nprint"), 1024)
    whole = (
        "\ndef twice(x):\n    # doubled \n"
        "    return 2 * x\n"
        "def check(candidate):\n    assert candidate('a') == 'aa'\n\n\ncheck(twice)"
    )
    assert program("humaneval", second, "    return 2 * x") == whole
    assert program("humaneval", in_chat(second), "    return 2 * x") == whole
    with pytest.raises(UserError, match="humaneval has 0 worked examples here, not 1"):
        docs("humaneval", tmp_path, shots=1)


def test_mbpp_to_the_letter(tmp_path: Path) -> None:
    """The test split alone; three tests of however many; worked examples with the data set's own line ends."""
    found = docs("mbpp", tmp_path, shots=1)
    assert [doc.id for doc in found] == ["11", "12", "510"]
    assert found[1].prompt == (
        "You are an expert Python programmer, and here is your task: Write a function to find the similar elements "
        "from the given two tuple lists. Your code should pass these tests:\n\n"
        "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n"
        "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)\n"
        "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)\n[BEGIN]\n"
        "def similar_elements(test_tup1, test_tup2):\r\n  res = tuple(set(test_tup1) & set(test_tup2))\r\n"
        "  return (res) \n[DONE]\n\n"
        "You are an expert Python programmer, and here is your task: Write a function to add 3. Your code should pass "
        "these tests:\n\nassert add(0) == 3 \nassert add(1) == 4 \nassert add(2) == 5 \n[BEGIN]\n"
    )
    assert (found[1].until, found[1].max_new_tokens) == (("[DONE]",), 256)
    assert program("mbpp", found[1], "x") == "x\nassert add(0) == 3 \nassert add(1) == 4 \nassert add(2) == 5 "
    assert docs("mbpp", tmp_path) == docs("mbpp", tmp_path, shots="phi3")
    assert str(docs("mbpp", tmp_path)[0].prompt).count("[DONE]") == 3
    with pytest.raises(UserError, match="mbpp has 3 worked examples here, not 4"):
        docs("mbpp", tmp_path, shots=4)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("humaneval", {**HUMANEVAL[0], "test": 3}, "'test' is 3 and should be a valid string"),
        ("humaneval", {"prompt": "x"}, "no 'task_id'"),
        ("humaneval", HUMANEVAL[0], "two questions are called HumanEval/0"),
        ("mbpp", {**MBPP[2], "test_list": ["a", "b"]}, "'test_list' has 2 tests, not 3"),
        ("mbpp", {**MBPP[2], "task_id": "11"}, "'task_id' is '11' and should be a valid integer"),
    ],
)
def test_a_malformed_row_is_named(task: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    ((name, text),) = FILES[task].items()
    with pytest.raises(UserError, match=message):
        get_task(task).load(LoadOptions(write(tmp_path, {name: text + jsonl(row)})))


def test_one_program_is_run_for_each_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its outcome is the score; what was generated is kept as it is."""
    ran: list[str] = []
    monkeypatch.setattr(code, "passes", lambda text: bool(ran.append(text)) or "right" in text)
    for task, metric in (("humaneval", "pass@1"), ("mbpp", "pass_at_1")):
        doc = docs(task, tmp_path / task)[0]
        assert get_task(task).metrics == (metric,)
        assert get_task(task).score(doc, "right") == {metric: 1.0}
        assert get_task(task).score(doc, "wrong") == {metric: 0.0}
        assert get_task(task).normalize(" x\n") == " x\n"
        assert ran == [program(task, doc, "right"), program(task, doc, "wrong")]
        ran.clear()


def test_code_is_run_only_with_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only where it can be shut off; tasks that run none ask for nothing."""
    both, other = [get_task("humaneval"), get_task("mbpp")], [get_task("boolq")]
    with pytest.raises(UserError, match="humaneval and mbpp run the code that the model writes; --run-code allows it"):
        check_code([*other, *both], run_code=False)
    with pytest.raises(UserError, match="mbpp runs the code that the model writes"):
        check_code(both[1:], run_code=False)
    assert {name for name, task in TASKS.items() if isinstance(task, CodeTask)} == {"humaneval", "mbpp"}
    check_code(both, run_code=True)
    monkeypatch.setattr(code_run, "PROBES", ("",))
    with pytest.raises(UserError, match="cannot be shut off"):
        check_code(both, run_code=True)
    for run_code in (False, True):
        check_code(other, run_code=run_code)
