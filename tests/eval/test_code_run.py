"""Code that a model has written runs shut off: it computes and reads, and reaches nothing."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval import code_process, code_run
from eval.code_run import passes, require
from orin_runner.errors import RunError, UserError


@pytest.mark.parametrize(
    "code",
    [
        "",
        "import math, re, heapq, collections, itertools, hashlib\nassert hashlib.md5(b'a').hexdigest()[0] == '0'",
        "import numpy\nassert (numpy.ones((40, 40)) @ numpy.ones((40, 40)))[0, 0] == 40",
        "print('x' * 10 ** 6)",
        "assert open('/etc/passwd').read()",
        "assert __name__ == 'builtins'",  # as in the harness's: what stands below __main__ does not run
        "import time\ntime.sleep(0.1)",
    ],
)
def test_what_a_solution_needs_works(code: str) -> None:
    assert passes(code)


@pytest.mark.parametrize(
    "code",
    [
        "assert 1 == 2",
        "def f(:",
        "\0",
        "raise SystemExit",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def f(): return f()\nf()",
        "x = 'a' * (2 << 30)",
        "import ctypes\nctypes.string_at(0)",
        "input()",
    ],
)
def test_what_fails_fails(code: str) -> None:
    """Exceptions, exits of any kind, memory, a crash."""
    assert not passes(code)


def attempts(folder: Path, port: int, pid: int) -> list[str]:
    file, new = str(folder / "kept"), str(folder / "new")
    return [
        f"import socket\nsocket.create_connection(('127.0.0.1', {port}))",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        f"open({new!r}, 'w').write('x')",
        f"open({file!r}, 'a').write('x')",
        f"open({file!r}, 'r+').write('x')",
        f"import os\nos.open({str(folder)!r}, os.O_TMPFILE | os.O_RDWR)",
        f"import os\nos.remove({file!r})",
        f"import os\nos.rename({file!r}, {new!r})",
        f"import os\nos.link({file!r}, {new!r})",
        f"import os\nos.symlink({file!r}, {new!r})",
        f"import os\nos.truncate({file!r}, 0)",
        f"import os\nos.chmod({file!r}, 0)",
        f"import os\nos.utime({file!r}, (0, 0))",
        f"import os\nos.mkdir({new!r})",
        f"import os\nos.mkfifo({new!r})",
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        f"import os\nos.execv({sys.executable!r}, ['x'])",
        "import threading\nthreading.Thread(target=print).start()",
        f"import os\nos.kill({pid}, 9)",
        f"import resource\nresource.prlimit({pid}, resource.RLIMIT_CPU, (1, 1))",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))",
        "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
        "import fcntl\nfcntl.fcntl(0, fcntl.F_GETFL)",
        f"import mmap, os\nmmap.mmap(os.open({file!r}, os.O_RDONLY), 1)[0] = 65",
    ]


def test_nothing_is_reached(tmp_path: Path) -> None:
    """No network, file, process, thread or signal, by whatever call; each fails, and nothing has changed."""
    (tmp_path / "kept").write_text("kept")
    before = (tmp_path / "kept").stat()
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen(["sleep", "600"]) as other:
        codes = attempts(tmp_path, server.getsockname()[1], other.pid)
        passed = [code for code in codes if passes(code)]
        alive = other.poll() is None
        other.kill()
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert (passed, alive) == ([], True)
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    after = (tmp_path / "kept").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
    assert (tmp_path / "kept").read_text() == "kept"


@pytest.fixture
def _no_hang() -> Iterator[None]:
    """What is not ended ends the test."""
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.mark.usefixtures("_no_hang")
@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        ({"SECONDS": 1, "WALL_SECONDS": 10_000}, "while True: pass"),
        ({"SECONDS": 1, "WALL_SECONDS": 10_000}, "while True:\n    try: 1 / 0\n    except BaseException: pass"),
        ({"SECONDS": 10_000, "WALL_SECONDS": 1}, "import time\ntime.sleep(10_000)"),
    ],
)
def test_endless_code_is_ended(bounds: dict[str, int], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound on CPU time, by the kernel; what only waits, at the one on the clock."""
    for name, bound in bounds.items():
        monkeypatch.setattr(code_run, name, bound)
    assert not passes(code)


def state(pid: str) -> str:
    """One letter of ``/proc``, Z where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "Z"


def wait_until(true: object, seconds: float = 30.0) -> bool:
    assert callable(true)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_what_waits_ends_with_who_waits_for_it() -> None:
    """Its parent was killed."""
    waits = "from eval.code_run import passes; passes('import time\\ntime.sleep(1000)')"
    with subprocess.Popen([sys.executable, "-c", waits], cwd=Path(code_run.__file__).parents[1]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert wait_until(lambda: children.read_text().strip())
        child = children.read_text().strip()
        filtered = Path(f"/proc/{child}/status")
        assert wait_until(lambda: "\nSeccomp:\t2\n" in filtered.read_text())
        parent.kill()
    assert wait_until(lambda: state(child) == "Z")


def test_a_machine_without_filters_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is run there, and what is wrong is one line."""
    source, program = Path(code_process.__file__).read_text(), tmp_path / "code_process.py"
    program.write_text(source.replace("if os.uname().machine not in CALLS", "if True"))
    assert program.read_text() != source
    monkeypatch.setattr(code_run, "PROGRAM", program)
    with pytest.raises(RunError, match="and was not run"):
        passes(f"open({str(tmp_path / 'new')!r}, 'w')")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"cannot be shut off .*; leave out the tasks that run code"):
        require()


@pytest.mark.parametrize("probe", range(len(code_run.PROBES)))
def test_a_filter_that_lets_something_through_is_refused(
    probe: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By each probe alone; without a filter all of them run to their end."""
    source, program = Path(code_process.__file__).read_text(), tmp_path / "code_process.py"
    program.write_text(source.replace("(RETURN, 0, 0, DENY)", "(RETURN, 0, 0, ALLOW)"))
    assert program.read_text() != source
    require()
    monkeypatch.setattr(code_run, "PROGRAM", program)
    monkeypatch.setattr(code_run, "PROBES", code_run.PROBES[probe : probe + 1])
    with pytest.raises(UserError, match="cannot be shut off"):
        require()


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_calls_numbers_are_the_kernels(machine: str, header: str) -> None:
    """None of the calls that reach something is among them."""
    if not Path(header).exists():
        pytest.skip(f"{header} is not here")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    if machine == "aarch64":
        numbers["newfstatat"] = numbers["fstatat"]
    older = "stat lstat access readlink time select poll arch_prctl".split() if machine == "x86_64" else []
    _, calls, old = code_process.CALLS[machine]
    assert calls.split() == [numbers[name] for name in code_process.NAMES.split()]
    assert old.split() == [numbers[name] for name in older]
    reaching = (
        "socket connect execve clone clone3 kill tgkill ioctl fcntl unlinkat renameat2 prlimit64 ptrace memfd_create"
    )
    assert not {numbers[name] for name in reaching.split()} & {*calls.split(), *old.split()}
