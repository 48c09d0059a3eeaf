"""A patch is applied to the source it was made for, and to nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from patches.apply import NO_FILE, added, blob, main, results
from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FILES = {"amx-bf16": 6, "parallel-read": 2}
"""By patch, the files of llama.cpp that it changes or adds."""
BEFORE = "".join(f"line {n}\n" for n in range(1, 21))
AFTER = BEFORE.replace("line 3\n", "line three\nand more\n").replace("line 18\n", "")
NEW = "new\n"
PATCH = f"""diff --git a/ggml/old.c b/ggml/old.c
index {blob(BEFORE.encode())}..{blob(AFTER.encode())} 100644
--- a/ggml/old.c
+++ b/ggml/old.c
@@ -2,3 +2,4 @@ line 1
 line 2
-line 3
+line three
+and more
 line 4
@@ -17,3 +18,2 @@ line 16
 line 17
-line 18
 line 19
diff --git a/ggml/new.c b/ggml/new.c
new file mode 100644
index {NO_FILE}..{blob(NEW.encode())}
--- /dev/null
+++ b/ggml/new.c
@@ -0,0 +1 @@
+new
"""


def version() -> str:
    """The llama-cpp-python that `make` compiles."""
    found = re.search(r"(?m)^LLAMA_VERSION := (\S+)$", MAKEFILE)
    assert found
    return found[1]


def source(folder: Path, old: str = BEFORE) -> Path:
    """A source with one file."""
    tree = folder / "llama_cpp_python-1" / "vendor" / "llama.cpp" / "ggml"
    tree.mkdir(parents=True)
    (tree / "old.c").write_text(old, encoding="utf-8")
    return folder / "llama_cpp_python-1"


def applied(folder: Path, patch: str, to: Path) -> int:
    path = folder / "some.patch"
    path.write_text(patch, encoding="utf-8")
    return main([str(path), str(to)])


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("*.c")}


def test_it_changes_and_adds_files(tmp_path: Path) -> None:
    assert applied(tmp_path, PATCH, source(tmp_path)) == 0
    assert contents(tmp_path) == {"old.c": AFTER, "new.c": NEW}


def test_a_new_file_may_lie_in_a_new_folder(tmp_path: Path) -> None:
    patch = PATCH.replace("ggml/new.c", "ggml/more/new.c")
    assert applied(tmp_path, patch, source(tmp_path)) == 0
    assert contents(tmp_path) == {"old.c": AFTER, "new.c": NEW}


@pytest.mark.parametrize(
    ("old", "patch", "said"),
    [
        (BEFORE + "line 21\n", PATCH, "ggml/old.c is not the file that the patch was made for"),
        (AFTER, PATCH, "ggml/old.c is not the file that the patch was made for"),
        (BEFORE, PATCH.replace("+new\n", "+newer\n"), "ggml/new.c does not become the file that the patch names"),
        (BEFORE, PATCH.replace(" line 19\n", " line nine\n"), "line 19 is not the one in the patch"),
        (BEFORE, PATCH.replace(blob(NEW.encode()), "5c8dab1"), "ggml/new.c: no full hashes in the patch"),
        (BEFORE, PATCH.replace("+++ b/ggml/old.c", "+++ /dev/null"), "it removes a file or changes a binary one"),
        (BEFORE, "", "it changes no file"),
    ],
    ids=["another version", "applied before", "another result", "another context", "short hashes", "removed", "empty"],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, patch: str, said: str
) -> None:
    """One line with the way out, exit status 2, and no file is touched."""
    assert applied(tmp_path, patch, source(tmp_path, old)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.startswith("some.patch does not fit llama_cpp_python-1: ")
    assert line.endswith("PATCHES=no compiles it as it is")
    assert contents(tmp_path) == {"old.c": old}


def test_no_source_and_no_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "no.patch"), str(tmp_path)]) == 2
    assert main([]) == 2
    (tmp_path / "binary.patch").write_bytes(b"\xff")
    assert main([str(tmp_path / "binary.patch"), str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def patch_file(name: str) -> Path:
    return ROOT / "patches" / f"llama-cpp-python-{version()}-{name}.patch"


def test_there_are_those_for_the_version_that_is_compiled_and_no_others() -> None:
    assert set((ROOT / "patches").glob("*.patch")) == {patch_file(name) for name in FILES}
    assert version() in (ROOT / "patches" / "README.md").read_text(encoding="utf-8")


def test_added_files_are_whole() -> None:
    """What the patch adds has the hashes that stand in it: nobody edited it by hand."""
    text = patch_file("amx-bf16").read_text(encoding="utf-8")
    named = dict(re.findall(rf"index {NO_FILE}\.\.([0-9a-f]{{40}})\n--- /dev/null\n\+\+\+ b/(\S+)", text))
    assert {blob(content.encode()): name for name, content in added(text).items()} == named
    assert len(named) == 3


def make(*words: str, folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """`make` of the wheel alone, on a processor with AMX, with another program for Python."""
    binary = folder / "venv" / "bin" / "python"
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.write_text(python, encoding="utf-8")
    binary.chmod(0o755)
    words = (*words, f"CACHE={folder}", f"VENV={folder / 'venv'}")
    inherited = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PATCHES", "LLAMA_FLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in inherited}

    def made(*more: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-C", str(ROOT), *more, *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    key = re.search(r"(?m)^KEY := (.*)$", made("-pn", "help").stdout)
    assert key
    return made("-s", f"{folder}/llama-cpp-python-{key[1]}/built")


STUB = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *"pip download"*)
    while [ "$1" != --dest ]; do shift; done
    mkdir -p "$2/llama_cpp_python-{version}" && tar -czf "$2/source.tar.gz" -C "$2" llama_cpp_python-{version} ;;
esac
"""


MACHINES = {"amx-bf16": ("CUDA=", "AMX=amx_bf16"), "parallel-read": ("CUDA=nvcc", "GPU=0", "TEGRA=", "AMX=amx_bf16")}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("patched", [True, False])
def test_make_compiles_the_patched_source(tmp_path: Path, patched: bool, name: str) -> None:
    """Fetched, patched, compiled, in this order; PATCHES=no compiles the version as it is, under another key."""
    log = tmp_path / "log"
    words = [*MACHINES[name], *([] if patched else ["PATCHES=no"])]
    done = make(*words, folder=tmp_path, python=STUB.format(log=log, version=version()))
    assert done.returncode == 0, done.stderr
    lines = log.read_text(encoding="utf-8").splitlines()
    (built,) = tmp_path.glob("llama-cpp-python-*/built")
    if patched:
        download, patch, wheel = lines
        assert "pip download" in download
        assert patch.startswith(f"patches/apply.py patches/{patch_file(name).name} {built.parent}")
        assert wheel.endswith(f"{built.parent}/source/llama_cpp_python-{version()}")
        assert "PATCHES=no" in done.stdout
    else:
        assert [line.endswith(f"llama-cpp-python=={version()}") for line in lines] == [True]
        assert "PATCHES" not in done.stdout
    assert [path.name for path in built.parent.iterdir()] == ["built"], "the source is gone"
    assert (f"-{name}-" in built.parent.name) is patched


def test_make_refuses_another_version(tmp_path: Path) -> None:
    """Before anything is fetched."""
    log = tmp_path / "log"
    words = ["CUDA=", "AMX=amx_bf16", "LLAMA_VERSION=0.0.1"]
    done = make(*words, folder=tmp_path, python=STUB.format(log=log, version="0.0.1"))
    assert done.returncode == 2
    assert "patches/ has none for llama-cpp-python 0.0.1: PATCHES=no compiles it as it is" in done.stdout + done.stderr
    assert not log.exists()
    assert not list(tmp_path.glob("llama-cpp-python-*/built"))


@pytest.mark.parametrize(
    "words", [("CUDA=", "AMX="), ("AMX=", "CUDA=nvcc", "GPU=0", "TEGRA=l4t")], ids=["no AMX", "Jetson"]
)
def test_other_builds_are_as_they_were(tmp_path: Path, words: tuple[str, ...]) -> None:
    log = tmp_path / "log"
    python = STUB.format(log=log, version=version())
    done = make(*words, folder=tmp_path, python=python)
    assert done.returncode == 0, done.stderr
    (line,) = log.read_text(encoding="utf-8").splitlines()
    assert line.endswith(f"llama-cpp-python=={version()}")
    assert "patches/" not in done.stdout


@pytest.mark.slow
def test_they_fit_the_published_source(tmp_path: Path) -> None:
    """The source that pip fetches (77 MB) becomes what each patch names."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python"]
    wanted = f"llama-cpp-python=={version()}"
    done = subprocess.run([*command, "--dest", tmp_path, wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip could not fetch {wanted}: {done.stderr.strip().splitlines()[-1]}")
    (archive,) = tmp_path.glob("*.tar.gz")
    llama = f"llama_cpp_python-{version()}/vendor/llama.cpp"
    inside = (f"{llama}/ggml/src/ggml-cpu/", f"{llama}/src/")
    with tarfile.open(archive) as packed:
        members = [member for member in packed if member.isfile() and member.name.startswith(inside)]
        for member in members:
            file = packed.extractfile(member)
            assert file
            path = tmp_path / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
    for name, n_files in FILES.items():
        assert len(results(patch_file(name).read_text(encoding="utf-8"), tmp_path / llama)) == n_files
