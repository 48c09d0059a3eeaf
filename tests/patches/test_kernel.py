"""The AMX kernel of the patch, with its tile instructions in C++: the product of odd shapes, on any processor."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from patches.apply import added
from tests.support.paths import ROOT

HERE = ROOT / "tests" / "patches"
(PATCH,) = (ROOT / "patches").glob("*-amx-bf16.patch")
COMPILER = shutil.which("g++") or shutil.which("c++")


def flags() -> list[list[str]]:
    """Portable code, and what a processor with AVX-512 BF16 takes for the rounding of activations."""
    info = Path("/proc/cpuinfo")
    own = info.is_file() and "avx512_bf16" in info.read_text(encoding="utf-8")
    return [["-O2"], *([["-O2", "-march=native"]] if own else [])]


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("options", flags(), ids=" ".join)
def test_products_of_odd_shapes(tmp_path: Path, options: list[str]) -> None:
    """Edges, passes over K and over rows, partitions; a row is the same alone and among others, bit for bit."""
    (header,) = (text for name, text in added(PATCH.read_text(encoding="utf-8")).items() if name.endswith("-kernel.h"))
    (tmp_path / "bf16-kernel.h").write_text(header, encoding="utf-8")
    program = tmp_path / "kernel_test"
    command = [str(COMPILER), "-std=c++17", "-Wall", "-Wextra", "-Werror", *options, f"-I{tmp_path}"]
    subprocess.run([*command, str(HERE / "kernel_test.cpp"), "-o", str(program)], check=True, timeout=300)
    done = subprocess.run([program], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    count = re.fullmatch(r"(\d+) shapes, 0 wrong\n", done.stdout)
    assert count
    assert int(count[1]) > 490
