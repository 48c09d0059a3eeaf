"""Our tasks ask what lm-evaluation-harness's ask, and give an answer the score it gives."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.harness.model import stops_and_bound
from eval.predict import cut_before, predict
from eval.tasks import mmlu_pro
from eval.tasks.base import LETTERS, LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.mmlu import SUBJECTS
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Scored
from tests.support.harness import TASKS, asked, local_task
from tests.support.harness_cases import (
    N_REAL,
    REAL,
    WRITTEN,
    Case,
    agieval_cases,
    anli_case,
    bbh_case,
    mmlu_pro_case,
    real_case,
    spread,
    write_lines,
    written_case,
)
from tests.support.phi3_rows import HUMANEVAL, MBPP


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Tokenizer:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return Tokenizer.from_gguf(GGUFFile.open(out))


def mmlu_rows(data: Path, subject: str, split: str) -> list[dict[str, Any]]:
    with (data / "mmlu" / split / f"{subject}_{split}.csv").open(newline="", encoding="utf-8") as file:
        return [
            {"question": question, "subject": subject, "choices": choices, "answer": LETTERS.index(answer)}
            for question, *choices, answer in csv.reader(file)
        ]


SOME_OR_ALL = pytest.mark.parametrize(
    "n", [pytest.param(N_REAL, id="some rows"), pytest.param(None, id="all rows", marks=pytest.mark.slow)]
)
"""How many real questions; where a task has many parts, the first and last two of each are some."""


def some(rows: Sequence[Any], n: int | None) -> list[Any]:
    """The first and last two of ``rows``, or all."""
    return [*rows[:2], *rows[-2:]] if n else list(rows)


@SOME_OR_ALL
def test_mmlu_asks_what_the_harness_asks(n: int | None, tmp_path: Path, orin_data: Path) -> None:
    """5-shot prompts, continuations and targets of every subject."""
    docs: dict[str, list[Any]] = {}
    for doc in get_task("mmlu").load(LoadOptions(orin_data)).docs:
        docs.setdefault(doc.group, []).append(doc)
    for subject in SUBJECTS:
        rows = mmlu_rows(orin_data, subject, "test")
        assert len(docs[subject]) == len(rows)
        splits = {"test": some(rows, n), "dev": mmlu_rows(orin_data, subject, "dev")}
        task = local_task(f"mmlu/default/mmlu_{subject}.yaml", splits, tmp_path / subject, 5)
        ours = some(docs[subject], n)
        assert asked(task) == [[(doc.prompt, choice) for choice in doc.choices] for doc in ours]
        assert [LETTERS[task.doc_to_target(row)] for row in task.eval_docs] == [doc.target for doc in ours]


def our_requests(doc: Doc) -> list[tuple[Any, ...]]:
    if doc.mode == "choose":
        return list(zip(doc.prompts or [doc.prompt] * len(doc.choices), doc.choices, strict=True))
    return [(doc.prompt, list(doc.until), doc.max_new_tokens)]


def their_requests(task: ConfigurableTask) -> list[list[tuple[Any, ...]]]:
    if task.OUTPUT_TYPE == "multiple_choice":
        return asked(task)
    return [[(prompt, *stops_and_bound(arguments))] for ((prompt, arguments),) in asked(task)]


def our_target(doc: Doc) -> object:
    if doc.right:
        return [int(label in doc.right) for label in doc.labels]
    return doc.labels.index(doc.target) if doc.mode == "choose" else {doc.target, *doc.references}


def their_target(task: ConfigurableTask, row: dict[str, Any]) -> object:
    if task.task_name == "truthfulqa_mc2":
        return row["mc2_targets"]["labels"]
    if "answers" in row:  # DROP's accepted answers, each of one span or several
        return {"\n".join(answer) for answer in row["answers"]}
    gold = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
    if task.OUTPUT_TYPE == "generate_until":  # GSM8K's metric ignores all but the number
        return {*gold} if isinstance(gold, list) else {str(gold).rpartition("#### ")[2]}
    if isinstance(gold, list):  # AGIEval's true choices
        (gold,) = gold
    return task.doc_to_choice(row).index(gold) if isinstance(gold, str) else gold


def texts_for(doc: Doc) -> list[str]:
    """Right, wrong, empty and half right answers in the forms that models give them."""
    target = doc.target
    forms = ["", "{}", " {}", "So the answer is {}.", "the answer is {}. Or not.", "#### {}", "It is ${},000 or {}."]
    return [*(form.replace("{}", target) for form in forms), f"the {target.lower()} - 7.0", f"#### {target}1."]


Texts = Callable[[Doc], list[str]]


def check_scores(
    built: ConfigurableTask, task: str, docs: Sequence[Doc], tokenizer: Tokenizer, texts: Texts = texts_for
) -> None:
    """The same answers get the same scores under every metric both have."""
    ours, rng = get_task(task), np.random.default_rng(7)
    questions = encode_docs(docs, tokenizer)
    rows = list(built.eval_docs)
    for row, doc, question in zip(rows, docs, questions, strict=True):
        if doc.mode == "choose":
            sums = rng.normal(-30.0, 4.0, len(doc.choices))
            theirs = built.process_results(row, [(value, False) for value in sums])
            scored = Scored(tuple(np.array([value]) for value in sums), (False,) * len(sums))
            found = predict(ours, question, scored, tokenizer).scores
            assert {name: found["mc2" if "mc2" in found else name] for name in theirs} == pytest.approx(theirs)
    if docs[0].mode == "generate":
        for k in range(len(texts(docs[0]))):
            for instance, doc in zip(built.instances, docs, strict=True):
                instance.resps = [cut_before(texts(doc)[k], doc.until)]
            built.apply_filters()
            for row, doc, instance in zip(rows, docs, built.instances, strict=True):
                found = ours.score(doc, instance.resps[0])
                for name, filtered in instance.filtered_resps.items():
                    for metric, value in built.process_results(row, [filtered]).items():
                        key = name if name in found else metric
                        assert (key, instance.resps[0], found[key]) == (key, instance.resps[0], value)


def check_same(
    case: Case,
    folder: Path,
    tokenizer: Tokenizer,
    docs: Sequence[Doc],
    *,
    shots: int | None = None,
    texts: Texts = texts_for,
) -> None:
    """Prompts, continuations or stop texts, targets, and scores."""
    built = local_task(case.yaml, case.splits, folder, shots)
    assert their_requests(built) == [our_requests(doc) for doc in docs]
    assert [their_target(built, row) for row in built.eval_docs] == [our_target(doc) for doc in docs]
    check_scores(built, case.task, docs, tokenizer, texts)


@SOME_OR_ALL
@pytest.mark.parametrize("task", REAL)
def test_real_questions_are_asked_as_the_harness_asks_them(
    task: str, n: int | None, tmp_path: Path, orin_data: Path, tokenizer: Tokenizer
) -> None:
    """Evenly drawn from all public rows, or all of them."""
    case = real_case(task, orin_data, n)
    check_same(case, tmp_path, tokenizer, get_task(task).load(LoadOptions(orin_data, limit=n)).docs)


@pytest.mark.parametrize("task", WRITTEN)
def test_written_questions_are_asked_as_the_harness_asks_them(task: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Rows in the published files' form."""
    case = written_case(task, tmp_path / "data")
    check_same(case, tmp_path / "rows", tokenizer, get_task(task).load(LoadOptions(case.data)).docs)


@SOME_OR_ALL
@pytest.mark.parametrize("part", [1, 2, 3])
def test_anli_is_asked_as_the_harness_asks_it(
    part: int, n: int | None, tmp_path: Path, orin_data: Path, tokenizer: Tokenizer
) -> None:
    """Each round is a task of its own there, a group here."""
    case = anli_case(orin_data, part, n)
    docs = [doc for doc in get_task("anli").load(LoadOptions(orin_data)).docs if doc.group.lower() == f"r{part}"]
    check_same(case, tmp_path, tokenizer, spread(docs, n))


@SOME_OR_ALL
@pytest.mark.parametrize("direct", [False, True], ids=["chain of thought", "direct"])
def test_bbh_is_asked_as_the_harness_asks_it(
    direct: bool, n: int | None, tmp_path: Path, orin_data: Path, tokenizer: Tokenizer
) -> None:
    """The questions of all 27 sub-tasks, with the worked examples that the harness carries."""
    docs: dict[str, list[Doc]] = {}
    for doc in get_task("bbh_direct" if direct else "bbh").load(LoadOptions(orin_data)).docs:
        docs.setdefault(doc.group, []).append(doc)
    assert len(docs) == 27
    for subtask, asked_docs in docs.items():
        case = bbh_case(orin_data, subtask, direct=direct)
        assert len(case.rows) == len(asked_docs)
        part = replace(case, rows=some(case.rows, n))
        check_same(part, tmp_path / subtask, tokenizer, some(asked_docs, n))


def test_agieval_is_asked_as_the_harness_asks_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The English sub-tasks in the order of the harness's group, each of which is a task of its own there."""
    cases = agieval_cases(tmp_path / "data")
    docs: dict[str, list[Doc]] = {}
    for doc in get_task("agieval").load(LoadOptions(tmp_path / "data")).docs:
        docs.setdefault(doc.group, []).append(doc)
    group = load_yaml(TASKS / "agieval" / "agieval_en.yaml")
    assert [f"agieval_{subtask.replace('-', '_')}" for subtask in docs] == group["task"]
    for subtask, case in cases.items():
        check_same(case, tmp_path / subtask, tokenizer, docs[subtask])


def test_agieval_s_several_true_choices_are_the_harness_s(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """In the form of the hub: any of them counts."""
    cases = agieval_cases(tmp_path / "data")
    row = {
        "query": "Q: Which? Answer Choices: (A)a (B)bb (C)c\nA:",
        "choices": ["(A)a", "(B)bb", "(C)c"],
        "gold": [2, 0],
    }
    write_lines(tmp_path / "data" / "agieval" / "lsat-ar.jsonl", [row])
    (doc,) = [doc for doc in get_task("agieval").load(LoadOptions(tmp_path / "data")).docs if doc.group == "lsat-ar"]
    assert (doc.target, doc.right) == ("A", ("A", "C"))
    built = local_task(cases["lsat-ar"].yaml, {"test": [row]}, tmp_path / "rows", None)
    (question,) = encode_docs([doc], tokenizer)
    for sums in itertools.permutations((-3.0, -3.1, -4.0)):
        scored = Scored(tuple(np.array([value]) for value in sums), (False,) * len(sums))
        theirs = built.process_results(row, [(value, False) for value in sums])
        assert predict(get_task("agieval"), question, scored, tokenizer).scores == theirs


@pytest.mark.parametrize("subject", ["math", "computer_science"])
@pytest.mark.parametrize("shots", [None, 0, 2])
def test_mmlu_pro_is_asked_as_the_harness_asks_it(
    subject: str, shots: int | None, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Each subject is a task of its own there, and takes its rows and its worked examples out of all."""
    case = mmlu_pro_case(tmp_path / "data", subject)
    docs = get_task("mmlu_pro").load(LoadOptions(case.data, shots=shots)).docs
    mine = [doc for doc in docs if doc.group == subject]
    assert len(mine) == {"math": 2, "computer_science": 1}[subject]
    check_same(case, tmp_path / "rows", tokenizer, mine, shots=shots)


def test_mmlu_pro_has_the_harness_s_subjects() -> None:
    group = load_yaml(TASKS / "mmlu_pro" / "_mmlu_pro.yaml")
    assert [f"mmlu_pro_{subject}" for subject in mmlu_pro.SUBJECTS] == group["task"]


@pytest.mark.parametrize("task", ["triviaqa", "gsm8k", "gsm8k_cot"])
def test_worked_examples_are_the_harness_s(task: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """None, and two: drawn anew for each question, or the first of a fixed list."""
    case = written_case(task, tmp_path / "data")
    for shots in (0, 2):
        docs = get_task(task).load(LoadOptions(case.data, shots=shots)).docs
        check_same(case, tmp_path / f"{shots}", tokenizer, docs, shots=shots)


class CodeEval:
    """What the harness's two tasks take from the hub's metric ``code_eval``: candidate and test are one program."""

    def compute(
        self, *, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]
    ) -> tuple[dict[str, float], dict[int, Any]]:
        assert list(k) == [1]
        found = []
        for test, candidates in zip(references, predictions, strict=True):
            (candidate,) = candidates
            done = subprocess.run(
                [sys.executable, "-I", "-c", f"{candidate}\n{test}"], check=False, capture_output=True
            )
            found.append(done.returncode == 0)
        return {"pass@1": float(np.mean(found))}, {}


@pytest.mark.parametrize("task", ["humaneval", "mbpp"])
@pytest.mark.parametrize("shots", [None, 0])
def test_code_is_asked_and_judged_as_the_harness_does(
    task: str, shots: int | None, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is what the harness would run; where a text ends decides."""
    monkeypatch.setattr("evaluate.load", lambda _: CodeEval())
    solutions = {row["task_id"]: row["canonical_solution"] for row in HUMANEVAL}
    solutions |= {str(row["task_id"]): row["code"] for row in MBPP}

    def texts(doc: Doc) -> list[str]:
        right = solutions[doc.id]
        return [right, f"{right}\nprint(1/0)", f"{right}\n[DONE]\n1/0", right.replace("return", "return 7 +"), "", " x"]

    case = written_case(task, tmp_path / "data")
    docs = get_task(task).load(LoadOptions(case.data, shots=shots)).docs
    assert len(docs) == len(case.rows)
    check_same(case, tmp_path / "rows", tokenizer, docs, shots=shots, texts=texts)
    ours = [get_task(task).score(docs[0], cut_before(text, docs[0].until)) for text in texts(docs[0])]
    assert [value for scores in ours for value in scores.values()] == [1, task == "humaneval", task == "mbpp", 0, 0, 0]
