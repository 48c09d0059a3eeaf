"""``answers.jsonl``: what each request of the harness was answered, a line as it arrives, so that a run can go on.

An answer goes by the tokens of its request and by what bounds it: it is used for that request and no other. Knows
neither the harness nor its tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from typing_extensions import TypedDict

from eval.runs.prediction import DAMAGED
from orin_runner.errors import UserError
from orin_runner.files import append_bytes, json_text, naming, read_bytes, whole_lines
from orin_runner.requests import Generated, GenerateRequest, Request, Result, Scored, Tokens
from orin_runner.schema import Schema, bounded

ANSWERS = "answers.jsonl"


class _Answer(TypedDict):
    """A line: ``logprobs`` and ``greedy`` of a request that is scored, ``tokens`` and ``stopped`` of a text."""

    request: str
    logprobs: list[list[float]] | None
    greedy: list[bool] | None
    tokens: list[int] | None
    stopped: bool | None


FORM = Schema(_Answer)


class Answers:
    """The answers of a run, those of its earlier parts first.

    Nothing is written before the first ``add``.

    Args:
        path: the file; a last line that a kill has torn is dropped.

    Attributes:
        used: how many answers of earlier parts ``known`` has given.

    Raises:
        UserError: a line is no answer; it is named.
        OSError: the file cannot be read or written; it is named. So of ``add``.
    """

    def __init__(self, path: Path) -> None:
        self.used = 0
        self._path = path
        self._file: BinaryIO | None = None
        content = whole_lines(read_bytes(path)) if path.exists() else b""
        self._whole = len(content)
        self._known: dict[str, _Answer] = {}
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                answer = FORM.parse(line)
                if not bounded(logprob for values in answer["logprobs"] or () for logprob in values):
                    raise ValueError("a log-probability is no number, or too large")
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not an answer ({error})", DAMAGED) from error
            self._known[answer["request"]] = answer

    def __len__(self) -> int:
        return len(self._known)

    def known(self, request: Request) -> Result | None:
        """What an earlier part of the run was answered; None where it has not asked this."""
        answer = self._known.get(digest(request))
        found = None if answer is None else _result(request, answer)
        self.used += found is not None
        return found

    def add(self, request: Request, result: Result) -> None:
        """Append an answer; it is on disk, or with the system at least, when this returns."""
        with naming(self._path):
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
                self._file.truncate(self._whole)
            append_bytes(self._file, json_text(_line(request, result)).encode() + b"\n")

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def digest(request: Request) -> str:
    """sha256 over all that decides the answer of a request; candidates do not."""
    if isinstance(request, GenerateRequest):
        said: Sequence[Any] = ("text", sorted(request.stop), request.max_new_tokens, list(request.until))
        paths: Sequence[Tokens] = (request.prompt,)
    else:
        said = ("scores", list(request.n_scored))
        paths = (request.prompt, *request.continuations)
    found = hashlib.sha256(json_text([*said, [len(path) for path in paths]]).encode())
    for path in paths:
        found.update(path.astype("<i4").tobytes())
    return found.hexdigest()


def _line(request: Request, result: Result) -> _Answer:
    if isinstance(result, Scored):
        logprobs = [values.tolist() for values in result.logprobs]
        greedy = [bool(value) for value in result.greedy]
        return _Answer(request=digest(request), logprobs=logprobs, greedy=greedy, tokens=None, stopped=None)
    tokens = result.tokens.tolist()
    return _Answer(request=digest(request), logprobs=None, greedy=None, tokens=tokens, stopped=bool(result.stopped))


def _result(request: Request, answer: _Answer) -> Result | None:
    """The answer as the runner gave it, as far as the harness asks for it; None where it is to another request."""
    if isinstance(request, GenerateRequest):
        tokens, stopped = answer["tokens"], answer["stopped"]
        if tokens is None or stopped is None or not all(0 <= token < 1 << 31 for token in tokens):
            return None
        return Generated(np.array(tokens, np.int32), stopped, float("nan"), float("nan"), 0, 0)
    logprobs, greedy = answer["logprobs"], answer["greedy"]
    if logprobs is None or greedy is None:
        return None
    if (*map(len, logprobs),) != request.n_scored or len(greedy) != len(logprobs):
        return None
    return Scored(tuple(np.array(values, np.float64) for values in logprobs), tuple(greedy))
