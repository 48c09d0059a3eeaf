"""A tiny SmolLM2 as the published package has the real one: quantized, and without a key of this tool's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.families import FAMILIES
from tests.support.foreign import Q4_1, quantized, rewritten
from tests.support.paths import ROOT


@dataclass(frozen=True)
class TinySmolLM2:
    """A checkpoint, and the quantized GGUF of it."""

    checkpoint: Path
    gguf: Path

    @classmethod
    def build(cls, folder: Path) -> TinySmolLM2:
        checkpoint = FAMILIES["SmolLM2"].build(folder / "checkpoint")
        convert(Checkpoint.open(checkpoint), folder / "exact.gguf", Options())
        foreign = rewritten(folder / "exact.gguf", folder / "foreign.gguf")
        return cls(checkpoint, quantized(foreign, folder / "Tiny.Q4_1.gguf", Q4_1))


def run_module(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A module of ``benchmarks/`` as ``make`` starts it, without data that the environment names."""
    env = {name: value for name, value in os.environ.items() if name != "ORIN_DATA"}
    command = [sys.executable, "-m", name, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
