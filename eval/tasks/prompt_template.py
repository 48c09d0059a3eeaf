"""A prompt template of the user's own: a text in which ``{name}`` stands for a column of the row.

Nothing is computed in it and nothing but the row's texts and numbers can be reached from it: it is no program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter, ascii_uppercase
from typing import Any

from eval.data.text_file import text_lines
from eval.tasks.multiple_choice import lettered
from orin_runner.errors import UserError

CHOICES = "choices"
"""The field that stands for a line for each choice, with its letter."""


class PromptTemplate:
    """Rows to prompts.

    Args:
        path: a UTF-8 file. One line end at its end is left out, as editors put it there.

    Attributes:
        fields: the names in it.

    Raises:
        UserError: it cannot be read, a brace is left open, a field is no name, or there is none.
    """

    def __init__(self, path: Path) -> None:
        text = "".join(text_lines(path)).removesuffix("\n").removesuffix("\r")
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise UserError(f"{path}: {error}", "braces that are meant as such are doubled: {{ and }}") from error
        for _, name, form, conversion in parts:
            if name is not None and (form or conversion or not name):
                raise UserError(
                    f"{path}: {{{name}}} is not the name of a column", "{question}, say; other braces are doubled"
                )
        self.fields = frozenset(name for _, name, _, _ in parts if name is not None)
        if not self.fields:
            raise UserError(f"{path} has no field: all prompts would be the same", "{question} stands for the question")
        self._parts = [(literal, name) for literal, name, _, _ in parts]

    @property
    def lists_choices(self) -> bool:
        """Whether the choices stand in the prompt."""
        return not self.fields.isdisjoint({CHOICES, *ascii_uppercase})

    def render(self, row: Mapping[str, Any], choices: Sequence[str]) -> str:
        """The prompt of a row.

        Args:
            row: its columns.
            choices: its choices; ``{choices}`` stands for all of them, ``{A}`` for the first.

        Raises:
            ValueError: a field is no column of the row, or its value is neither a text nor a number.
        """
        known = {**row, **dict(zip(ascii_uppercase, choices, strict=False))}
        if choices:
            known[CHOICES] = lettered(choices)
        text = ""
        for literal, name in self._parts:
            text += literal
            if name is None:
                continue
            if name not in known:
                raise ValueError(f"no {name!r}, which the template has")
            value = known[name]
            if not isinstance(value, (str, int, float)) or isinstance(value, bool):
                raise ValueError(f"{name!r} is neither a text nor a number, and the template has it")
            text += str(value)
        return text
