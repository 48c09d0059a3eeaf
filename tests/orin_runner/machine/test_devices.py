"""Devices and amounts of memory as a user names them."""

from __future__ import annotations

from orin_runner.machine.devices import parse_size
from orin_runner.machine.memory_formula import MIB


def test_sizes() -> None:
    """Plain bytes and binary units."""
    assert parse_size("29000MiB") == 29000 * MIB
    assert parse_size("1.5GiB") == 1536 * MIB
    assert parse_size("123") == 123
    assert parse_size("lots") is None
