"""What is printed: plain lines where no terminal is, and nothing that a terminal acts on."""

from __future__ import annotations

import ast
import io
import json
import re
import unicodedata

import pytest
from rich.console import Console

from orin_runner import console
from orin_runner.console import Notes, print_table, printable, say, say_json
from tests.support.paths import ROOT

PRINTING = {
    *("print", "pprint", "rich.print", "Console", "typer.echo", "typer.secho", "click.echo"),
    *("sys.stdout.write", "sys.stderr.write", "traceback.print_exc", "warnings.warn"),
}
MARKUP = "[bold]x[/red] [link=http://e]y[/link] :smile:"


def test_plain_lines_tell_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not more often than every ten seconds; a quarter in 600 s leaves 1800 s, less than 1 % says nothing."""
    clock = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: clock)
    with console.Notes().progress("mmlu", 1.0) as bar:
        clock = 9.0
        bar.update(0.01, "too early")
        clock = 20.0
        bar.update(0.009, "begun")
        clock = 600.0
        bar.update(0.25, "3/12 items")
        clock = 605.0
        bar.update(0.26, "too early")
    with console.Notes().progress("loading", None) as bar:
        clock = 620.0
        bar.update(3)
    assert capsys.readouterr().err.splitlines() == [
        "mmlu 1 % begun",
        "mmlu 25 % 3/12 items, 0:30:00 left",
        "loading",
    ]


def test_every_character_that_acts_is_spelled_out() -> None:
    """What stays is to be seen, and what is spelled out can be read back."""
    for c in map(chr, (*range(0x20000), *range(0xE0000, 0xE1000))):
        shown = printable(c)
        if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert shown.startswith("\\")
            assert shown.isascii()
            assert ast.literal_eval(f'"{shown}"') == c
        else:
            assert shown == c
    assert printable("a\tb\u200d\x1b", keep="\t\u200d") == "a\tb\u200d\\x1b"


def test_a_text_of_any_length_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Its beginning, which says what it is about, and the hint at its end."""
    Notes().error(f"unknown task {'x' * 100_000!r}", "orin-run tasks lists all")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown task 'xxx")
    assert line.endswith("xxx'; orin-run tasks lists all")
    assert len(line) < 2100


def test_all_ways_to_print_take_text_for_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, markup and emoji as they were written."""
    nasty, shown = f"a\nb\x1b[31m{MARKUP}", f"a\\nb\\x1b[31m{MARKUP}"
    notes = Notes()
    notes.note(nasty)
    notes.warn(nasty)
    notes.error(nasty, nasty)
    say(nasty)
    print_table(nasty, (nasty, "n"), [(nasty, nasty)])
    out, err = capsys.readouterr()
    assert err.splitlines() == [shown, f"warning: {shown}", f"error: {shown}; {shown}"]
    assert out.splitlines()[0] == shown
    assert out.count(shown) == 5
    say_json({nasty: "\x7f\x9b\u202e"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {nasty: "\x7f\x9b\u202e"}


def test_a_bar_on_a_terminal_takes_text_for_text() -> None:
    """Its label and its words; the terminal's own orders are rich's."""
    notes, screen = Notes(), io.StringIO()
    notes._console = Console(file=screen, force_terminal=True, width=200, markup=False, emoji=False, color_system=None)
    with notes.progress(f"\x1b]0;t\x07{MARKUP}", 1.0) as bar:
        bar.update(0.5, f"\x9b31m{MARKUP}")
    shown = screen.getvalue()
    assert shown.count(MARKUP) >= 2
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "\x9b" not in shown


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (40, ""),
        (60, "12,134/14,042 items"),
        (80, "12,134/14,042 items, 123.4 items/s"),
        (100, "12,134/14,042 items, 123.4 items/s, 73% of tokens saved"),
    ],
)
def test_a_bar_says_what_there_is_room_for(width: int, said: str) -> None:
    """Less words on a narrow terminal, a label that is cut, but no number and not the time left."""
    for label in ("hellaswag", "comparing a-model-of-a-long-name.gguf"):
        notes, screen = Notes(), io.StringIO()
        notes._console = Console(file=screen, force_terminal=True, width=width, markup=False, color_system=None)
        with notes.progress(label, 1.0) as bar:
            bar.update(0.25, "12,134/14,042 items, 123.4 items/s, 73% of tokens saved")
        *_, line = (line for line in re.split(r"[\r\n]+", screen.getvalue()) if " 25 %" in line)
        end = line.partition(" 25 % ")[2].split()
        assert re.fullmatch(r"-:--:--|\d:\d\d:\d\d", end[-1])
        rest = " ".join(end[:-1])
        assert rest == said if label == "hellaswag" else said.startswith(rest)
        assert len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) <= width


def test_nothing_else_prints() -> None:
    """No ``print``, no ``typer.echo``, no stream and no console of rich but in ``console.py``."""
    paths = [path for package in ("convert", "eval", "orin_runner") for path in (ROOT / package).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTING
    ]
    elsewhere = [place for place in found if not place.startswith("orin_runner/console.py:")]
    # The answers of a process to the one that started it.
    assert [place for place in elsewhere if not place.startswith("orin_runner/model/template_process.py:")] == []
    assert len(found) > len(elsewhere)
