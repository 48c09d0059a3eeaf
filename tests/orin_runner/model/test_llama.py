"""Loading a model: what failed is said as what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orin_runner.model.gguf_file import GGUFFile
from tests.support.shapes import PHI3_MEDIUM, header_only

LOAD = """
import resource, sys
from pathlib import Path
from orin_runner.model.llama import DecodeError, Model
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    Model(Path(sys.argv[1]))
except DecodeError as error:
    print(error)
"""


def test_a_lack_of_memory_for_the_weights_is_not_taken_for_a_bad_file(tmp_path: Path) -> None:
    """26 GiB of weights, all of them a hole in the file, where 8 GiB may be allocated."""
    model = header_only(tmp_path / "m.gguf", PHI3_MEDIUM)
    file = GGUFFile.open(model)
    os.truncate(model, model.stat().st_size + file.data_bytes)
    done = subprocess.run([sys.executable, "-c", LOAD, str(model)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"no memory for the weights of {model}")
