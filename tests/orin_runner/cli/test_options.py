"""Options of the command line that say how a task is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tasks.base import LoadOptions
from orin_runner.cli.options import device_bytes, load_options
from orin_runner.errors import UserError
from orin_runner.machine.devices import KNOWN


def test_options_are_read_or_refused(tmp_path: Path) -> None:
    """--shots is a number or phi3, --scoring one of two words."""
    assert load_options(tmp_path, 3, "phi3", "text", chat=True) == LoadOptions(tmp_path, 3, "phi3", "text", chat=True)
    assert load_options(None, None, "0", None, chat=False) == LoadOptions(shots=0)
    for shots in ("-1", "two", "1.5", "\u00b2"):
        with pytest.raises(UserError, match="--shots is a number or phi3"):
            load_options(None, None, shots, None, chat=False)
    with pytest.raises(UserError, match="--scoring is letters or text, not 'words'"):
        load_options(None, None, None, "words", chat=False)


def test_an_amount_of_memory_has_a_unit() -> None:
    """Neither 0.25 nor 29000 says of what; the line says what to add."""
    assert device_bytes("auto") is None
    assert device_bytes("orin-32gb") == KNOWN["orin-32gb"].available
    assert device_bytes("1MiB") == device_bytes("1048576B") == device_bytes("1024KiB") == 1 << 20
    assert device_bytes("27.5GiB") == 27.5 * (1 << 30)
    for text in ("0.25", "0", "29000", "31000000000"):
        with pytest.raises(UserError) as refusal:
            device_bytes(text)
        assert refusal.value.message == f"--device {text} has no unit"
        assert refusal.value.hint == f"add one of B, KiB, MiB, GiB: --device {text}MiB"
    for text in ("-1", "-5GiB", "nan", "inf", "nanGiB", "1e3MiB", "MiB", "", "\u00b2GiB", "0x10MiB", "9" * 400 + "B"):
        with pytest.raises(UserError, match="is neither a device nor an amount of memory") as refusal:
            device_bytes(text)
        assert "29000MiB" in str(refusal.value.hint)
    with pytest.raises(UserError, match="--device fast is neither a device nor an amount of memory"):
        device_bytes("fast")


@pytest.mark.parametrize("text", ["0B", "0GiB", "0.25MiB", "1048575B", "1000000B"])
def test_less_than_a_mebibyte_is_a_mistake(text: str) -> None:
    """Of the unit, most likely."""
    with pytest.raises(UserError, match=f"^--device {text} is less than 1 MiB;") as refusal:
        device_bytes(text)
    assert "MiB" in str(refusal.value.hint)
