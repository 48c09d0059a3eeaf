"""BBH, DROP and GSM8K: prompts, answers taken out of texts, scores, and malformed data."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from eval.tasks.base import LoadOptions
from eval.tasks.bbh import SUBTASKS, answers_in
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.errors import UserError

COT = """CANARY do not train on this
-----
Say whether it holds.

Q: Is 1 > 2?
Options:
- Yes
- No
A: Let's think step by step.
One is less.

Nothing else matters. So the answer is No.

Q: Is 2 > 1?
Options:
- Yes
- No
A: Let's think step by step. Two is more. So the answer is Yes.

Q: Is 3 > 1?
Options:
- Yes
- No
A: Let's think step by step.
Three is more. So the answer is Yes.
"""
ROWS = [{"input": "Is 4 > 9?\nOptions:\n- Yes \n- No", "target": "No"}, {"input": "Is 9 > 4?", "target": "Yes"}]
TRAIN = [{"question": f"Train {n}?", "answer": f"It is <<{n}>>{n}.\n#### {n}"} for n in range(20)]
TEST = [
    {"question": "How much?", "answer": "A lot.\n#### 1,234"},
    {"question": "And now? ", "answer": "Less.\n#### -5"},
]


def answer(number: str = "", spans: tuple[str, ...] = (), **date: str) -> dict[str, Any]:
    return {"number": number, "date": {"day": "", "month": "", "year": "", **date}, "spans": list(spans)}


PASSAGE = "The home team won 14-7 on 3 May 1998.\n The crowd left. "
QUESTIONS = [
    {"question": "How many points?", "answer": answer("14"), "validated_answers": [answer("14"), answer("21")]},
    {
        "question": "Who won? ",
        "answer": answer(spans=("the home\nteam", "crowd")),
        "validated_answers": [answer(spans=("home team",))],
    },
    {"question": "When?", "answer": answer(day="3", month="May"), "validated_answers": [answer(year="1998"), answer()]},
]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All three in their published layouts."""
    for subtask in SUBTASKS:
        write(tmp_path / "bbh" / "cot-prompts" / f"{subtask}.txt", COT)
        write(tmp_path / "bbh" / "bbh" / f"{subtask}.json", json.dumps({"canary": "c", "examples": ROWS}))
    write(tmp_path / "gsm8k" / "train.jsonl", lines(TRAIN))
    write(tmp_path / "gsm8k" / "test.jsonl", lines(TEST))
    original = {
        "nfl_1": {"passage": PASSAGE, "qa_pairs": QUESTIONS[:2]},
        "p": {"passage": "P.", "qa_pairs": QUESTIONS[2:]},
    }
    write(tmp_path / "drop" / "drop_dataset_dev.json", json.dumps(original))
    return tmp_path


def scores(task: str, docs: list[Doc], i: int, text: str) -> list[float]:
    return list(get_task(task).score(docs[i], text).values())


@pytest.mark.parametrize(
    ("task", "split", "rows"),
    [
        ("bbh", "test", len(SUBTASKS) * len(ROWS)),
        ("bbh_direct", "test", len(SUBTASKS) * len(ROWS)),
        ("gsm8k", "test", len(TEST)),
        ("drop", "validation", len(QUESTIONS)),
    ],
)
def test_the_split_and_its_rows(data: Path, task: str, split: str, rows: int) -> None:
    """Before --limit."""
    found = get_task(task).load(LoadOptions(data, limit=1, shots=0))
    assert (len(found.docs), found.split, found.rows) == (1, split, rows)
    assert get_task(task).splits == (split,)


def test_bbh_prompt_to_the_letter(data: Path) -> None:
    """Intro, worked examples with one newline behind "step by step.", the question, and where the text ends."""
    docs = get_task("bbh").load(LoadOptions(data, shots=2)).docs
    assert len(docs) == 2 * 27
    assert (docs[2].id, docs[2].group, docs[2].target) == ("causal_judgement/0", "causal_judgement", "No")
    assert docs[2].prompt == (
        "Say whether it holds.\n\n"
        "Q: Is 1 > 2?\nOptions:\n- Yes\n- No\nA: Let's think step by step.\n"
        "One is less.\n\nNothing else matters. So the answer is No.\n\n"
        "Q: Is 2 > 1?\nOptions:\n- Yes\n- No\nA: Let's think step by step.\nTwo is more. So the answer is Yes.\n\n"
        "Q: Is 4 > 9?\nOptions:\n- Yes \n- No\nA: Let's think step by step.\n"
    )
    assert docs[2].until == ("</s>", "Q", "\n\n")
    assert docs[2].max_new_tokens == 1024
    assert docs[2].choices == ()


def test_bbh_direct_prompt_to_the_letter(data: Path) -> None:
    """The worked examples keep what stands behind "the answer is"; the listed answers are drafts."""
    docs = get_task("bbh_direct").load(LoadOptions(data, shots=1)).docs
    assert docs[2].prompt == (
        "Say whether it holds.\n\n"
        "Q: Is 1 > 2?\nOptions:\n- Yes\n- No\nA: No\n\n"
        "Q: Is 4 > 9?\nOptions:\n- Yes \n- No\nA:"
    )
    assert docs[2].choices == ("Yes\n\n", "No\n\n")
    assert docs[1].choices == ("False\n\n", "True\n\n")  # boolean_expressions lists none
    assert docs[3].choices == ()
    bare = get_task("bbh_direct").load(LoadOptions(data, shots=0)).docs
    assert bare[1].prompt == "Say whether it holds.\n\nQ: Is 9 > 4?\nA:"


def test_answers_a_question_lists() -> None:
    """Letters in brackets, words behind dashes, nothing else."""
    assert answers_in("Which?\nOptions:\n(A) a (B) one\n(B) Is it - No\n(C) 3") == ("(A)", "(B)", "(C)")
    assert answers_in("Is it?\nOptions:\n- valid \n- invalid") == ("valid", "invalid")
    assert answers_in("Options: (A) none") == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("So the answer is (B).", "(B)"),
        ("Hence the answer is  -12 .\nthe answer is 3.", "-12"),
        ("So the answer is True", "Tru"),  # the last character of the line goes, full stop or not
        ("So the answer is .", ""),
        ("So The answer is 4.", "[invalid]"),
        ("", "[invalid]"),
    ],
)
def test_bbh_takes_the_first_answer(text: str, found: str) -> None:
    """To the end of its line, without the last character."""
    assert get_task("bbh").normalize(text) == found


def test_bbh_scores_exact_matches(data: Path) -> None:
    """The chain's answer against the target; the direct text as it is."""
    docs = get_task("bbh").load(LoadOptions(data)).docs
    assert scores("bbh", docs, 2, "One is less. So the answer is No.") == [1.0]
    assert scores("bbh", docs, 2, "So the answer is no.") == [0.0]
    docs = get_task("bbh_direct").load(LoadOptions(data)).docs
    assert scores("bbh_direct", docs, 2, "No") == [1.0]
    assert scores("bbh_direct", docs, 2, "No.") == [0.0]


def test_gsm8k_prompt_to_the_letter(data: Path) -> None:
    """Worked examples drawn anew for each question, by one generator with the harness's seed."""
    docs = get_task("gsm8k").load(LoadOptions(data, shots=2)).docs
    rng = random.Random(1234)
    rng.sample(range(20), 2)
    first, second = rng.sample(range(20), 2)
    assert docs[1].prompt == (
        f"Question: Train {first}?\nAnswer: It is <<{first}>>{first}.\n#### {first}\n\n"
        f"Question: Train {second}?\nAnswer: It is <<{second}>>{second}.\n#### {second}\n\n"
        "Question: And now? \nAnswer:"
    )
    assert [doc.target for doc in docs] == ["1234", "-5"]
    assert docs[0].until == ("Question:", "</s>", "<|im_end|>")
    assert docs[0].max_new_tokens == 256
    phi3 = get_task("gsm8k").load(LoadOptions(data, shots="phi3")).docs
    assert isinstance(phi3[0].prompt, str)
    assert phi3[0].prompt.count("####") == 8
    assert get_task("gsm8k").load(LoadOptions(data, limit=1, shots=2)).docs == docs[:1]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is so.\n#### 1234", [1, 1]),
        ("#### 1,234.", [1, 1]),
        ("#### 1,234\nand #### 5", [1, 0]),  # strict takes the first, flexible the last
        ("We get $1,234.", [0, 1]),
        ("####1234", [0, 1]),
        ("1234 of 7", [0, 0]),
        ("none", [0, 0]),
    ],
)
def test_gsm8k_takes_numbers_out_of_texts(data: Path, text: str, right: list[int]) -> None:
    """Strictly behind "#### ", or the last number; commas, dollars and the full stop do not count."""
    assert scores("gsm8k", get_task("gsm8k").load(LoadOptions(data)).docs, 0, text) == right


def test_drop_prompt_to_the_letter(data: Path) -> None:
    """Passage, space, question; every annotator's answer is accepted, once."""
    docs = get_task("drop").load(LoadOptions(data)).docs
    assert [doc.id for doc in docs] == ["nfl_1/0", "nfl_1/1", "p/0"]
    assert docs[1].prompt == PASSAGE + " Who won? "
    assert (docs[0].target, docs[0].references) == ("14", ("21",))
    assert (docs[1].target, docs[1].references) == ("the home team\ncrowd", ("home team",))
    assert (docs[2].target, docs[2].references) == ("3 May", ("1998", ""))
    assert docs[0].until == (".",)
    assert docs[0].max_new_tokens == 256


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" The  Battle of an\tA ", "battle of"),
        ("U.S.-led, well-known", "us led well known"),
        ("12.50 yards", "12.5 yards"),
        ("1,000", "1000.0"),
        ("-3", "3.0"),  # the hyphen separates words
        ("$5 (five)", "5.0 five"),
        ("a", ""),
    ],
)
def test_drop_normalises_as_the_official_script(text: str, normal: str) -> None:
    """Case, articles, punctuation, hyphens, numbers, white space."""
    assert get_task("drop").normalize(text) == normal


@pytest.mark.parametrize(
    ("i", "text", "expected"),
    [
        (0, " 14", [1.0, 1.0]),
        (0, "14.0 points", [0.0, 0.67]),  # precision 1/2, recall 1
        (0, "21", [1.0, 1.0]),  # another annotator's
        (0, "fourteen", [0.0, 0.0]),
        (1, "The home-team", [1.0, 1.0]),
        (1, "crowd", [0.0, 0.5]),  # one of two spans
        (1, "the home team and crowd", [0.0, 0.67]),  # "home team" alone: precision 2/4, recall 1
        (2, "May", [0.0, 0.0]),  # the date's number is not met
        (2, "May 3", [0.0, 1.0]),  # the same words in another order
        (2, "", [0.0, 0.0]),  # an annotator without an answer does not make silence right
    ],
)
def test_drop_scores_as_the_official_script(data: Path, i: int, text: str, expected: list[float]) -> None:
    """Exact match and F1, the best over all accepted answers."""
    assert scores("drop", get_task("drop").load(LoadOptions(data)).docs, i, text) == expected


def test_drop_in_its_flat_form(tmp_path: Path) -> None:
    """The same prompts; alternatives stand between bars."""
    row = {"context": "Passage: P?\nQ.\nQuestion: How many?\nAnswer:", "ref_text": "7|a few|7"}
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "drop_v0_dev.jsonl.gz").write_bytes(gzip.compress(lines([row]).encode()))
    (doc,) = get_task("drop").load(LoadOptions(tmp_path)).docs
    assert doc.prompt == "P?\nQ. How many?"
    assert (doc.target, doc.references) == ("7", ("a few",))


@pytest.mark.parametrize(
    ("task", "file", "text", "message"),
    [
        ("bbh", "bbh/bbh/snarks.json", "{", "snarks.json is not valid JSON"),
        ("bbh", "bbh/bbh/snarks.json", "{}", "snarks.json: no 'examples'"),
        ("bbh", "bbh/bbh/snarks.json", '{"examples": [{"input": "x", "target": 3}]}', "'examples.0.target' is 3 and"),
        ("bbh", "bbh/cot-prompts/snarks.txt", "Q: x\nA: y", "snarks.txt does not hold a canary line"),
        ("bbh", "bbh/cot-prompts/snarks.txt", "c\n-----\nI.\n\nQ: x\nA: y\n", "snarks.txt, worked example 1: no"),
        ("bbh_direct", "bbh/cot-prompts/snarks.txt", COT.replace("is No.", "No."), "worked example 1: no"),
        ("gsm8k", "gsm8k/test.jsonl", '\n{"question": "x", "answer": "3"}', "test.jsonl, line 2: .*'#### '"),
        ("gsm8k", "gsm8k/train.jsonl", '{"question": "x"}', "train.jsonl, line 1: no 'answer'"),
        ("gsm8k", "gsm8k/train.jsonl", lines(TRAIN[:3]), "gsm8k has 3 worked examples here, not 5"),
        ("drop", "drop/drop_dataset_dev.json", '{"p": {"passage": "x"}}', "no 'p.qa_pairs'"),
        (
            "drop",
            "drop/drop_dataset_dev.json",
            '{"p": {"passage": "x", "qa_pairs": [{}]}}',
            "no 'p.qa_pairs.0.question'",
        ),
        (
            "drop",
            "drop/drop_dataset_dev.json",
            '{"p": {"passage": "x", "qa_pairs": [{"question": "y", "answer": {"number": ""}}]}}',
            "p, question 1: an answer has neither",
        ),
    ],
)
def test_malformed_data_is_named(data: Path, task: str, file: str, text: str, message: str) -> None:
    """With file and row."""
    write(data / file, text)
    with pytest.raises(UserError, match=message):
        get_task(task).load(LoadOptions(data))


def test_data_that_is_not_on_the_hub_is_asked_for() -> None:
    """With the option and the files."""
    with pytest.raises(UserError, match="bbh is read from its published files; --data names the folder that holds bbh"):
        get_task("bbh").load(LoadOptions())
    with pytest.raises(UserError, match=r"drop .*--data names the folder that holds drop/drop_dataset_dev.json"):
        get_task("drop").load(LoadOptions())


def test_drop_has_no_worked_examples(data: Path) -> None:
    """More than none are refused."""
    with pytest.raises(UserError, match="drop has 0 worked examples here, not 3"):
        get_task("drop").load(LoadOptions(data, shots=3))


def test_every_public_row_loads(orin_data: Path) -> None:
    """Published sizes: 6,511 BBH questions, 9,536 of DROP's dev set."""
    for task in ("bbh", "bbh_direct"):
        docs = get_task(task).load(LoadOptions(orin_data)).docs
        assert len(docs) == len({doc.id for doc in docs}) == 6511
        sizes = {subtask: sum(doc.group == subtask for doc in docs) for subtask in SUBTASKS}
        odd = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
        assert sizes == dict.fromkeys(SUBTASKS, 250) | odd
    # Listed answers hold the target, but for the three that the data's own oddities leave out.
    listed = [doc for doc in docs if doc.choices]
    assert len(listed) == 6511 - 4 * 250
    assert sum(f"{doc.target}\n\n" not in doc.choices for doc in listed) == 3
    docs = get_task("drop").load(LoadOptions(orin_data)).docs
    assert len(docs) == 9536
    assert sum(bool(doc.references) for doc in docs) > 3000
