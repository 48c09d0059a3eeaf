"""What is wrong with the outcome of a case."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tests.support.fuzz.case import Case, Outcome

SPAM = re.compile(
    r"Traceback|\b[A-Z]\w*Warning\b|panicked at|^\s+File \"|core dumped|Exception ignored|^\[transformers\]|BACKTRACE",
    re.MULTILINE,
)
"""What libraries and the interpreter write, and this program does not."""
LINES = 60
"""Of stderr, at most."""
LENGTH = 4000
"""Characters of a line of stderr, at most."""


def violations(case: Case, outcome: Outcome) -> list[str]:
    """A line for each promise that is broken."""
    return [*_end(case, outcome), *_output(case, outcome), *_files(case, outcome)]


def _end(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.hung:
        yield f"hangs: ended after {case.seconds:g} s"
        return
    if outcome.signal:
        yield f"died of signal {outcome.signal}"
        return
    if outcome.outlived:
        yield f"processes outlived it: {len(outcome.outlived)}"
    errors = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    if outcome.status == 0:
        if errors:
            yield "status 0 with an error line"
        if case.must_refuse:
            yield "was accepted"
    elif outcome.status == 2:
        if len(errors) != 1 or not outcome.err.rstrip("\n").splitlines()[-1].startswith("error:"):
            yield f"status 2 with {len(errors)} error lines, or not as the last line"
    elif outcome.status != 1 or case.fails is None or not re.search(case.fails, outcome.err + outcome.out):
        yield f"status {outcome.status}"
    if outcome.status in {0, 1} and (wrong := _wrong(case, outcome)):
        yield f"wrong without a word: {wrong}"


def _wrong(case: Case, outcome: Outcome) -> str | None:
    try:
        return case.right(outcome)
    except Exception as error:  # noqa: BLE001 - whatever is not there, or not as it must be
        return f"the result cannot be read: {error!r}"


def _output(_: Case, outcome: Outcome) -> Iterator[str]:
    if found := SPAM.search(outcome.err) or SPAM.search(outcome.out):
        yield f"writes {found.group()!r}"
    if outcome.not_text:
        yield "writes what is no UTF-8"
    written = outcome.out + outcome.err
    if odd := next((c for c in written if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl"}), None):
        yield f"writes the control character {odd!r}"
    lines = outcome.err.splitlines()
    if len(lines) > LINES:
        yield f"writes {len(lines)} lines to stderr"
    if any(len(line) > LENGTH for line in lines):
        yield f"writes a line of {max(map(len, lines))} characters to stderr"


def _files(case: Case, outcome: Outcome) -> Iterator[str]:
    for line in outcome.changed:
        path = Path(line.rsplit(" was ", 1)[0])
        if path.name.endswith(".partial"):
            yield f"left behind: {line}"
        elif outcome.status not in {0, 1} or not any(path == own or own in path.parents for own in case.writes):
            yield f"{line}"
