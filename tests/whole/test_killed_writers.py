"""Conversions and references that are killed at random moments: no half of a file stands under its own name.

What they do again afterwards is what nobody disturbed would have written, byte for byte.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from orin_runner.model.gguf_digests import manifest_path
from tests.support.commands import CONVERT, ORIN_RUN, convert, orin_run
from tests.support.moments import Killed, group_has_ended, kill_at_a_moment
from tests.support.waiting import until

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LANDED = 0.7
"""Share of the kills that must find the program running; the others come when it is done."""
SURVIVAL_S = 1.0
"""A child may outlive its parent by so much."""
QUESTIONS = ("exam", "--limit", "4", "--max-new-tokens", "4")

KILLS = 20
"""Of each signal."""

each_signal = pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)


@dataclass(frozen=True)
class Pair:
    """A GGUF and its manifest, as bytes.

    Attributes:
        seconds: that making them took.
    """

    gguf: bytes
    manifest: bytes
    seconds: float = 0.0

    @classmethod
    def of(cls, gguf: Path, seconds: float = 0.0) -> Pair:
        return cls(gguf.read_bytes(), manifest_path(gguf).read_bytes(), seconds)


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def said_in_one_line(killed: Killed, how: signal.Signals) -> None:
    assert "Traceback" not in killed.errors, killed.errors
    lines = [line for line in killed.errors.splitlines() if line.startswith("error:")]
    if killed.status == 128 + how:  # the interpreter itself was up and could say it
        assert len(lines) == 1, killed.errors
        assert lines[0].startswith("error: interrupted"), killed.errors
    else:
        assert killed.status in {0, -how}, (killed.status, killed.errors)


def partials(folder: Path) -> list[Path]:
    return list(folder.glob("*.partial")) if folder.exists() else []


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Pair:
    """What a conversion writes that nobody disturbs."""
    out = tmp_path_factory.mktemp("new") / "model.gguf"
    return Pair.of(out, timed(lambda: convert(tiny, out).check_returncode()))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Pair:
    """An earlier conversion that is there already, with other options."""
    out = tmp_path_factory.mktemp("old") / "model.gguf"
    convert("--outtype", "f32", tiny, out).check_returncode()
    return Pair.of(out)


@each_signal
@pytest.mark.parametrize("kills", [1, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_a_killed_conversion(tmp_path: Path, tiny: Path, new: Pair, old: Pair, kills: int, how: signal.Signals) -> None:
    """Under OUT and its manifest's name there is nothing, the whole earlier file or the whole new one."""
    rng, out, landed = random.Random(how), tmp_path / "model.gguf", 0
    manifest = manifest_path(out)
    names = [path.with_name(path.name + end) for path in (out, manifest) for end in ("", ".partial")]
    for number in range(kills):
        if rng.random() < 0.5:
            out.write_bytes(old.gguf)
            manifest.write_bytes(old.manifest)
        elif rng.random() < 0.5:
            out.unlink(missing_ok=True)
            manifest.unlink(missing_ok=True)
        killed = kill_at_a_moment([*CONVERT, "--force", tiny, out], how, rng, names, new.seconds)
        landed += killed.landed
        said_in_one_line(killed, how)
        until(partial(group_has_ended, killed.leader), SURVIVAL_S)
        assert not out.exists() or out.read_bytes() in {old.gguf, new.gguf}
        assert not manifest.exists() or manifest.read_bytes() in {old.manifest, new.manifest}
        if killed.status == 0:
            assert Pair.of(out, new.seconds) == new
        assert how == signal.SIGKILL or not partials(tmp_path)
        if number % 5 == 4 or number == kills - 1:
            done = convert("--force", tiny, out)
            assert done.returncode == 0, done.stderr
            assert Pair.of(out, new.seconds) == new
            assert not partials(tmp_path)
    assert landed >= int(LANDED * kills)  # a single one may come too late


@dataclass(frozen=True)
class Reference:
    """Predictions of a reference that nobody disturbs, and the seconds that it took."""

    predictions: bytes
    seconds: float


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Reference:
    out = tmp_path_factory.mktemp("reference") / "run"
    seconds = timed(lambda: orin_run("reference", *QUESTIONS, "--model", tiny, "--out", out).check_returncode())
    return Reference((out / "predictions.jsonl").read_bytes(), seconds)


@each_signal
@pytest.mark.slow
def test_a_killed_reference(tmp_path: Path, tiny: Path, reference: Reference, how: signal.Signals) -> None:
    """The answers it has left are the first of the others', and what reads the folder says so or shows them."""
    rng, landed = random.Random(how), 0
    for number in range(KILLS):
        out = tmp_path / f"run-{number}"
        argv = [*ORIN_RUN, "reference", *QUESTIONS, "--model", tiny, "--out", out]
        names = [out / name for name in ("predictions.jsonl", "run.json", "report.json", "report.html")]
        killed = kill_at_a_moment(argv, how, rng, names, reference.seconds)
        landed += killed.landed
        said_in_one_line(killed, how)
        until(partial(group_has_ended, killed.leader), SURVIVAL_S)
        assert how == signal.SIGKILL or not partials(out)
        predictions = names[0].read_bytes() if names[0].exists() else b""
        assert reference.predictions.startswith(predictions)
        if killed.status == 0:
            assert predictions == reference.predictions
        for path in names[1:3]:
            assert not path.exists() or isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
        shown = orin_run("report", out)
        assert shown.returncode == (0 if names[1].exists() else 2), shown.stderr
        assert "Traceback" not in shown.stderr
    assert landed >= LANDED * KILLS
    shutil.rmtree(out, ignore_errors=True)
    done = orin_run(*argv[len(ORIN_RUN) :])
    assert done.returncode == 0, done.stderr
    assert names[0].read_bytes() == reference.predictions
