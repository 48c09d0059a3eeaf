"""How far off the time left is that a run says, at each tenth of the run.

    python -m benchmarks.time_left bbh mmlu --model FILE.gguf --data FOLDER --limit 300

Takes what ``orin-run eval`` takes. The ratios are of what was said and what then passed until the last answer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from eval.progress import Status
from eval.time_left import TimeLeft
from orin_runner.cli.main import main as orin_run

said: list[tuple[float, float | None]] = []
"""When something was said, and the seconds left by it."""
told = TimeLeft.left


def recorded(self: TimeLeft, status: Status, now: float) -> float | None:
    """``TimeLeft.left``, and what it says is kept."""
    left = told(self, status, now)
    said.append((now, left))
    return left


def main() -> None:
    TimeLeft.left = recorded  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["orin-run", "eval", *sys.argv[1:], "--out", str(Path(folder) / "run")]
        try:
            orin_run()
        except SystemExit as ended:
            if ended.code:
                raise
    began, end = said[0][0], said[-1][0]
    print(f"{end - began:.1f} s from the first to the last answer")
    print("part of it  said / passed, least and most")
    for tenth in range(10):
        first, last = (began + (end - began) * (tenth + k) / 10 for k in (0, 1))
        within = [(now, left) for now, left in said if first <= now < last]
        ratios = [left / (end - now) for now, left in within if left is not None]
        unknown = sum(left is None for _, left in within)
        found = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "nothing"
        print(f"{tenth * 10:3d} to {tenth * 10 + 10:3d} %  {found}" + (f", {unknown} times not known" * bool(unknown)))


if __name__ == "__main__":
    main()
