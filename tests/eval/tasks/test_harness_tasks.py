"""Our tasks ask what lm-evaluation-harness's ask, and give an answer the score it gives."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from lm_eval.api.task import ConfigurableTask

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.harness import stops_and_bound
from eval.predict import cut_before, predict
from eval.tasks.base import LETTERS, LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.mmlu import SUBJECTS
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Scored
from tests.support.harness import asked, local_task
from tests.support.harness_cases import (
    N_REAL,
    REAL,
    WRITTEN,
    Case,
    anli_case,
    bbh_case,
    real_case,
    spread,
    written_case,
)


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
    if "mc2_targets" in row:
        return row["mc2_targets"]["labels"]
    if "answers" in row:  # DROP's accepted answers, each of one span or several
        return {"\n".join(answer) for answer in row["answers"]}
    if task.OUTPUT_TYPE == "generate_until":  # GSM8K's metric ignores all but the number
        return {str(task.doc_to_target(row)).rpartition("#### ")[2]}
    gold = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
    return task.doc_to_choice(row).index(gold) if isinstance(gold, str) else gold


def texts_for(doc: Doc) -> list[str]:
    """Right, wrong, empty and half right answers in the forms that models give them."""
    target = doc.target
    forms = ["", "{}", " {}", "So the answer is {}.", "the answer is {}. Or not.", "#### {}", "It is ${},000 or {}."]
    return [*(form.replace("{}", target) for form in forms), f"the {target.lower()} - 7.0", f"#### {target}1."]


def check_scores(built: ConfigurableTask, task: str, docs: Sequence[Doc], tokenizer: Tokenizer) -> None:
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
        for k in range(len(texts_for(docs[0]))):
            for instance, doc in zip(built.instances, docs, strict=True):
                instance.resps = [cut_before(texts_for(doc)[k], doc.until)]
            built.apply_filters()
            for row, doc, instance in zip(rows, docs, built.instances, strict=True):
                found = ours.score(doc, instance.resps[0])
                for name, filtered in instance.filtered_resps.items():
                    for metric, value in built.process_results(row, [filtered]).items():
                        key = name if name in found else metric
                        assert (key, instance.resps[0], found[key]) == (key, instance.resps[0], value)


def check_same(
    case: Case, folder: Path, tokenizer: Tokenizer, docs: Sequence[Doc], *, shots: int | None = None
) -> None:
    """Prompts, continuations or stop texts, targets, and scores."""
    built = local_task(case.yaml, case.splits, folder, shots)
    assert their_requests(built) == [our_requests(doc) for doc in docs]
    assert [their_target(built, row) for row in built.eval_docs] == [our_target(doc) for doc in docs]
    check_scores(built, case.task, docs, tokenizer)


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
