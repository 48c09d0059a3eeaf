"""Multiple choice: the prompts of each task by hand, where files may lie, and what is said of malformed rows."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from eval.tasks.base import LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.multiple_choice import MultipleChoice
from eval.tasks.registry import TASKS, get_task
from orin_runner.errors import UserError
from tests.support.choice_rows import GOLDEN, jsonl, listed, write

PUBLIC_ROWS = {
    "mmlu": 14042,
    "commonsense_qa": 1221,
    "winogrande": 1267,
    "boolq": 3270,
    "openbookqa": 500,
    "hellaswag": 10042,
    "arc_easy": 2376,
    "siqa": 1954,
    "anli": 3198,
}


def asked(doc: Doc) -> str | tuple[str, ...]:
    assert not isinstance(doc.prompt, tuple)
    return doc.prompts or doc.prompt


def test_every_choice_task_has_a_golden_prompt() -> None:
    """A task cannot be added without one."""
    assert set(GOLDEN) == {name for name, task in TASKS.items() if isinstance(task, MultipleChoice)}


@pytest.mark.parametrize("name", GOLDEN)
def test_prompt_to_the_letter(name: str, tmp_path: Path) -> None:
    """Zero shots, lm-evaluation-harness's number, and one."""
    golden = GOLDEN[name]
    data = write(tmp_path, golden.files)
    if golden.train[0]:
        write(data, dict([golden.train]))
    doc = get_task(name).load(LoadOptions(data)).docs[0]
    assert (asked(doc), doc.choices, doc.target, doc.right) == (
        golden.prompt,
        golden.choices,
        golden.target,
        golden.right,
    )
    assert doc.single_token == (name in {"commonsense_qa", "medqa"})
    if golden.shot:
        one = get_task(name).load(LoadOptions(data, shots=1)).docs[0]
        shown = (golden.prompt,) if isinstance(golden.prompt, str) else golden.prompt
        found = asked(one)
        assert ((found,) if isinstance(found, str) else found) == tuple(golden.shot + prompt for prompt in shown)
        assert (one.choices, one.target) == (golden.choices, golden.target)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("winogrande", {"winogrande/dev.jsonl": "winogrande_1.1/dev.jsonl"}),
        ("openbookqa", {"openbookqa/test.jsonl": "OpenBookQA-V1-Sep2018/Data/Main/test.jsonl"}),
        ("arc_easy", {"arc_easy/ARC-Easy-Test.jsonl": "ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl"}),
        ("siqa", {f"siqa/dev{end}": f"socialiqa-train-dev/dev{end}" for end in (".jsonl", "-labels.lst")}),
        ("truthfulqa_mc2", {"truthfulqa/mc_task.json": "TruthfulQA/data/mc_task.json"}),
        ("truthfulqa_mc1", {"truthfulqa/mc_task.json": "TruthfulQA/data/mc_task.json"}),
        (
            "medqa",
            {
                "medqa/phrases_no_exclude_test.jsonl": (
                    "data_clean/questions/US/4_options/phrases_no_exclude_test.jsonl"
                )
            },
        ),
        ("anli", {f"anli/R{r}/test.jsonl": f"anli_v1.0/R{r}/test.jsonl" for r in (1, 2, 3)}),
        ("anli", {f"anli/R{r}/test.jsonl": f"anli/R{r}/dev.jsonl" for r in (1, 2, 3)}),
    ],
)
def test_the_archives_own_folders(name: str, moved: dict[str, str], tmp_path: Path) -> None:
    """As unpacked, or as kept in one folder per task: the same questions."""
    files = GOLDEN[name].files
    kept = get_task(name).load(LoadOptions(write(tmp_path / "kept", files))).docs
    unpacked = write(tmp_path / "unpacked", {moved.get(path, path): text for path, text in files.items()})
    assert not set(moved) & {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")}
    assert get_task(name).load(LoadOptions(unpacked)).docs == kept


def test_cleaned_copies_and_superglue(tmp_path: Path) -> None:
    """A gzipped HellaSwag without ctx_a and ctx_b; BoolQ's title is already in SuperGLUE's passage."""
    row = {"activity_label": "Ski", "ctx": "A man. he", "endings": ["a", "b", "c", "d"], "label": 0}
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "hellaswag" / "hellaswag_val.jsonl.gz").write_bytes(gzip.compress(jsonl(row).encode()))
    assert get_task("hellaswag").load(LoadOptions(tmp_path)).docs[0].prompt == "Ski: A man. He"
    row = {"question": "is ice cold", "passage": "Ice -- Ice is cold.", "idx": 0, "label": True}
    write(tmp_path, {"BoolQ/val.jsonl": jsonl(row), **GOLDEN["boolq"].files})
    (tmp_path / "boolq" / "dev.jsonl").rename(tmp_path / "dev.jsonl")
    assert get_task("boolq").load(LoadOptions(tmp_path)).docs[0].prompt == GOLDEN["boolq"].prompt


HUB_ROWS: dict[str, dict[str, Any]] = {
    "arc_easy": {
        "question": "Which is hot?",
        "choices": {"text": ["ice", "fire", "snow"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    },
    "openbookqa": {
        "question_stem": "Frogs eat",
        "choices": {"text": ["flies", "cars", "stones", "sand"], "label": list("ABCD")},
        "answerKey": "A",
    },
    "boolq": {"question": "is ice cold", "passage": "Ice -- Ice is cold.", "idx": 0, "label": 1},
    "piqa": {"goal": "Open a jar", "sol1": "Hit it.", "sol2": "Turn the lid.", "label": 1},
    "siqa": {
        "context": "Al fell.",
        "question": "How is Al?",
        "answerA": "glad",
        "answerB": "red",
        "answerC": "hurt",
        "label": "3",
    },
    "anli": {"uid": "u", "premise": "Al has 1 cats.", "hypothesis": "Al has a cat.", "label": 0},
    "truthfulqa_mc2": {
        "question": "Do pigs fly?",
        "mc2_targets": {"choices": ["Yes", "No", "Never"], "labels": [0, 1, 1]},
    },
    "truthfulqa_mc1": {
        "question": "Do pigs fly?",
        "mc1_targets": {"choices": ["No", "Yes", "Once"], "labels": [1, 0, 0]},
    },
    "medqa": {
        "id": "test-00000",
        "sent1": " Which nerve tastes? ",
        "sent2": "",
        **{f"ending{i}": text for i, text in enumerate(["Facial", "Optic", "Ulnar ", "Vagus"])},
        "label": 2,
    },
}


@pytest.mark.parametrize("name", HUB_ROWS)
def test_the_hubs_columns_give_the_same_question(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the revision is pinned to a commit."""
    import datasets

    def load(_repository: str, _config: str | None, *, split: str, revision: str) -> list[dict[str, Any]]:
        assert re.fullmatch(r"[0-9a-f]{40}", revision)
        assert split.startswith(("test", "validation"))
        return [HUB_ROWS[name]]

    monkeypatch.setattr(datasets, "load_dataset", load)
    files = get_task(name).load(LoadOptions(write(tmp_path, GOLDEN[name].files))).docs
    assert get_task(name).load(LoadOptions()).docs[0] == files[0]


def test_phi3s_worked_examples(tmp_path: Path) -> None:
    """Ten for OpenBookQA, the first ten rows of train; more than there are is refused."""
    train = [listed(f"Q{i}", ["right", "x", "y", "z"], "A") for i in range(11)]
    data = write(tmp_path, {**GOLDEN["openbookqa"].files, "openbookqa/train.jsonl": jsonl(*train)})
    doc = get_task("openbookqa").load(LoadOptions(data, shots="phi3")).docs[0]
    assert doc.prompt == "".join(f"Q{i} right\n\n" for i in range(10)) + "Frogs eat"
    with pytest.raises(UserError, match="openbookqa has 11 worked examples here, not 12"):
        get_task("openbookqa").load(LoadOptions(data, shots=12))


@pytest.mark.parametrize(
    ("name", "path", "row", "message"),
    [
        ("commonsense_qa", "commonsense_qa/dev_rand_split.jsonl", listed("x", "abcde", "F"), "the answer is 'F'"),
        ("openbookqa", "openbookqa/test.jsonl", {"question": {"stem": "x"}, "answerKey": "A"}, "no 'question.choices'"),
        (
            "arc_easy",
            "arc_easy/ARC-Easy-Test.jsonl",
            listed(3, "ab", "A"),
            "'question.stem' is 3 and should be a valid string",
        ),
        (
            "boolq",
            "boolq/dev.jsonl",
            {"question": "q", "passage": "p", "answer": "maybe"},
            "'answer' is 'maybe' and",
        ),
        ("boolq", "boolq/dev.jsonl", {"question": "q", "passage": "p", "label": 2}, "not one of the 2 choices"),
        (
            "winogrande",
            "winogrande/dev.jsonl",
            {"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"},
            "'sentence' has no '_'",
        ),
        (
            "winogrande",
            "winogrande/dev.jsonl",
            {"sentence": "_", "option1": "a", "option2": "b", "answer": "3"},
            "'answer' is '3' and should be",
        ),
        (
            "hellaswag",
            "hellaswag/hellaswag_val.jsonl",
            {"activity_label": "x", "ctx": "y", "endings": "abcd", "label": 0},
            "'endings' is 'abcd' and should be a valid list",
        ),
        (
            "anli",
            "anli/R1/test.jsonl",
            {"context": "c", "hypothesis": "h", "label": "x"},
            "'label' is 'x' and should be 'e', 'n' or 'c'",
        ),
        (
            "medqa",
            "medqa/phrases_no_exclude_test.jsonl",
            {"question": "q", "options": dict.fromkeys("ABCD", "x"), "answer_idx": "E"},
            "'answer_idx' is 'E' and should be 'A', 'B', 'C' or 'D'",
        ),
        (
            "medqa",
            "medqa/phrases_no_exclude_test.jsonl",
            {"question": "q", "options": {"A": "x"}, "answer_idx": "A"},
            "no 'options.B'",
        ),
    ],
)
def test_a_malformed_row_is_named(name: str, path: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    """File, line, and what is wrong."""
    data = write(tmp_path, {**GOLDEN[name].files, path: GOLDEN[name].files[path] + jsonl(row)})
    with pytest.raises(UserError, match=f"{re.escape(path)}, line 2: .*{re.escape(message)}"):
        get_task(name).load(LoadOptions(data))


def test_malformed_labels_and_lists(tmp_path: Path) -> None:
    """Too few labels, a label that is no choice, and a JSON file that is no list of answers."""
    data = write(tmp_path, {**GOLDEN["piqa"].files, "piqa/valid-labels.lst": "1\n0\n"})
    with pytest.raises(UserError, match=r"valid-labels.lst has 2 labels for 1 rows"):
        get_task("piqa").load(LoadOptions(data))
    write(data, {"piqa/valid-labels.lst": "2\n", "truthfulqa/mc_task.json": '{"question": "x"}'})
    with pytest.raises(UserError, match="line 1: the right answer is not one of the 2 choices"):
        get_task("piqa").load(LoadOptions(data))
    with pytest.raises(UserError, match="entry 1: no 'mc2_targets'"):
        get_task("truthfulqa_mc2").load(LoadOptions(data))
    write(data, {"truthfulqa/mc_task.json": '[{"question": "x", "mc2_targets": {"a": 2}}]'})
    with pytest.raises(UserError, match=r"'mc2_targets.a' is 2 and should be 0 or 1"):
        get_task("truthfulqa_mc2").load(LoadOptions(data))
    for right in (0, 2):
        answers = {name: int(i < right) for i, name in enumerate("abc")}
        write(data, {"truthfulqa/mc_task.json": json.dumps([{"question": "x", "mc1_targets": answers}])})
        with pytest.raises(UserError, match=f"entry 1: 'mc1_targets' has {right} true answers, not one"):
            get_task("truthfulqa_mc1").load(LoadOptions(data))


@pytest.mark.parametrize("name", ["truthfulqa_mc1", "truthfulqa_mc2"])
def test_truthfulqa_takes_neither_shots_nor_letters(name: str, tmp_path: Path) -> None:
    """In MC1's published rows the true answer always stands first: letters would say so."""
    data = write(tmp_path, GOLDEN[name].files)
    with pytest.raises(UserError, match="six worked questions are always there; omit --shots"):
        get_task(name).load(LoadOptions(data, shots=1))
    with pytest.raises(UserError, match="has no letters in its prompts; omit --scoring"):
        get_task(name).load(LoadOptions(data, scoring="letters"))


@pytest.mark.parametrize("name", PUBLIC_ROWS)
def test_all_public_rows(name: str, orin_data: Path) -> None:
    """As many as the data's own list says, each with its own name."""
    docs = get_task(name).load(LoadOptions(orin_data)).docs
    assert len(docs) == len({doc.id for doc in docs}) == PUBLIC_ROWS[name]
    assert all(doc.target in doc.labels and len(doc.labels) == len(doc.choices) for doc in docs)
