"""Malformed inputs, a forked process each: one error line or a right result; no traceback, hang or lost file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.suite import FAMILIES, SCHEDULE, SEEDS
from tests.support.fuzz.case import Case, Outcome, Place
from tests.support.fuzz.forked import run_case
from tests.support.fuzz.mutations import damaged, other_json
from tests.support.fuzz.verdict import violations
from tests.support.paths import ROOT

QUICK = 75


def fuzz(seeds: str) -> str:
    """The suite in a fresh process, which forks before it has threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seeds", seeds], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-3_000:]}"
    return done.stdout


def test_a_part_of_the_malformed_inputs() -> None:
    """Most families have cases among these."""
    n = len({SCHEDULE[seed % len(SCHEDULE)] for seed in range(QUICK)})
    assert f"{QUICK} cases of {n} families, 0 with violations" in fuzz(f"0:{QUICK}")


@pytest.mark.slow
def test_all_malformed_inputs() -> None:
    """The whole suite; ``python -m tests.fuzz --seeds 0:2400`` prints its figures."""
    assert f"{SEEDS} cases of {len(FAMILIES)} families, 0 with violations" in fuzz(f"0:{SEEDS}")


def test_a_seed_names_an_input() -> None:
    """Whatever ran before it; and families are as frequent as their shares say."""
    assert Counter(SCHEDULE) == {name: share for name, (_, share) in FAMILIES.items()}
    content = b'{"a": [1, 2, {"b": "text"}], "c": null, "d": true}' * 20
    for seed in range(300):
        assert damaged(content, b"other", Random(seed)) == damaged(content, b"other", Random(seed))
        assert other_json(content[:50], Random(seed)) == other_json(content[:50], Random(seed))


def bad_traceback() -> None:
    raise KeyError("x")


def bad_signal() -> None:
    os.abort()


def bad_loop() -> None:
    while True:
        pass


def bad_memory() -> None:
    print(len(bytearray(8 << 30)))


def bad_partial() -> None:
    Path("../out/x.partial").touch()


def bad_source() -> None:
    Path("../in/file").write_text("other")
    print("error: it is damaged", file=sys.stderr)
    sys.exit(2)


def bad_lines() -> None:
    print("error: one\nerror: two", file=sys.stderr)
    sys.exit(2)


def bad_text() -> None:
    print("\x1b[31mred")


def bad_child() -> None:
    subprocess.Popen(["sleep", "60"])


def bad_status() -> None:
    sys.exit(1)


def bad_half_run() -> None:
    Path("../out/run").mkdir()
    print("error: it is damaged", file=sys.stderr)
    sys.exit(2)


BAD = {
    bad_traceback: "KeyError|Traceback",
    bad_signal: "signal 6",
    bad_loop: "hangs",
    bad_memory: "MemoryError|Traceback",
    bad_partial: "left behind",
    bad_source: "was changed",
    bad_lines: "2 error lines",
    bad_text: "control character",
    bad_child: "outlived",
    bad_status: "status 1",
    bad_half_run: "run was made",
}


@pytest.mark.parametrize("program", BAD, ids=lambda program: program.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other tests of this process may have made threads
def test_each_broken_promise_is_seen(program: object, tmp_path: Path) -> None:
    """A program that breaks one."""
    place = Place(tmp_path / "case", tmp_path).make()
    (place.inputs / "file").write_text("sound")
    case = Case(["x"], writes=(place.out,), seconds=1.0)
    found = violations(case, run_case(case, place, {"x": program}))  # type: ignore[dict-item]
    assert any(re.search(BAD[program], line) for line in found), found  # type: ignore[index]


def good() -> None:
    Path("../out/file").write_text("x")
    print("accuracy 12.5 %")


def good_refusal() -> None:
    print("warning: it is odd\nerror: it is damaged; make it again", file=sys.stderr)
    sys.exit(2)


@pytest.mark.parametrize("program", [good, good_refusal])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kept_promises_are_no_violations(program: object, tmp_path: Path) -> None:
    """A result in its place, and one error line."""
    place = Place(tmp_path / "case", tmp_path).make()
    case = Case(["x"], writes=(place.out,))
    assert violations(case, run_case(case, place, {"x": program})) == []  # type: ignore[dict-item]


def test_wrong_results_are_seen(tmp_path: Path) -> None:
    """Status 0 with another result than the case has worked out."""
    outcome = Outcome(0, out="accuracy 99 %\n")
    case = Case(["x"], right=lambda found: None if "12.5" in found.out else "another accuracy")
    assert violations(case, outcome) == ["wrong without a word: another accuracy"]
    assert violations(Case(["x"], must_refuse=True), outcome) == ["was accepted"]
