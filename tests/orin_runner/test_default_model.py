"""Where the last converted model is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orin_runner.default_model import MODEL_VARIABLE, default_model, remember, state_file
from orin_runner.errors import UserError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", [b"m.gguf", b"m\xff\xfe.gguf", b" m .gguf", b"m\n.gguf"])
def test_any_name_of_a_file_is_remembered(state: Path, name: bytes) -> None:
    model = state.resolve() / os.fsdecode(name)
    remember(model)
    assert default_model()[0] == model


@pytest.mark.parametrize("content", [b"", b"\n", b"a\0b"])
def test_what_is_no_path_is_refused(content: bytes) -> None:
    state_file().parent.mkdir(parents=True)
    state_file().write_bytes(content)
    with pytest.raises(UserError, match="holds no path"):
        default_model()


def test_what_is_no_file_is_refused() -> None:
    """Nobody would ever write into it."""
    state_file().parent.mkdir(parents=True)
    os.mkfifo(state_file())
    with pytest.raises(UserError, match=state_file().name):
        default_model()
