"""Devices and amounts of memory as a user names them."""

from __future__ import annotations

import pytest

from orin_runner.machine.devices import KNOWN, parse_size, present_device
from orin_runner.machine.memory_formula import MIB


def test_sizes() -> None:
    """A number and its unit; without one it is no size. K, M and G are binary, as containers and systemd have them."""
    assert parse_size("29000MiB") == 29000 * MIB
    assert parse_size("1.5GiB") == 1536 * MIB
    assert parse_size("31000000000B") == 31_000_000_000
    assert parse_size("2 KiB") == 2048
    assert parse_size("8G") == parse_size("8g") == parse_size("8gib") == 8 << 30
    assert parse_size("512M") == parse_size("512m") == 512 * MIB
    assert parse_size("2K") == 2048
    assert (parse_size("8GB"), parse_size("1.5MB"), parse_size("2kB")) == (8 * 10**9, 1_500_000, 2000)
    for text in ("lots", "123", "0.25", "", "B", "G", "-1MiB", "1TB", "1GiBs", "8 i", "\u0662GiB", "1\u212a"):
        assert parse_size(text) is None


def test_modules_that_are_not_here() -> None:
    """What tegrastats shows of their memory, less 1,300 MiB."""
    found = {name: (device.name, device.available / MIB) for name, device in KNOWN.items()}
    assert found == {
        "orin-32gb": ("Jetson AGX Orin 32GB", 29397),
        "orin-64gb": ("Jetson AGX Orin 64GB", 61541),
    }
    for device in KNOWN.values():
        assert (device.unified, device.cuda, device.present) == (True, True, False)
        assert device.note.startswith(f"{device.available // MIB + 1300:,} MiB seen by Linux")


@pytest.mark.parametrize("size", [0, 1, 300 * MIB])
def test_an_amount_that_is_given_is_what_there_is(size: int) -> None:
    """Nothing is an amount, too: it does not stand for all memory. And the plan says that it was given."""
    device = present_device(size)
    assert (device.available, device.note) == (size, "as given")
    free = present_device()
    assert free.available > 300 * MIB
    assert free.note != "as given"
