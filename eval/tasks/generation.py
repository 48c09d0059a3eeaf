"""What the tasks share that are answered by a text and take an answer out of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.data.hub_copy import published_or_copied, split_folders
from eval.data.readers import read_hub, read_rows
from eval.tasks.base import LoadOptions
from orin_runner.errors import UserError

INVALID = "[invalid]"
"""What lm-evaluation-harness takes for the answer of a text that has none."""
MAX_NEW_TOKENS = 256
"""lm-evaluation-harness's bound where a task names none (``HFLM.max_gen_toks``)."""
HARNESS_SEED = 1234
"""lm-evaluation-harness's ``fewshot_random_seed``."""


def drawn(examples: Sequence[str], shots: int, spare: int = 0) -> Iterator[str]:
    """What stands in front of one question after the other: ``shots`` of ``examples``, drawn without replacement.

    One generator goes through all questions: lm-evaluation-harness 0.4.13's ``ContextSampler``.

    Args:
        examples: at least ``shots + spare``, where there are ``shots``.
        shots: for each question.
        spare: drawn beyond these and dropped. The harness draws one more where the question might be among them; that
            is, of a task that names neither a test nor a few-shot split, in any case.
    """
    rng = random.Random(HARNESS_SEED)
    while True:
        yield "".join(rng.sample(examples, shots + spare)[:shots] if shots else [])


def placed_rows(
    data: Path | None, hub: tuple[str, str, str | None], split: str, names: Sequence[str], folders: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a split, from the hub or from files.

    Args:
        data: ``--data``, None for the hub.
        hub: repository, revision and configuration.
        split: the hub's name.
        names: of the published file under ``data``.
        folders: where under ``data`` a copy of the repository may lie, besides the ones with its name.

    Raises:
        UserError: there is neither; both are named.
    """
    repository, _, config = hub
    if data is None:
        yield from read_hub(*hub, split)
        return
    places = split_folders((*folders, repository, repository.partition("/")[2]), config)
    for path in published_or_copied(data, names, places, split, repository):
        yield from read_rows(path)


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
