"""A run's numbers worked out once more, from its files, the GGUF's tokenizer and the data files alone.

Nothing here comes from ``eval`` or ``orin_runner``: what they count is counted here in another way.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
from gguf import GGUFReader

from tests.support.commands import ORIN_RUN

Path_ = tuple[object, ...]
"""Tokens that one sequence takes, in order; anything that tells them apart."""


class Vocabulary:
    """The tokenizer and the chat template that a GGUF carries, read by ggml's own reader."""

    def __init__(self, gguf: Path) -> None:
        fields = GGUFReader(gguf).fields
        self._tokenizer = tokenizers.Tokenizer.from_str(str(fields["tokenizer.huggingface.json"].contents()))
        source = str(fields["tokenizer.chat_template"].contents())
        self._template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)  # noqa: S701

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=True).ids)

    def chat(self, content: str) -> tuple[int, ...]:
        """The prompt of a conversation of one message."""
        text = self._template.render(messages=[{"role": "user", "content": content}], add_generation_prompt=True)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def split(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Both, encoded together and parted behind as many tokens as the context has alone."""
        n, whole = len(self.ids(context)), self.ids(context + continuation)
        return whole[:n], whole[n:]


@dataclass(frozen=True)
class Asked:
    """One question as the data file has it.

    ``prompts``: one, or one a choice. ``continuations``: token ids of each choice, none where a text is asked for.
    ``choices``: their texts without the space in front. ``right``: index of the right choice, or the right text.
    """

    id: str
    group: str
    prompts: tuple[tuple[int, ...], ...]
    continuations: tuple[tuple[int, ...], ...]
    choices: tuple[str, ...]
    right: int | str

    def paths(self) -> set[Path_]:
        """What one sequence after another would compute for the choices; the last token of each is only looked up."""
        prompts = self.prompts * len(self.continuations) if len(self.prompts) == 1 else self.prompts
        return {(*prompt, *tokens[:-1]) for prompt, tokens in zip(prompts, self.continuations, strict=True)}


def text_path(prompt: Sequence[int], n_computed: int) -> Path_:
    """A prompt with a text whose tokens nothing else shares, unless the prompt is the same."""
    return (*prompt, *((tuple(prompt), k) for k in range(n_computed)))


def count_distinct(paths: Iterable[Path_]) -> int:
    """Nodes of the trie of ``paths``."""
    root: dict[object, Any] = {}
    nodes = 0
    for path in paths:
        node = root
        for token in path:
            if token not in node:
                node[token] = {}
                nodes += 1
            node = node[token]
    return nodes


def every_nth(rows: Sequence[Any], n: int | None) -> list[Any]:
    """As ``--limit`` draws them."""
    return list(rows) if n is None else [rows[i * len(rows) // n] for i in range(n)]


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def error_of_mean(groups: Sequence[Sequence[float]]) -> float:
    """Standard error of the mean of all values, their scatter taken within the groups."""
    values = [value for group in groups for value in group]
    if len(groups) == len(values):
        groups = [values]
    if len(values) < 2:
        return 0.0
    squares = 0.0
    for group in groups:
        squares += sum(value * value for value in group) - sum(group) ** 2 / len(group)
    return math.sqrt(max(0.0, squares) / (len(values) - len(groups)) / len(values))


def wilson_limits(share: float, n: int) -> tuple[float, float]:
    """Where (share - p)^2 = 1.96^2 p (1 - p) / n: the two roots in p."""
    z2 = 1.959963984540054**2
    a, b, c = 1 + z2 / n, -(2 * share + z2 / n), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def near_s() -> float:
    """Seconds by which two clocks may differ that are read one after the other, as often as others run in between."""
    return 0.2 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass(frozen=True)
class Watched:
    """A run and what was seen of it from outside.

    ``wall_s``: from the start of the process to its end. ``last_answer_s``: to the last line of predictions.jsonl.
    """

    folder: Path
    stdout: str
    wall_s: float
    last_answer_s: float

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return found

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return json_lines(self.folder / "predictions.jsonl")


def watched_run(folder: Path, *arguments: str | Path) -> Watched:
    """``orin-run`` with ``arguments`` and ``--out folder``, and a clock beside it."""
    began, before = time.time(), time.perf_counter()
    command = [*ORIN_RUN, *map(str, arguments), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - before
    assert done.returncode == 0, done.stderr
    return Watched(folder, done.stdout, wall, (folder / "predictions.jsonl").stat().st_mtime - began)
