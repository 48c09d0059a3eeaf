"""What the tasks share that are answered by a text and take an answer out of it."""

from __future__ import annotations

import re
from pathlib import Path

from eval.tasks.base import LoadOptions
from orin_runner.errors import UserError

INVALID = "[invalid]"
"""What lm-evaluation-harness takes for the answer of a text that has none."""
MAX_NEW_TOKENS = 256
"""lm-evaluation-harness's bound where a task names none (``HFLM.max_gen_toks``)."""


def local_data(options: LoadOptions, task: str, files: str) -> Path:
    """The folder that ``--data`` names.

    Raises:
        UserError: it names none, and no revision on the hub is pinned for this task.
    """
    if options.data is None:
        raise UserError(f"{task} is read from its published files", f"--data names the folder that holds {files}")
    return options.data


def extract(pattern: re.Pattern[str], text: str, which: int = 0) -> str:
    """The first non-empty group of one of the pattern's matches in ``text``, stripped, or ``INVALID``.

    Args:
        pattern: with groups; all matches are found before one is picked.
        text: a generated text.
        which: index of the match, -1 for the last.

    The protocol is lm-evaluation-harness 0.4.13's filter ``regex``.
    """
    matches = list(pattern.finditer(text))
    if not matches:
        return INVALID
    groups = matches[which].groups()
    return (groups[0] if len(groups) == 1 else next((g for g in groups if g), INVALID)).strip()
