"""A library that cannot be loaded, most often for lack of memory, ends a command in one line."""

from __future__ import annotations

import importlib
import resource
import subprocess
from pathlib import Path

import pytest

from orin_runner.cli import exits
from tests.support.commands import CONVERT
from tests.support.paths import TINY


def ended(program: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and stderr."""
    with pytest.raises(SystemExit) as caught:
        exits.run(program)  # type: ignore[arg-type]
    return int(caught.value.code or 0), capsys.readouterr().err


RAISED = {
    "ImportError('libtorch_cpu.so: failed to map segment from shared object')": "libtorch_cpu.so: failed to map",
    "RuntimeError('Failed to load shared library')": "Failed to load shared library",
    "SystemError('error return without exception set')": "error return without exception set",
    "ValueError": "ValueError",
}


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("inner", [False, True])
def test_whatever_a_library_raises_while_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: str, *, inner: bool
) -> None:
    """By itself, or by one that it loads late."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "scarce_library.py").write_text(f"def load():\n    raise {raised}\nload()\n")
    (tmp_path / "lazy_library.py").write_text("def use():\n    import scarce_library\n")

    def program() -> None:
        if inner:
            importlib.import_module("lazy_library").use()
        else:
            importlib.import_module("scarce_library")

    status, stderr = ended(program, capsys)
    assert status == 1
    assert stderr.startswith(f"error: a library cannot be loaded: {RAISED[raised]}")
    assert "ulimit -v" in stderr
    assert "Traceback" not in stderr


def test_memory_and_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are said with what to do."""

    def no_memory() -> None:
        raise MemoryError

    def no_thread() -> None:
        raise RuntimeError("can't start new thread")

    for program, said in ((no_memory, "error: out of memory"), (no_thread, "error: can't start new thread")):
        status, stderr = ended(program, capsys)
        assert status == 1
        assert stderr.startswith(said)
        assert "ulimit -v" in stderr


def test_a_bug_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is loaded and called wrongly, and a module of this project that is not there."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strict_library.py").write_text("def use(n):\n    raise ValueError(n)\n")
    library = importlib.import_module("strict_library")
    with pytest.raises(ValueError, match="3"):
        exits.run(lambda: library.use(3))
    with pytest.raises(ModuleNotFoundError):
        exits.run(lambda: importlib.import_module("orin_runner.nothing"))


def test_a_library_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named."""
    status, stderr = ended(lambda: importlib.import_module("no_library_of_this_name"), capsys)
    assert (status, "No module named 'no_library_of_this_name'" in stderr) == (1, True)


@pytest.mark.parametrize("mib", [250, 400])
def test_a_converter_without_memory_for_torch(tmp_path: Path, mib: int) -> None:
    """torch's largest library does not fit; nothing is left."""
    done = subprocess.run(
        [*CONVERT, TINY, tmp_path / "out" / "x.gguf"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20)),
    )
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
