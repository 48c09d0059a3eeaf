"""Files that are damaged or none, strict JSON, and writing all or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orin_runner.errors import UserError
from orin_runner.files import (
    append_bytes,
    json_text,
    make_folder,
    naming,
    open_regular,
    parse_json,
    read_json,
    silence,
    write_whole,
)
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', '"\\ud83d"', "9" * 5000, "[" * 5000 + "]" * 5000, "", "{} {}", '"\0"'],
)
def test_what_is_no_strict_json_is_refused(text: str, tmp_path: Path) -> None:
    """As a value and as a file, in one line that names it."""
    with pytest.raises(ValueError, match=r"line 1 column"):
        parse_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON: .*; do this"):
        read_json(tmp_path / "a.json", "do this")


@pytest.mark.parametrize("content", [b'{"a": 1e999}', b'{"a": "\xff"}', b"\xef\xbb\xbf{}"])
def test_numbers_beyond_doubles_and_other_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json", "do this")


def test_strict_json_is_written() -> None:
    """Half a surrogate pair, which no file could hold, is a question mark; NaN is an error."""
    assert json_text({"a": "é\ud83d😀"}) == '{"a": "é?😀"}'
    assert json_text(["é\ud83d"], ascii_only=True) == '["\\u00e9?"]'
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_text([bad])


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would be waited for, a device might never end."""
    os.mkfifo(tmp_path / "pipe")
    signal.alarm(30)
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a pipe")):
        with pytest.raises(UserError, match=f"{path} is {kind}"):
            open_regular(path)
    signal.alarm(0)


def test_a_file_is_replaced_through_its_link_and_nothing_else_is(tmp_path: Path) -> None:
    """Neither a device nor what a left-over name points to."""
    (tmp_path / "page").write_text("old")
    (tmp_path / "link").symlink_to("page")
    (tmp_path / "other").write_text("kept")
    (tmp_path / "page.partial").symlink_to("other")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert [(tmp_path / name).read_text() for name in ("page", "other")] == ["new", "kept"]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (Path("/dev/null"), tmp_path / "pipe", tmp_path / "loop", tmp_path):
        with pytest.raises(UserError, match="is no regular file, and is not replaced"):
            write_whole(path, "new")
    assert Path("/dev/null").is_char_device()


def test_what_interrupts_a_writing_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the disk is waited for: the old file stays, and nothing beside it."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "page").write_text("old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "page", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page", "old")]


def test_errors_of_an_open_file_name_it() -> None:
    """Those of the system, and numpy's, which has no number either."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        with pytest.raises(OSError, match=r"No space left on device: 'the file'"), naming(Path("the file")):
            full.write(b"x")
        with pytest.raises(OSError, match=r"100000 requested and \d+ written: 'the file'"), naming(Path("the file")):
            np.zeros(100_000, np.uint8).tofile(full)


def test_folders_of_any_depth_are_made(tmp_path: Path) -> None:
    """More than Python may call itself for; one that is there is left, and a file is none."""
    deep = tmp_path.joinpath(*"a" * 1500)
    make_folder(deep)
    make_folder(deep)
    assert deep.is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(OSError, match="file"):
            make_folder(path)
    while deep != tmp_path:  # nor may pytest, which removes them
        deep.rmdir()
        deep = deep.parent


def test_of_folders_that_cannot_be_made_none_is_left(tmp_path: Path) -> None:
    """A name that is too long, below others that are not; what was there stays."""
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="too long"):
        make_folder(tmp_path / "there" / "a" / "b" / ("x" * 300) / "c")
    assert list((tmp_path / "there").iterdir()) == []


def test_nothing_gets_to_standard_output_or_error(capfd: pytest.CaptureFixture[str]) -> None:
    """By whatever way; afterwards it does again, after an exception, too."""
    with silence():
        os.write(1, b"Rust")
        os.write(2, b"Rust")
        subprocess.run(["sh", "-c", "echo C; echo C >&2"], check=True)
    with pytest.raises(ZeroDivisionError), silence():
        raise ZeroDivisionError
    os.write(1, b"result")
    os.write(2, b"after")
    assert capfd.readouterr() == ("result", "after")


def test_silence_where_a_stream_is_closed() -> None:
    """As services have it that a program's own library call runs in."""
    program = "import os; from orin_runner.files import silence; os.close(1)\nwith silence(): pass\nos.write(2, b'on')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "on")


def test_a_file_that_takes_pieces_gets_all(tmp_path: Path) -> None:
    class Slow:
        """Takes three bytes at a time."""

        content = b""

        def write(self, data: memoryview) -> int:
            self.content += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    append_bytes(slow, b"0123456789")  # type: ignore[arg-type]
    assert slow.content == b"0123456789"
