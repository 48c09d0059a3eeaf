r"""DROP (Dua et al. 2019, arXiv:1903.00161): reading comprehension with counting and arithmetic.

Data: https://allenai.org/data/drop (CC BY-SA 4.0), ``drop/drop_dataset_dev.json``: an object of passages, each with its
``qa_pairs``; a question has one ``answer`` (a number, spans or a date) and ``validated_answers`` of other annotators,
all of which are accepted. A worked row:

    The home team scored 14 points on 3 May 1998. How many points did it score?

A copy of the hub's ``EleutherAI/drop`` holds the same; of ``ucinlp/drop`` not, where the spans of one answer and the
answers of several annotators cannot be told apart. The flat copy of OpenAI's simple-evals,
``drop/drop_v0_dev.jsonl.gz``, is read where these are missing. It joins the spans of an answer with " and ", so that
questions with several spans score otherwise than they should: exact match cannot be reached there in the original, and
its F1 is of each span apart.

White space and protocol are lm-evaluation-harness's (0.4.13, ``drop``): passage, a space, question, nothing else and no
worked examples; the text ends at the first full stop. (So a decimal fraction is cut, too. The harness's prompts with
worked examples hold the names of the answer's fields instead of answers; there are none here.)

Scoring is the official one (``drop_eval.py`` of allennlp-reading-comprehension): case, articles, punctuation and
hyphens are dropped and numbers compared by value; F1 is of the sets of words, and 0 where the accepted answer has
numbers of which none is met. The text is one span; where the accepted answer has several, the best of their F1 is
divided by their number. Of all accepted answers the best one counts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from typing_extensions import NotRequired, TypedDict

from eval.data.hub_copy import split_files, split_folders
from eval.data.readers import find_file, first_file, read_json_value, read_jsonl, read_rows, with_rows
from eval.data.text_file import AGAIN
from eval.tasks.base import Loaded, LoadOptions, Year, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS, local_data
from orin_runner.errors import UserError
from orin_runner.schema import Schema

UNTIL = (".",)
ORIGINAL = tuple(f"{folder}/drop_dataset_dev.json" for folder in ("drop", "drop_dataset", "drop/drop_dataset"))
COPIES = ("drop", "EleutherAI/drop", "ucinlp/drop")
SIMPLE_EVALS = "drop/drop_v0_dev.jsonl"
FLAT = "Passage: ", "\nQuestion: ", "\nAnswer:"
PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
BETWEEN_SPANS = "\n"


class _Answer(TypedDict, total=False):
    number: int | float | str | None
    spans: list[str] | None
    date: dict[str, str | None] | None


class _Pair(TypedDict):
    question: str
    answer: _Answer
    validated_answers: NotRequired[list[_Answer] | None]


class _Passage(TypedDict):
    passage: str
    qa_pairs: list[_Pair]


class _Columns(TypedDict):
    number: list[int | float | str | None]
    date: list[dict[str, str | None] | None]
    spans: list[list[str] | None]


class _Hub(TypedDict):
    section_id: str
    passage: str
    question: str
    answer: _Answer
    validated_answers: NotRequired[_Columns | None]


class _Flat(TypedDict):
    context: str
    ref_text: str


PUBLISHED, HUB, FLAT_ROW = Schema(dict[str, _Passage]), Schema(_Hub), Schema(_Flat)


class DROP:
    """Passage and question, as text."""

    name = "drop"
    title = "DROP"
    source = "allenai.org/data/drop"
    licence = "CC BY-SA 4.0"
    metric = "exact match of the normalised text"
    metrics: tuple[str, ...] = ("em", "f1")
    default_shots = 0
    phi3_shots: int | None = None
    protocols: tuple[Year, ...] = ()
    splits: tuple[str, ...] = ("validation",)

    def load(self, options: LoadOptions) -> Loaded:
        shots_of(self, options, 0)
        data = local_data(options, self.name, "drop/drop_dataset_dev.json")
        if path := first_file(data, *ORIGINAL):
            rows = _original(path)
        elif copy := split_files(data, split_folders(COPIES, None), self.splits[0]):
            rows = _copied(copy)
        else:
            rows = _flat(find_file(data, ORIGINAL[0], SIMPLE_EVALS, also=f"{COPIES[1]}'s files of validation in drop/"))
        docs = [
            Doc(
                id=name,
                group="dev",
                prompt=f"{passage} {question}",
                mode="generate",
                choices=(),
                labels=(),
                target=accepted[0],
                max_new_tokens=MAX_NEW_TOKENS,
                until=UNTIL,
                references=accepted[1:],
            )
            for name, passage, question, accepted in rows
        ]
        return loaded(docs, self.splits[0], options)

    def normalize(self, text: str) -> str:
        """The official normalisation."""
        words = [_word(word.lower()) for word in re.split("[ -]", text)]
        return " ".join(word for word in words if word)

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        answer = self.normalize(text)
        em, f1 = 0.0, 0.0
        for accepted in (doc.target, *doc.references):
            spans = accepted.split(BETWEEN_SPANS)
            if spans[0].strip():
                gold = [self.normalize(span) for span in spans]
                em = max(em, float(gold == [answer]))
                f1 = max(f1, float(np.round(max(_f1(answer, span) for span in gold) / len(gold), 2)))
        return {"em": em, "f1": f1}


def _word(word: str) -> str:
    """A word without punctuation and articles; a number by its value."""
    if not _is_number(word):
        word = word.translate(PUNCTUATION)
    if _is_number(word):
        word = str(float(word))
    return " ".join(ARTICLES.sub(" ", word).split())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _f1(predicted: str, gold: str) -> float:
    """F1 of two normalised texts as sets of words; 0 where ``gold`` has numbers and ``predicted`` none of them."""
    bag, wanted = set(predicted.split()), set(gold.split())
    numbers = {word for word in wanted if _is_number(word)}
    if numbers and not numbers & bag:
        return 0.0
    # An empty bag has precision (or recall) 1, as in the official script.
    precision = len(bag & wanted) / len(bag) if bag else 1.0
    recall = len(bag & wanted) / len(wanted) if wanted else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


_Row = tuple[str, str, str, tuple[str, ...]]  # id, passage, question, accepted answers


def _original(path: Path) -> Iterator[_Row]:
    passages = PUBLISHED.check_row(str(path), read_json_value(path), AGAIN)
    for name, entry in with_rows(path, passages.items()):
        for i, pair in enumerate(entry["qa_pairs"]):
            where = f"{path}, passage {name}, question {i + 1}"
            answers = [pair["answer"], *(pair.get("validated_answers") or [])]
            accepted = dict.fromkeys(_answer(answer, where) for answer in answers)
            yield f"{name}/{i}", entry["passage"], pair["question"], tuple(accepted)


def _copied(paths: list[Path]) -> Iterator[_Row]:
    asked: dict[str, int] = {}
    for where, row in (row for path in paths for row in read_rows(path)):
        if "answers_spans" in row:
            raise UserError(
                f"{where}: 'answers_spans' does not say which spans make one answer",
                f"take drop_dataset_dev.json, or {COPIES[1]} from the hub",
            )
        found = HUB.check_row(where, row, AGAIN)
        columns = found.get("validated_answers") or {"number": [], "date": [], "spans": []}
        if len({len(column) for column in (columns["number"], columns["date"], columns["spans"])}) != 1:
            raise UserError(f"{where}: the columns of 'validated_answers' have different lengths", AGAIN)
        rows = zip(columns["number"], columns["date"], columns["spans"], strict=True)
        answers = [found["answer"], *(_Answer(number=number, date=date, spans=spans) for number, date, spans in rows)]
        accepted = dict.fromkeys(_answer(answer, where) for answer in answers)
        i = asked[found["section_id"]] = asked.get(found["section_id"], -1) + 1
        yield f"{found['section_id']}/{i}", found["passage"], found["question"], tuple(accepted)


def _answer(answer: _Answer, where: str) -> str:
    """An annotator's answer: the number, else the spans, else the date."""
    number, spans, date = answer.get("number"), answer.get("spans"), answer.get("date")
    if number not in (None, ""):
        return str(number)
    if spans:
        return BETWEEN_SPANS.join(" ".join(span.split("\n")) for span in spans)
    if date is None:
        raise UserError(f"{where}: an answer has neither 'number' nor 'spans' nor 'date'", AGAIN)
    return " ".join(date.get(part) or "" for part in ("day", "month", "year")).strip()


def _flat(path: Path) -> Iterator[_Row]:
    for line, row in read_jsonl(path):
        found = FLAT_ROW.check_row(f"{path}, line {line}", row, AGAIN)
        context, (begin, middle, end) = found["context"], FLAT
        passage, asked, question = context.removeprefix(begin).removesuffix(end).rpartition(middle)
        if not (asked and context.startswith(begin) and context.endswith(end)):
            raise UserError(f"{path}, line {line}: 'context' is not a passage, a question and 'Answer:'", AGAIN)
        yield str(line), passage, question, tuple(dict.fromkeys(found["ref_text"].split("|")))
