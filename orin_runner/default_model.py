"""Where the last converted model is remembered, so that ``orin-run eval mmlu`` needs no path."""

from __future__ import annotations

import os
from pathlib import Path

from orin_runner.errors import UserError
from orin_runner.files import make_folder, read_bytes, state_folder

MODEL_VARIABLE = "ORIN_MODEL"
NAME_ONE = "--model FILE.gguf, or make convert MODEL=..."


def state_file() -> Path:
    """``$XDG_STATE_HOME/orin-run/last-model``."""
    return state_folder() / "last-model"


def remember(model: Path) -> None:
    """Make ``model`` the default."""
    path = state_file()
    make_folder(path.parent)
    path.write_bytes(os.fsencode(model.resolve()) + b"\n")


def default_model() -> tuple[Path, str]:
    """The model to use where none is named, and why it is that one.

    Raises:
        UserError: there is none, or what is remembered is no path.
    """
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        return Path(named), f"from {MODEL_VARIABLE}"
    path = state_file()
    if not path.exists():
        raise UserError("no model is named and none has been converted", NAME_ONE)
    name = os.fsdecode(read_bytes(path).removesuffix(b"\n"))
    if not name or "\0" in name:
        raise UserError(f"no model is named, and {path} holds no path", NAME_ONE)
    return Path(name), "the last make convert"
