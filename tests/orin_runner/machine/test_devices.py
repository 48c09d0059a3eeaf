"""Devices and amounts of memory as a user names them."""

from __future__ import annotations

import pytest

from orin_runner.machine.devices import parse_size, present_device
from orin_runner.machine.memory_formula import MIB


def test_sizes() -> None:
    """A number and its unit, binary; without one it is no size."""
    assert parse_size("29000MiB") == 29000 * MIB
    assert parse_size("1.5GiB") == 1536 * MIB
    assert parse_size("31000000000B") == 31_000_000_000
    assert parse_size("2 KiB") == 2048
    for text in ("lots", "123", "0.25", "", "B", "-1MiB", "1MB", "\u0662GiB"):
        assert parse_size(text) is None


@pytest.mark.parametrize("size", [0, 1, 300 * MIB])
def test_an_amount_that_is_given_is_what_there_is(size: int) -> None:
    """Nothing is an amount, too: it does not stand for all memory. And the plan says that it was given."""
    device = present_device(size)
    assert (device.available, device.note) == (size, "as given")
    free = present_device()
    assert free.available > 300 * MIB
    assert free.note != "as given"
