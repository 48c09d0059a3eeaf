"""Which deliberate breaks of the code a test sees: run after a change of numbers or of their tests.

Each break of ``benchmarks/breaks/`` is applied, one at a time, to a copy of the tree in a temporary folder, and the
tests that should see it run there. The tree itself is not touched. About fifteen minutes on two cores:

    python -m benchmarks.deliberate_breaks --jobs 2
    python -m benchmarks.deliberate_breaks --only clock --only noise

Exit status 1 if a break was not seen, or could not be tried.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.breaks import BREAKS, Break  # noqa: E402 - the script may be started from anywhere

COPIED = ("benchmarks", "convert", "docs", "eval", "orin_runner", "tests", "pyproject.toml", "Makefile", "README.md")
TIMEOUT_S = 600
SEEN, NOT_SEEN, SPOILT = "seen", "NOT SEEN", "not tried"


def copy_of_the_tree(folder: Path) -> Path:
    """The tree in ``folder``, as it is now."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.exists():
            shutil.copy2(source, target)
    return folder


def run_tests(tree: Path, tests: Sequence[str], *, first_failure: bool) -> subprocess.CompletedProcess[str]:
    """Run ``tests`` in a copy, whose modules stand before those of any installed one."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider", *tests]
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command + ["-x"] * first_failure,
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def failed_already(tree: Path, breaks: Sequence[Break]) -> list[str]:
    """Of the tests that the breaks name, those that fail on the unbroken tree."""
    tests = list(dict.fromkeys(test for one in breaks for test in one.tests))
    done = run_tests(tree, tests, first_failure=False)
    if done.returncode > 1:
        sys.exit(f"the named tests do not run:\n{done.stdout}{done.stderr}")
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)


def tried(tree: Path, one: Break) -> tuple[str, str]:
    """What became of a break, and why."""
    path = tree / one.file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.count(one.old) != 1:
        return SPOILT, f"its text stands {text.count(one.old)} times in {one.file}"
    path.write_text(text.replace(one.old, one.new), encoding="utf-8")
    try:
        done = run_tests(tree, one.tests, first_failure=True)
    except subprocess.TimeoutExpired:
        return SPOILT, f"its tests took more than {TIMEOUT_S} s"
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return NOT_SEEN, "its tests pass"
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not found:
        return SPOILT, (done.stdout + done.stderr).strip().splitlines()[-1]
    return SEEN, found[0]


def main() -> None:
    """Try the breaks and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="breaks with this in their name or file")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the tree, side by side")
    arguments = parser.parse_args()
    breaks = [one for one in BREAKS if not arguments.only or any(w in f"{one.name} {one.file}" for w in arguments.only)]
    if not breaks:
        parser.error("no break has that in its name or file")
    began, counts = time.monotonic(), dict.fromkeys((SEEN, NOT_SEEN, SPOILT), 0)
    with tempfile.TemporaryDirectory(prefix="breaks-") as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(arguments.jobs):
            trees.put(copy_of_the_tree(Path(folder) / str(number)))
        failed = failed_already(Path(folder) / "0", breaks)
        for test in failed:
            print(f"fails on the unbroken tree: {test}")

        def try_one(one: Break) -> tuple[str, str]:
            if any(test.startswith(named) for test in failed for named in one.tests):
                return SPOILT, "one of its tests fails on the unbroken tree"
            tree = trees.get()
            try:
                return tried(tree, one)
            finally:
                trees.put(tree)

        for one, (outcome, why) in zip(breaks, pool.map(try_one, breaks), strict=True):
            counts[outcome] += 1
            print(f"{outcome:9}  {one.name}  ({why})", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()), f"of {len(breaks)} breaks in {minutes:.0f} min")
    sys.exit(counts[SEEN] != len(breaks))


if __name__ == "__main__":
    main()
