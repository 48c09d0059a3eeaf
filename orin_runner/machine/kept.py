"""Lists of what was measured, in files of ``$XDG_STATE_HOME/orin-run``, kept from one command to the next.

A file that is damaged is none: what was measured can be measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from orin_runner.errors import UserError
from orin_runner.files import json_text, make_folder, read_bytes, state_folder, write_whole
from orin_runner.schema import Schema

T = TypeVar("T")
MOST = 1000
"""Entries that are kept of each list."""


class Kept(Generic[T]):
    """One list, the last measurement of each thing.

    Args:
        name: of the file.
        form: of the list, whose entries are dataclasses.
        key: what tells things apart.
        sound: whether an entry can be worked with.
    """

    def __init__(
        self, name: str, form: type[list[T]], key: Callable[[T], Hashable], sound: Callable[[T], bool]
    ) -> None:
        self._name, self._form, self._key, self._sound = name, Schema(form), key, sound

    @property
    def path(self) -> Path:
        """Where it lies."""
        return state_folder() / self._name

    def read(self) -> list[T]:
        """All that is known, the newest last."""
        try:
            return [entry for entry in self._form.parse(read_bytes(self.path)) if self._sound(entry)]
        except (OSError, UserError, ValueError, RuntimeError):  # Path.home() knows no home
            return []

    def keep(self, found: Iterable[T]) -> None:
        """Remember what was measured, in place of what was known of the same.

        Raises:
            UserError, OSError: the file cannot be written.
        """
        new = {self._key(entry): entry for entry in found if self._sound(entry)}
        if not new:
            return
        known = [entry for entry in self.read() if self._key(entry) not in new]
        make_folder(self.path.parent)
        entries: list[Any] = [*known, *new.values()][-MOST:]
        write_whole(self.path, json_text([asdict(entry) for entry in entries], indent=1) + "\n")
