"""Every item word for word: a line of ``items.jsonl.gz`` is what was asked and what became of it.

Made of the questions and ``predictions.jsonl`` when a run ends, so that a resumed run has all of its items there, too.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from eval.data.text_file import lines_of
from eval.encoding import Encoder, Question, prompt_texts
from eval.evaluate import Prepared
from eval.runs.prediction import Prediction, read_predictions
from eval.runs.run import PREDICTIONS
from orin_runner.errors import UserError
from orin_runner.files import json_text, read_bytes, write_whole
from orin_runner.requests import GenerateRequest
from orin_runner.schema import Schema

ITEMS = "items.jsonl.gz"


class Asked(TypedDict):
    """Of a line, what was asked; what became of it is in ``predictions.jsonl``, which may be newer."""

    task: str
    id: str
    prompt: str | None
    prompts: list[str] | None
    choices: list[str] | None
    labels: list[str] | None
    right: list[str]
    until: NotRequired[list[str] | None]
    max_new_tokens: NotRequired[int | None]


FORM = Schema(Asked)
WRITE_AGAIN = "remove it; orin-run eval (or lm-eval) --resume --out RUN --log-items writes it again"


def questions_as_asked(prepared: Prepared, encoder: Encoder) -> Iterator[tuple[Question, dict[str, Any]]]:
    """Each question of a task, those that are not asked behind the others, with what it says of itself.

    The prompt is the text that was tokenized, a conversation in the model's template. Of a truncated one the model saw
    all but the first ``truncated`` tokens.
    """
    questions = [*prepared.questions, *(question for question, _ in prepared.skipped)]
    texts = prompt_texts([question.doc for question in questions], encoder)
    for question, text in zip(questions, texts, strict=True):
        doc, request = question.doc, question.request
        text_asked = request if isinstance(request, GenerateRequest) else None
        yield (
            question,
            {
                "task": prepared.task.name,
                "id": doc.id,
                "group": doc.group,
                "prompt": None if doc.prompts else text,
                "prompts": list(doc.prompts) or None,
                "choices": None if text_asked else list(doc.choices),
                "labels": None if text_asked else list(doc.labels),
                "target": doc.target,
                "right": list(doc.right or (doc.target, *doc.references)),
                "until": list(doc.until) if text_asked else None,
                "max_new_tokens": text_asked.max_new_tokens if text_asked else None,
                "n_tokens": question.n_tokens,
                "choice_tokens": None if isinstance(request, GenerateRequest) else list(request.n_scored),
                "truncated": question.truncated,
            },
        )


def write_items(directory: Path, prepared: Sequence[Prepared], encoder: Encoder) -> None:
    """Write ``items.jsonl.gz`` of a run: a line for each question that has a line in ``predictions.jsonl``.

    Raises:
        UserError: ``predictions.jsonl`` is damaged.
        OSError: a file cannot be read or written; it is named.
    """
    path = directory / PREDICTIONS
    known = read_predictions(path, io.BytesIO(read_bytes(path)))
    questions = (each for item in prepared for each in questions_as_asked(item, encoder))
    asked = ((known.get((said["task"], said["id"])), said) for _, said in questions)
    write_lines(directory, ((prediction, said) for prediction, said in asked if prediction is not None))


def write_lines(directory: Path, items: Iterable[tuple[Prediction, Mapping[str, Any]]]) -> None:
    """Write ``items.jsonl.gz``, a line for each: what was asked, and what became of it.

    Raises:
        OSError: it cannot be written; it is named.
    """
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        for prediction, asked in items:
            file.write(json_text({**asked, **_answered(prediction)}).encode() + b"\n")
    write_whole(directory / ITEMS, packed.getvalue())


def _answered(prediction: Prediction) -> dict[str, Any]:
    return {
        "answer": prediction.prediction,
        "correct": prediction.correct,
        "scores": prediction.scores,
        "logprobs": prediction.logprobs,
        "text": prediction.text,
        "margin": prediction.margin,
        "failed": prediction.failed,
        "skipped": prediction.skipped,
    }


def read_items(directory: Path) -> dict[tuple[str, str], Asked]:
    """What was asked of each item of a run, by (task, id); empty where the run has no ``items.jsonl.gz``.

    Raises:
        UserError: the file is damaged, or a line has not its form.
        OSError: it cannot be read.
    """
    path = directory / ITEMS
    if not path.exists():
        return {}
    found = {}
    number = 0
    try:
        for number, line in enumerate(lines_of(path), start=1):  # noqa: B007 - named in the error
            asked = FORM.parse(line)
            if asked["prompts"] and len(asked["prompts"]) != len(asked["choices"] or ()):
                raise ValueError("there are not as many 'prompts' as 'choices'")
            found[asked["task"], asked["id"]] = asked
    except UserError as error:
        raise UserError(error.message, WRITE_AGAIN) from error
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not an item ({error})", WRITE_AGAIN) from error
    return found
