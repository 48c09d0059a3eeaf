"""Options of a command in a TOML file: read, with mistakes named by file and key, and written.

A key is an option's long name without its dashes (``max-new-tokens = 8``), or ``tasks``; its value is what would be
typed, a number also without quotes, and of a switch ``true`` or ``false``.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from orin_runner.errors import UserError
from orin_runner.files import json_text, read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ARGUMENTS = "arguments"
"""The key of a command that passes options on."""
PASSED_ON = f'the harness\'s own options stand in {ARGUMENTS} = ["--OPTION", "VALUE"]'
CONFIG = "config"
"""The option that names such a file, and cannot stand in one."""


def keys_of(command: Any) -> dict[str, Any]:
    """The parameters of a click command by the keys that stand for them."""
    named = [(param.opts if param.param_type_name == "option" else [param.name], param) for param in command.params]
    names = [(name, param) for opts, param in named for name in opts if name == param.name or name.startswith("--")]
    return {name.removeprefix("--"): param for name, param in names if param.name != CONFIG}


def read_config(path: Path, command: Any) -> dict[str, Any]:
    """The values of a file, by key, in the form in which they would be typed.

    Raises:
        UserError: it is no TOML, or ``checked`` refuses what it says.
        OSError: it cannot be read.
    """
    try:
        found = tomllib.loads(read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{path} is not TOML: {error}", "a line of it is such as limit = 100 or model = 'FILE'"
        ) from error
    keys = keys_of(command)
    hint = f"orin-run {command.name} --help lists the options"
    return checked(found, keys, str(path), PASSED_ON if ARGUMENTS in keys else hint)


def checked(found: Mapping[str, Any], keys: Mapping[str, Any], where: str, hint: str) -> dict[str, Any]:
    """Values by key in the form in which they would be typed; those that are None are left out.

    Args:
        found: the values.
        keys: parameters of a click command.
        where: what a line calls their origin.
        hint: what to try where no key resembles the one that there is not.

    Raises:
        UserError: a key is none, or its value of another type.
    """
    for key in found:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            raise UserError(f"{where}: {key!r} is no option", f"did you mean {near[0]!r}?" if near else hint)
    return {key: _typed(f"{where}: {key}", keys[key], value) for key, value in found.items() if value is not None}


def _typed(where: str, param: Any, value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if getattr(param, "is_flag", False):
        if not isinstance(value, bool):
            raise UserError(f"{where} is true or false, not {value!r}", "without quotes")
        return value
    if param.nargs == -1 or getattr(param, "multiple", False):
        names = [value] if isinstance(value, (str, Path)) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, Path)) for name in names):
            raise UserError(f"{where} is a list of names, not {value!r}", 'such as ["mmlu", "boolq"]')
        return [str(name) for name in names]
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Path)):
        raise UserError(f"{where} is a text or a number, not {value!r}", 'such as 100 or "28G"')
    return str(value)


def toml_text(values: Mapping[str, Any]) -> str:
    """Texts, numbers, truths and lists of them as TOML, a line for each key.

    Raises:
        ValueError: a number is not finite.
    """
    # JSON's numbers, truths, lists and texts are TOML's, but for the one control character that JSON leaves as it is.
    return "".join(f"{key} = {json_text(value)}\n".replace("\x7f", "\\u007f") for key, value in values.items())
