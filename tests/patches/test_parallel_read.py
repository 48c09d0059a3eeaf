"""The reads of ``patches/*-parallel-read.patch``, compiled by themselves, against plain reads of the same file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

(PATCH,) = (ROOT / "patches").glob("*-parallel-read.patch")
COMPILER = next(filter(shutil.which, ("g++", "clang++", "c++")), None)
PART = 4 << 20
"""``read_part_min``."""
PROGRAM = """
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>
#include <unistd.h>

static std::string format(const char * text, const char * what) {{ return std::string(text) + what; }}

struct impl {{
    FILE * fp;
{code}
}};

int main(int, char ** argv) {{
    impl file {{ fopen(argv[1], "rb") }};
    const size_t offset = atoll(argv[2]), len = atoll(argv[3]);
    std::vector<char> found(len), plain(len);
    fseek(file.fp, 5, SEEK_SET);
    try {{
        file.read_parallel(found.data(), offset, len);
    }} catch (const std::exception & error) {{
        puts(error.what());
        return 3;
    }}
    if (ftell(file.fp) != 5) {{ puts("moved"); return 4; }}
    fseek(file.fp, offset, SEEK_SET);
    if (fread(plain.data(), 1, len, file.fp) != len) {{ return 5; }}
    puts(found == plain ? "same" : "other");
}}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FILE OFFSET LEN: says whether a parallel read and a plain one have the same."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler to compile the patch's code with")
    body = PATCH.read_text(encoding="utf-8").split("+++ b/src/llama-mmap.cpp\n")[1]
    lines = "".join(line[1:] + "\n" for line in body.splitlines() if line.startswith("+"))
    found = re.search(r"(?s)(    // One thread copies.*?)#endif", lines)
    assert found
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "main.cpp").write_text(PROGRAM.format(code=found[1]), encoding="utf-8")
    command = [COMPILER, "-std=c++17", "-O1", "-pthread", "-o", str(folder / "main"), str(folder / "main.cpp")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "main"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 MiB and a few bytes, of no pattern."""
    path = tmp_path_factory.mktemp("file") / "weights"
    path.write_bytes(os.urandom(10 * PART + 13))
    return path


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 2 * PART), (7, 2 * PART + 1), (1, 3 * PART - 1), (4096, 9 * PART + 4), (0, 10 * PART + 13), (13, 10 * PART)],
)
def test_parts_make_the_whole(program: Path, file: Path, offset: int, length: int) -> None:
    """Whatever remains beside eight parts; to the last byte; the position of the file stays."""
    done = subprocess.run([program, file, str(offset), str(length)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "same\n")


def test_a_file_that_is_too_short_is_an_error(program: Path, file: Path) -> None:
    done = subprocess.run([program, file, "14", str(10 * PART)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "unexpectedly reached end of file\n")
