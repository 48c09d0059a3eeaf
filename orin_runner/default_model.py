"""Where the last converted model is remembered, so that ``orin-run eval mmlu`` needs no path."""

from __future__ import annotations

import os
from pathlib import Path

from orin_runner.errors import UserError
from orin_runner.files import make_folder

MODEL_VARIABLE = "ORIN_MODEL"


def state_file() -> Path:
    """``$XDG_STATE_HOME/orin-run/last-model``."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "orin-run" / "last-model"


def remember(model: Path) -> None:
    """Make ``model`` the default."""
    path = state_file()
    make_folder(path.parent)
    path.write_text(f"{model.resolve()}\n", encoding="utf-8")


def default_model() -> tuple[Path, str]:
    """The model to use where none is named, and why it is that one.

    Raises:
        UserError: there is none.
    """
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        return Path(named), f"from {MODEL_VARIABLE}"
    path = state_file()
    if path.exists():
        return Path(path.read_text(encoding="utf-8").strip()), "the last make convert"
    raise UserError("no model is named and none has been converted", "--model FILE.gguf, or make convert MODEL=...")
