"""Options of the command line that say how a task is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tasks.base import LoadOptions
from orin_runner.cli.options import load_options
from orin_runner.errors import UserError


def test_options_are_read_or_refused(tmp_path: Path) -> None:
    """--shots is a number or phi3, --scoring one of two words."""
    assert load_options(tmp_path, 3, "phi3", "text", chat=True) == LoadOptions(tmp_path, 3, "phi3", "text", chat=True)
    assert load_options(None, None, "0", None, chat=False) == LoadOptions(shots=0)
    for shots in ("-1", "two", "1.5", "\u00b2"):
        with pytest.raises(UserError, match="--shots is a number or phi3"):
            load_options(None, None, shots, None, chat=False)
    with pytest.raises(UserError, match="--scoring is letters or text, not 'words'"):
        load_options(None, None, None, "words", chat=False)
