"""Reading files that a user or a kill may have damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from orin_runner.errors import UserError


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON object from a file.

    Args:
        path: the file.
        hint: what to do where it does not hold one.

    Raises:
        UserError: missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing", hint) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}", hint) from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object", hint)
    return value


def is_torn(path: Path) -> bool:
    """Whether a kill has torn the last line of ``path``: it has no end."""
    content = path.read_bytes()
    return bool(content) and not content.endswith(b"\n")


def drop_torn_line(path: Path) -> bool:
    """Remove what follows the last line end of ``path``; whether there was any."""
    if not is_torn(path):
        return False
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return True
