"""AGIEval, TriviaQA, MMLU-Pro and GSM8K with chain of thought: prompts, scores and malformed data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.tasks.base import LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from tests.support.choice_rows import jsonl, write
from tests.support.phi3_rows import AGIEVAL
from tests.support.published import FILES


def docs(task: str, tmp_path: Path, **options: Any) -> list[Doc]:
    return get_task(task).load(LoadOptions(write(tmp_path, FILES[task]), **options)).docs


@pytest.mark.parametrize(
    ("task", "split", "rows"),
    [("agieval", "test", 30), ("triviaqa", "validation", 3), ("mmlu_pro", "test", 3), ("gsm8k_cot", "test", 3)],
)
def test_the_split_and_its_rows(task: str, split: str, rows: int, tmp_path: Path) -> None:
    """Before --limit."""
    found = get_task(task).load(LoadOptions(write(tmp_path, FILES[task]), limit=1))
    assert (len(found.docs), found.split, found.rows) == (1, split, rows)
    assert get_task(task).splits == (split,)


def test_agieval_prompts_to_the_letter(tmp_path: Path) -> None:
    """A passage stands right in front of "Q:"; choices keep their letters and their blanks."""
    found = {doc.id: doc for doc in docs("agieval", tmp_path)}
    assert len(found) == 30
    doc = found["aqua-rat/0"]
    assert doc.prompt == (
        "Q: Add: +45 and -30 Answer Choices: (A)-30 (B)+30   (C)0 (D)15 (E)-15\nA: Among A through E, the answer is"
    )
    assert doc.choices == (" (A)-30", " (B)+30  ", " (C)0", " (D)15", " (E)-15")
    assert (doc.group, doc.labels, doc.target, doc.single_token) == ("aqua-rat", tuple("ABCDE"), "D", False)
    assert found["sat-en/1"].prompt == (
        "Al fell.\nBo laughed.Q: Who fell?  Answer Choices: (A)Al (B)Bo (C)Eve\nA: Among A through C, the answer is"
    )
    doc = found["math/0"]
    assert (doc.prompt, doc.target) == ("Q: What is $1+1$?\nA: The answer is", "2")
    assert (doc.mode, doc.until, doc.max_new_tokens) == ("generate", ("Q:",), 32)


def test_agieval_counts_a_number_under_both_metrics(tmp_path: Path) -> None:
    """The harness has no acc_norm of texts."""
    task, doc = get_task("agieval"), next(doc for doc in docs("agieval", tmp_path) if doc.id == "math/2")
    assert task.score(doc, " $x=-3/1$.\n") == {"acc": 1.0, "acc_norm": 1.0}
    assert task.score(doc, "none") == {"acc": 0.0, "acc_norm": 0.0}
    assert (task.normalize("It is $y = 4$."), task.normalize("none")) == ("4", "")


def test_triviaqa_prompt_to_the_letter(tmp_path: Path) -> None:
    """A question mark behind each question; a worked example has the first alias."""
    found = docs("triviaqa", tmp_path)
    assert found[0].prompt == "Question: Which planet is nearest to the sun??\nAnswer:"
    assert (found[0].target, found[0].references) == ("Mercury (planet)", ("planet mercury", 'Hermes\' "star"'))
    assert (found[0].until, found[0].max_new_tokens, found[0].choices) == (("\n", ".", ","), 256, ())
    one = docs("triviaqa", tmp_path, shots=1)[0].prompt
    assert isinstance(one, str)
    assert one.startswith("Question: Train ")
    assert one.partition("?\nAnswer: No. ")[2].partition("\n\n")[2] == found[0].prompt


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" Mercury (planet)", 1.0),
        ("MERCURY PLANET", 1.0),
        (' hermes star" ', 1.0),
        ("the planet mercury", 0.0),
        ("Mercury", 0.0),
        ("", 0.0),
    ],
)
def test_triviaqa_takes_any_alias(text: str, right: float, tmp_path: Path) -> None:
    """Case, punctuation and white space around do not count; articles do."""
    assert get_task("triviaqa").score(docs("triviaqa", tmp_path)[0], text) == {"exact_match": right}


def test_mmlu_pro_prompt_to_the_letter(tmp_path: Path) -> None:
    """The subject's own worked examples; questions as they are, options stripped, subjects in their order."""
    found = docs("mmlu_pro", tmp_path, shots=1)
    assert [doc.id for doc in found] == ["computer_science/0", "math/0", "math/1"]
    assert found[0].prompt == (
        "The following are multiple choice questions (with answers) about computer science. Think step by step and "
        'then finish your answer with "the answer is (X)" where X is the correct letter choice.\n'
        "Question:\ncomputer science 0?\nOptions:\nA. no\nB. yes\nAnswer: Let's think step by step. It is 0. The "
        "answer is (A).\n\n"
        "Question:\nBits of\na byte?\nOptions:\nA. four\nB. eight\nAnswer: Let's think step by step."
    )
    assert (found[0].target, found[1].target) == ("B", "C")
    assert (found[0].until, found[0].max_new_tokens) == (("Question:",), 2048)
    assert "\nJ. 9\nAnswer:" in str(found[1].prompt)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is. The answer is (B).", 1.0),
        ("the answer is B. No: the answer is (A).", 1.0),
        ("The answer is (b).", 0.0),
        ("Answer: B", 0.0),
        ("", 0.0),
    ],
)
def test_mmlu_pro_takes_the_first_letter(text: str, right: float, tmp_path: Path) -> None:
    assert get_task("mmlu_pro").score(docs("mmlu_pro", tmp_path)[0], text) == {"exact_match": right}


def test_gsm8k_cot_prompt_to_the_letter(tmp_path: Path) -> None:
    """Eight examples that are always the same; fewer are the first of them; more are refused."""
    prompts = [str(doc.prompt) for doc in docs("gsm8k_cot", tmp_path)]
    assert all(prompt.startswith("Q: There are 15 trees in the grove. Grove") for prompt in prompts)
    assert prompts[0].count("The answer is ") == 8
    assert prompts[0].endswith("23 - 15 is 8. The answer is 8.\n\nQ: Tom has 3 apples and eats one. How many?\nA:")
    (first, *_) = docs("gsm8k_cot", tmp_path, shots=0)
    assert first.prompt == "Q: Tom has 3 apples and eats one. How many?\nA:"
    assert (first.target, first.until, first.max_new_tokens) == ("2", ("Q:", "</s>", "<|im_end|>"), 256)
    with pytest.raises(UserError, match="gsm8k_cot has 8 worked examples here, not 9"):
        docs("gsm8k_cot", tmp_path, shots=9)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3 - 1 = 2. The answer is 2.", [1, 1]),
        ("The answer is 2. Or 3.", [1, 0]),
        ("The answer is 2", [0, 1]),  # one character is wanted behind the number
        ("The answer is 22", [1, 0]),  # ... so that a last one of two is taken for it
        ("#### 2", [0, 1]),
        ("none", [0, 0]),
    ],
)
def test_gsm8k_cot_takes_numbers_out_of_texts(text: str, right: list[int], tmp_path: Path) -> None:
    assert list(get_task("gsm8k_cot").score(docs("gsm8k_cot", tmp_path)[0], text).values()) == right


CHOICES, MATH = AGIEVAL["choices"][0], AGIEVAL["math"][0]
QUESTION = {"question": "q", "options": ["a", "b"], "answer": "A", "category": "math", "cot_content": "c"}


@pytest.mark.parametrize(
    ("task", "file", "row", "message"),
    [
        ("agieval", "lsat-ar", {**CHOICES, "label": "F"}, "the right answer is not one of the 5 choices"),
        ("agieval", "lsat-ar", {**CHOICES, "label": "AB"}, "the right answer is not one of the 5 choices"),
        ("agieval", "lsat-ar", {**CHOICES, "label": ""}, "the right answer is not one of the 5 choices"),
        ("agieval", "lsat-ar", {**CHOICES, "label": None}, "'label' is None and should be a valid string"),
        ("agieval", "lsat-ar", {**CHOICES, "options": ["(A)x"]}, "has 1 choices"),
        ("agieval", "lsat-ar", {"query": "q", "choices": ["a", "b"], "gold": [-1]}, "is not one of the 2 choices"),
        ("agieval", "lsat-ar", {"query": "q", "choices": ["a", "b"], "gold": [0, 2]}, "is not one of the 2 choices"),
        ("agieval", "lsat-ar", {"query": "q", "choices": ["a", "b"], "gold": []}, "is not one of the 2 choices"),
        ("agieval", "math", {**MATH, "answer": None}, "'answer' is None and should be a valid string"),
        ("triviaqa", "validation", {"question": "q", "answer": {"aliases": []}}, "'answer.aliases' is empty"),
        ("triviaqa", "validation", {"question": "q", "answer": {}}, "no 'answer.aliases'"),
        ("mmlu_pro", "test", {**QUESTION, "answer": "C"}, "the answer is not one of the 2 options"),
        ("mmlu_pro", "test", {**QUESTION, "answer": "K"}, "'answer' is 'K' and should be 'A', 'B'"),
        ("mmlu_pro", "test", {**QUESTION, "category": "maths"}, "'category' is 'maths' and should be 'biology'"),
        ("mmlu_pro", "validation", {**QUESTION, "cot_content": None}, "'cot_content' is None and should be"),
    ],
)
def test_a_malformed_row_is_named(task: str, file: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    """By file and line, and what is wrong."""
    data = write(tmp_path, FILES[task])
    name = f"{task}/{file}.jsonl"
    write(data, {name: FILES[task][name] + jsonl(row)})
    line = FILES[task][name].count("\n") + 1
    with pytest.raises(UserError, match=f"{name}, line {line}: .*{message}"):
        get_task(task).load(LoadOptions(data))


def test_more_worked_examples_than_there_are(tmp_path: Path) -> None:
    """TriviaQA draws one more than it shows; MMLU-Pro has each subject's own; AGIEval has none."""
    for task, shots, message in (
        ("triviaqa", 8, "triviaqa has 7 worked examples here, not 8"),
        ("mmlu_pro", 7, "mmlu_pro has 6 worked examples for computer_science, not 7"),
        ("agieval", 1, "agieval has 0 worked examples here, not 1"),
    ):
        with pytest.raises(UserError, match=message):
            docs(task, tmp_path, shots=shots)
    assert len(docs("triviaqa", tmp_path, shots=7)) == 3
    assert docs("triviaqa", tmp_path, shots="phi3") == docs("triviaqa", tmp_path, shots=5)


def test_triviaqa_reads_train_only_for_worked_examples(tmp_path: Path) -> None:
    data = write(tmp_path, {"triviaqa/validation.jsonl": FILES["triviaqa"]["triviaqa/validation.jsonl"]})
    assert len(get_task("triviaqa").load(LoadOptions(data)).docs) == 3
    with pytest.raises(UserError, match=r"train.jsonl does not exist; .*a copy of mandarjoshi/trivia_qa"):
        get_task("triviaqa").load(LoadOptions(data, shots=1))


def test_agieval_is_read_from_files(tmp_path: Path) -> None:
    """Of the hub no revision is pinned."""
    with pytest.raises(UserError, match="agieval is read from its published files; --data names"):
        get_task("agieval").load(LoadOptions())


@pytest.mark.parametrize(
    ("task", "repository", "config", "splits"),
    [
        ("triviaqa", "mandarjoshi/trivia_qa", "rc.nocontext", ["train", "validation"]),
        ("mmlu_pro", "TIGER-Lab/MMLU-Pro", None, ["validation", "test"]),
        ("gsm8k", "openai/gsm8k", "main", ["train", "test"]),
        ("gsm8k_cot", "openai/gsm8k", "main", ["test"]),
        ("humaneval", "openai/openai_humaneval", "openai_humaneval", ["test"]),
        ("mbpp", "google-research-datasets/mbpp", "full", ["test"]),
    ],
)
def test_the_hubs_rows_give_the_same_questions(
    task: str, repository: str, config: str | None, splits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a pinned revision, and no split that is not needed; a malformed row is named."""
    import datasets

    rows = {Path(name).stem: [json.loads(line) for line in text.splitlines()] for name, text in FILES[task].items()}
    if splits == ["test"]:  # whatever the published file is called
        rows = {"test": [row for part in rows.values() for row in part]}
    asked = []
    shots = 0 if task == "humaneval" else 2

    def load(name: str, subset: str | None, *, split: str, revision: str) -> list[dict[str, Any]]:
        assert (name, subset, len(revision)) == (repository, config, 40)
        asked.append(split)
        return rows[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert get_task(task).load(LoadOptions(shots=shots)).docs == docs(task, tmp_path, shots=shots)
    assert asked == splits
    rows[splits[-1]] = [{"question": 3}]
    part = f"{config}, {splits[-1]}" if config else splits[-1]
    with pytest.raises(UserError, match=f"{repository}, {part}, row 0: "):
        get_task(task).load(LoadOptions(shots=0))
