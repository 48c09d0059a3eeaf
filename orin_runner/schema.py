"""The form of what is read from outside, by pydantic, and in one line what a value has wrong.

Knows no file and no row: who reads one says where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orin_runner.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")
SHOWN = 40
"""Characters of a value in a message."""
LARGEST = 1e18
"""Of a number that is worked with, so that sums and differences of many stay finite."""
INSTANCE = re.compile(r" or instance of \w+")
PREFIX = re.compile(r"^(Input|Value error,) ")


class Schema(Generic[T]):
    """A type that JSON values are held against, strictly: no number is taken for a text, nor a text for a number.

    Further keys of an object are allowed. pydantic is imported with the first check.

    Args:
        form: a ``TypedDict`` of ``typing_extensions`` or a pydantic model; for ``parse`` also a dataclass.
    """

    def __init__(self, form: type[T]) -> None:
        self._form = form

    def check(self, value: Any) -> T:
        """``value``, which has the form; further keys are left out.

        Raises:
            ValueError: it has not; one line names the first key that is missing or wrong.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - as above

        try:
            return self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(_line(error, value)) from error

    def check_row(self, where: str, value: Any, hint: str) -> T:
        """``check``, of a value that stands at ``where``.

        Raises:
            UserError: it has not the form.
        """
        try:
            return self.check(value)
        except ValueError as error:
            raise UserError(f"{where}: {error}", hint) from error

    def parse(self, content: bytes | str) -> T:
        """The value of a JSON text.

        Raises:
            ValueError: it is none, or has not the form.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - as above

        try:
            return self._adapter.validate_json(content, strict=True)
        except ValidationError as error:
            raise ValueError(_line(error, None)) from error

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        from pydantic import TypeAdapter  # noqa: PLC0415 - a tenth of a second, which --help does not need

        return TypeAdapter(self._form)


def bounded(values: Iterable[float | None]) -> bool:
    """Whether all numbers among ``values`` can be added up."""
    return all(value is None or -LARGEST < value < LARGEST for value in values)


def shown(value: Any) -> str:
    """``value`` as a message shows it."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _line(error: ValidationError, value: Any) -> str:
    """What is wrong at the first place where something is; of a choice of types, what each of them misses."""
    found = error.errors(include_url=False)
    first, name = found[0], _name(found[0], value)
    if first["type"] == "missing":
        return f"no {name!r}"
    of_it = [each for each in found if _name(each, value) == name]
    said = " or ".join(dict.fromkeys(INSTANCE.sub("", PREFIX.sub("", each["msg"])) for each in of_it))
    what = "" if isinstance(first["input"], (dict, list, tuple)) else f" is {shown(first['input'])} and"
    return f"{name!r}{what} {said}" if name else said


def _name(error: ErrorDetails, value: Any) -> str:
    """The keys that lead to the place of an error, without the names of types that pydantic puts among them."""
    parts = []
    for part in error["loc"]:
        inner = isinstance(part, int) if isinstance(value, list) else isinstance(value, dict) and part in value
        if inner:
            value = value[part]
        elif value is not None and error["type"] != "missing":
            continue
        parts.append(str(part)[:SHOWN])
    return ".".join(parts)
