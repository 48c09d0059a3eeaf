"""Names that a terminal would act on: of tasks, groups, items, models, folders, keys, templates and options."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orin_runner.cli import convert, main
from tests.support.commands import ORIN_RUN
from tests.support.gguf_bytes import ARRAY, STRING, UINT32, Typed, gguf, tokenizer_json
from tests.support.predictions import prediction, write

ACTS = "\x1b[31m\x1b]0;t\x07\r\b\x7f\x9b1m\x9d\u202e\u2066\u200b\ufeff\u2028"
MARKUP = "[bold]b[/red][link=x]l[/link]:smile:"
NASTY = f"n{ACTS}{MARKUP}"
SHOWN = r"n\x1b[31m\x1b]0;t\x07\r\x08\x7f\x9b1m\x9d\u202e\u2066\u200b\ufeff\u2028" + MARKUP


def hidden(text: str, keep: str = "\n") -> set[str]:
    """The characters of ``text`` that are not to be seen."""
    return {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and c not in keep}


def printed(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command prints, after a look at each of its characters."""
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert hidden(done.stdout) == set(), done.stdout
    assert hidden(done.stderr) == set(), done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line in this process, which it ends with status 2; returns what it says."""

    def run(program: Callable[[], None], *arguments: str | Path) -> str:
        monkeypatch.setattr("sys.argv", ["orin-run", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            program()
        assert ended.value.code == 2
        out, err = capfd.readouterr()
        assert hidden(out) == hidden(err) == set(), (out, err)
        return err

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs in which everything that has a name has this one; a file name that is no UTF-8, too."""
    folder = tmp_path_factory.mktemp("runs") / os.fsdecode(NASTY.encode() + b"\xff")
    model = {"name": NASTY, "architecture": NASTY, "types": {NASTY: 1}, "altered_values": 0}
    for name, answer in (("a", NASTY), ("b", "A")):
        items = [
            prediction(
                i, answer, task=NASTY, id=f"{NASTY}/{i}", group=f"{NASTY}{i % 2}", failed=NASTY if i == 3 else None
            )
            for i in range(4)
        ]
        write(folder / name, items, **model)
    return folder / "a", folder / "b"


def test_runs_are_compared_and_shown(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """As text: neither the terminal's orders nor rich's markup and emoji are taken for what they say."""
    done = printed(*ORIN_RUN, "diff", *runs)
    assert done.returncode == 1, done.stderr
    assert SHOWN in done.stdout
    done = printed(*ORIN_RUN, "report", *runs, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    for command in ("diff", "report"):
        out = ("--out", tmp_path / "page.html") if command == "report" else ()
        done = printed(*ORIN_RUN, command, *runs, *out, "--json")
        assert done.stdout.isascii()
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert hidden(page) == set()
    assert page.count(SHOWN) > 10


@pytest.mark.parametrize(
    "changed",
    [
        {"general.architecture": Typed(UINT32, 1), NASTY: Typed(UINT32, 1)},
        {"general.architecture": Typed(STRING, NASTY)},
        {"llama.context_length": Typed(STRING, NASTY)},
        {"tokenizer.huggingface.json": Typed(STRING, NASTY)},
        {"tokenizer.huggingface.json": Typed(STRING, tokenizer_json(version=NASTY))},
        {"tokenizer.chat_template": Typed(STRING, f"{{{{ raise_exception('{NASTY}') }}}}")},
        {"tokenizer.chat_template": Typed(STRING, f"{{% {NASTY} %}}")},
        {"orin.generation.stop_token_ids": Typed(ARRAY, [NASTY], STRING)},
    ],
)
def test_a_file_and_what_it_says(tmp_path: Path, here: Callable[..., str], changed: dict[str, Any]) -> None:
    """Its name, its keys, its tokenizer's errors and its template's."""
    path = tmp_path / f"{NASTY}.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(gguf(changed))
    assert f"{SHOWN}.gguf" in here(main.main, "plan", "exam", "--model", path)


def test_the_command_line_is_quoted_as_text(tmp_path: Path, here: Callable[..., str]) -> None:
    """Options, commands, tasks and files that do not exist, in this program's errors and in typer's."""
    file = tmp_path / NASTY
    for arguments in (
        (NASTY,),
        ("tasks", NASTY),
        ("tasks", f"--{NASTY}"),
        ("eval", "exam", "--limit", NASTY),
        ("diff", NASTY, NASTY),
        ("report", NASTY),
        ("eval", NASTY, "--model", file),
        ("plan", "exam", "--model", file),
        ("plan", "exam", "--device", NASTY),
    ):
        here(main.main, *arguments)
    for arguments in ((file, tmp_path / "o.gguf"), (tmp_path, NASTY), (NASTY, NASTY, NASTY), (f"--{NASTY}",)):
        here(convert.main, *arguments)


def test_a_terminal_without_utf_8_is_enough() -> None:
    """What it cannot show is spelled out."""
    done = subprocess.run(
        [*ORIN_RUN, "tasks"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
