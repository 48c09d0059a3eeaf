"""The 2023 clock against a clock outside: from the start of the process to its last score.

    python -m benchmarks.clock_2023 TASK --model FILE --data DIR [...]    what ``orin-run eval`` takes, without --out

The process is started and timed here. Its last score is when ``predictions.jsonl`` was last written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from eval.report.section import CHALLENGE_2023


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.time()
        words = [sys.executable, "-m", "orin_runner", "eval", *sys.argv[1:], "--out", str(out)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        ended = time.time()
        last = (out / "predictions.jsonl").stat().st_mtime
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    *_, section = report["tasks"].values()
    said = section["clocks"][CHALLENGE_2023]
    print(f"said {said:.3f} s, outside {last - began:.3f} s to the last score, {ended - began:.3f} s to the exit")


if __name__ == "__main__":
    main()
