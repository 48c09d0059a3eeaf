"""The choices that a prompt lists, whatever it lists."""

from __future__ import annotations

import pytest

from orin_runner.model.candidates import choices_in


def test_the_last_list_counts() -> None:
    """A prompt may quote another one before its own."""
    assert choices_in("choices: ['a']\nso\nchoices: ['x', 'y z', 3]\n") == ("x", "y z", "3")
    assert choices_in("choices: ['\\d']") == ("\\d",)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "listed",
    [
        "[" * 300 + "]" * 300,
        "[{[]: 1}]",
        "[{{}}]",
        "[0x" + "f" * 5000 + "]",
        "[" + "9" * 5000 + "]",
        "[" + "-" * 100_000 + "1]",
        "[" + "1+1j+" * 50_000 + "1]",
        "['\0']",
        "['\ud83d']",
        "[f'{1}']",
        "[__import__('os')]",
        "[1,",
    ],
)
def test_no_list_is_no_error(listed: str) -> None:
    """Python refuses each of these in its own way; nested too deep is a lack of memory to it."""
    assert choices_in(f"choices: {listed}") == ()
