"""HellaSwag as the 2023 challenge asked it: what that year's harness asked, from original rows and from copies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from eval.encoding import Question, encode_docs
from eval.evaluate import prepare
from eval.hf_encoder import HFEncoder
from eval.predict import predict
from eval.tasks.base import Loaded, LoadOptions
from eval.tasks.hellaswag import HellaSwag
from eval.tasks.registry import TASKS
from orin_runner.errors import UserError
from orin_runner.requests import Scored, ScoreRequest
from tests.support import harness_2023
from tests.support.choice_rows import jsonl, write
from tests.support.harness_cases import HELLASWAG
from tests.support.hellaswag_pairs import PAIRS
from tests.support.real_tokenizers import unpacked

FILE = "hellaswag/hellaswag_val.jsonl"
BOS = "<s>"
PIECES = (
    *("[header]", "[title]", "[step]", "[substeps]", "[www.a.org]", "[a | b]", "[", "]", " ", "  ", "   "),
    *("He", "then the Man", "É", "ß", "日本", "runs", "u.s.", ".", ". ", "..", '"', "NASA", "5", "!", "\u00a0", "\t"),
)


def random_rows(n: int) -> list[dict[str, Any]]:
    """Rows of marks, blanks and letters of one and of several bytes, in every order."""
    random = Random(2023)

    def text(least: int) -> str:
        # A word at the end: an ending of no character has no score per character.
        return " ".join([*random.choices(PIECES, k=random.randint(least, 9)), random.choice(("ends", "été."))])

    return [
        {
            "activity_label": random.choice(("Ski", "Food  and [x] Fun", "Élan")),
            "ctx_a": text(0),
            "ctx_b": random.choice(("", "he", "the Lady in RED", '" a dive', "5 men", text(1))),
            "endings": [text(0) for _ in range(4)],
            "label": random.randrange(4),
        }
        for _ in range(n)
    ]


def loaded(folder: Path, rows: Sequence[dict[str, Any]]) -> Loaded:
    return HellaSwag().load(LoadOptions(write(folder, {FILE: jsonl(*rows)}), protocol="2023"))


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A tokenizer that puts BOS in front of plain text, as LLaMA's does."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS).save_pretrained(folder)
    return folder


def check_requests(rows: Sequence[dict[str, Any]], questions: Sequence[Question], folder: Path) -> None:
    """Token by token what the harness of 2023 asked with this tokenizer, and no BOS, which the tokenizer would add."""
    tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    for row, question in zip(rows, questions, strict=True):
        request, doc = question.request, question.doc
        assert isinstance(request, ScoreRequest)
        found = [(request.prompt.tolist(), tokens.tolist()) for tokens in request.continuations]
        assert found == harness_2023.requests(row, tokenizer)
        assert request.prompt[0] != tokenizer.bos_token_id
        assert doc.labels.index(doc.target) == int(row["label"])


@pytest.mark.parametrize(
    "rows", [HELLASWAG, [published for published, _ in PAIRS], random_rows(300)], ids=["written", "pairs", "random"]
)
def test_the_requests_are_those_of_2023(rows: list[dict[str, Any]], with_bos: Path, tmp_path: Path) -> None:
    """Of rows in the published form."""
    found = loaded(tmp_path, rows)
    assert found.lacking == ()
    check_requests(rows, encode_docs(found.docs, HFEncoder(with_bos, frozenset())), with_bos)


def test_by_itself_the_task_has_the_tokenizers_bos(with_bos: Path, tmp_path: Path) -> None:
    """As today's harness asks; texts and answers are the same."""
    data = write(tmp_path, {FILE: jsonl(*HELLASWAG)})
    encoder = HFEncoder(with_bos, frozenset())
    ours, theirs = (
        encode_docs(HellaSwag().load(LoadOptions(data, protocol=year)).docs, encoder) for year in (None, "2023")
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.request.prompt.tolist() == [1, *other.request.prompt.tolist()]
        assert (one.doc.prompt, one.doc.choices) == (other.doc.prompt, other.doc.choices)


def test_conversations_and_questions_of_a_protocol_keep_their_places(with_bos: Path, tmp_path: Path) -> None:
    """Questions with BOS and without, mixed, come back in order."""
    data = write(tmp_path, {FILE: jsonl(*HELLASWAG)})
    plain, bare = (HellaSwag().load(LoadOptions(data, protocol=year)).docs for year in (None, "2023"))
    mixed = [doc for pair in zip(plain, bare, strict=True) for doc in pair]
    found = encode_docs(mixed, HFEncoder(with_bos, frozenset()))
    assert [question.doc for question in found] == mixed
    assert [bool(question.request.prompt[0] == 1) for question in found] == [True, False] * len(plain)


def test_scores_are_those_of_2023(with_bos: Path, tmp_path: Path) -> None:
    """``acc_norm`` by characters, a space that a mark left in front among them: not by bytes, not by tokens."""
    rows = random_rows(300)
    questions = encode_docs(loaded(tmp_path, rows).docs, encoder := HFEncoder(with_bos, frozenset()))
    by_bytes = 0
    for row, question, rng in zip(rows, questions, np.random.default_rng(7).spawn(len(rows)), strict=True):
        sums = rng.normal(-30.0, 3.0, 4)
        result = Scored(tuple(np.array([value]) for value in sums), (False,) * 4)
        found = predict(HellaSwag(), question, result, encoder).scores
        expected = harness_2023.scores(row, sums)
        assert {name: found[name] for name in expected} == expected
        by_bytes += found["acc_bytes"] != expected["acc_norm"]
    assert by_bytes


def test_copies_without_the_cut_have_the_same_contexts(tmp_path: Path) -> None:
    """Cleaned or not, what is open behind the last full stop begins with a large letter; cleaned endings lack a space.

    And the run says so.
    """
    published = [published for published, _ in PAIRS]
    uncut = [{name: row[name] for name in ("activity_label", "ctx", "endings", "label")} for row in published]
    original = loaded(tmp_path / "original", published)
    joined = loaded(tmp_path / "joined", uncut)
    cleaned = loaded(tmp_path / "cleaned", [copy for _, copy in PAIRS])
    assert [doc.prompt for doc in original.docs] == list(map(harness_2023.query, published))
    assert joined.docs == original.docs
    assert [doc.prompt for doc in cleaned.docs] == [doc.prompt for doc in original.docs]
    assert [doc.target for doc in cleaned.docs] == [doc.target for doc in original.docs]
    lost = 0
    for doc, whole in zip(cleaned.docs, original.docs, strict=True):
        for choice, other in zip(doc.choices, whole.choices, strict=True):
            assert choice in {other, other[1:]}
            lost += choice != other
    assert lost == sum(choice.startswith("  ") for doc in original.docs for choice in doc.choices) > 0
    for found in (joined, cleaned):
        (line,) = found.lacking
        assert "without ctx_a and ctx_b" in line


@pytest.mark.parametrize("end", [".", "!", "?", ". "])
def test_a_whole_sentence_at_the_end_is_left_as_it_is(end: str, tmp_path: Path) -> None:
    """Only what is left open is ``ctx_b``; a context without a full stop has none to begin behind."""
    rows = [
        {"activity_label": "Ski", "ctx": f"A man. he sees NASA{end}", "endings": ["a", "b"], "label": 0},
        {"activity_label": "Ski", "ctx": "a man", "endings": ["a", "b"], "label": 0},
    ]
    assert [doc.prompt for doc in loaded(tmp_path, rows).docs] == [
        f"Ski: A man. he sees NASA{end.strip()}",
        "Ski: a man",
    ]


def cut(row: dict[str, Any]) -> dict[str, Any]:
    """A row with ``ctx_a`` and ``ctx_b``; of a copy without them, ``ctx_b`` is what has no full stop."""
    if "ctx_a" in row:
        return row
    sentences = row["ctx"].split(". ")
    last = "" if sentences[-1].endswith(".") else sentences.pop()
    whole = ". ".join(sentences) + ("." if last else "")
    return {**row, "ctx_a": whole, "ctx_b": last}


@pytest.mark.parametrize(
    "n", [pytest.param(300, id="some rows"), pytest.param(None, id="all rows", marks=pytest.mark.slow)]
)
def test_real_rows_in_llamas_tokens(n: int | None, orin_data: Path, tmp_path: Path) -> None:
    """The rows at hand, whichever form they have, as the harness of 2023 asked LLaMA."""
    folder = unpacked(orin_data / "tokenizers" / "llama2", tmp_path / "llama2")
    (path,) = (orin_data / "hellaswag").glob("hellaswag_val.jsonl*")
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    rows = [cut(json.loads(line)) for line in text.splitlines()]
    found = HellaSwag().load(LoadOptions(orin_data, limit=n, protocol="2023"))
    assert found.rows == len(rows) == 10_042
    asked = rows if n is None else [rows[(i * len(rows)) // n] for i in range(n)]
    check_requests(asked, encode_docs(found.docs, HFEncoder(folder, frozenset())), folder)


@pytest.mark.parametrize("options", [{"shots": 0}, {"scoring": "text"}, {"limit": 2}])
def test_options_that_change_nothing_are_taken(options: dict[str, Any], with_bos: Path, tmp_path: Path) -> None:
    data = write(tmp_path, {FILE: jsonl(*HELLASWAG)})
    item = prepare(HellaSwag(), LoadOptions(data, **options, protocol="2023"), HFEncoder(with_bos, frozenset()))
    assert (item.protocol, item.lacking) == ("2023", ())
    assert item.source == {"split": "validation", "rows": 3, "protocol": "2023", "lacking": []}


@pytest.mark.parametrize(
    "options",
    [{"shots": 5}, {"shots": "phi3"}, {"scoring": "letters"}, {"chat": True}],
    ids=lambda one: next(iter(one)),
)
def test_a_protocol_fixes_how_is_asked(options: dict[str, Any], with_bos: Path, tmp_path: Path) -> None:
    """The option to leave out is named, before any row is read."""
    with pytest.raises(UserError, match=r"^--protocol 2023 scores whole choices") as refusal:
        prepare(HellaSwag(), LoadOptions(tmp_path, **options, protocol="2023"), HFEncoder(with_bos, frozenset()))
    assert refusal.value.hint == f"leave --{next(iter(options))} out"


@pytest.mark.parametrize("name", [name for name in TASKS if name != "hellaswag"])
def test_other_tasks_have_no_protocol(name: str, with_bos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{name} has no protocol of the 2023 challenge"):
        prepare(TASKS[name], LoadOptions(tmp_path, protocol="2023"), HFEncoder(with_bos, frozenset()))
