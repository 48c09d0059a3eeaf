"""How long tasks are expected to take: by an earlier run of the same model here, else by the limits of a device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from eval.sent_tokens import AskedTokens
from orin_runner.cli import expected
from orin_runner.cli.expected import expected_here, expected_on, keep_measured, limits_here
from orin_runner.cli.main import app
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, Needs
from orin_runner.machine.roofline import Limits, TokenCost
from orin_runner.machine.speeds import read_speeds
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import GenerateRequest, ScoreRequest
from tests.support.devices import memory

SCORES = AskedTokens(10, 5_000, 2_000, 100.0, 0, 0, 0, 0.0)
TEXTS = AskedTokens(10, 5_000, 2_000, 100.0, 10, 1_000, 1_000, 0.0)
CHOICES = AskedTokens(10, 5_000, 2_000, 100.0, 10, 1_000, 0, 30.0)


@pytest.fixture
def file(tiny_gguf: Path) -> GGUFFile:
    return GGUFFile.open(tiny_gguf)


@pytest.fixture
def plan(file: GGUFFile) -> MemoryPlan:
    return MemoryPlanner(file, memory(4096, cuda=False), 2).plan_that_fits(Needs(longest=64), [64])[0]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def section(seconds: float, computed: int, **others: Any) -> dict[str, Any]:
    """Of ``report.json``, what a speed is made of."""
    return {"clocks": {"inference": seconds}, "tokens": {"computed": computed}} | others


def test_what_is_asked_by_hand() -> None:
    """Two prompts that share three tokens, one of them with choices of two tokens and a text with a candidate."""

    def ids(*tokens: int) -> Any:
        return np.array(tokens, dtype=np.int32)

    scored = ScoreRequest(ids(1, 2, 3), (ids(7, 8), ids(9, 8)))
    text = GenerateRequest(ids(1, 2, 3, 4), frozenset({0}), 50, (ids(5, 6), ids(7)))
    open_text = GenerateRequest(ids(1, 2, 3, 4, 4), frozenset({0}), 30)
    found = AskedTokens.of([scored, text, open_text])
    # Sent: 1 2 3 7 and 1 2 3 9, 1 2 3 4, 1 2 3 4 4. Distinct: 1 2 3, 7, 9, 4, 4.
    assert (found.requests, found.sent, found.unique) == (3, 4 + 4 + 4 + 5, 7)
    assert found.context == pytest.approx((0 + 1 + 2 + 3 + 3 + 3 + 4) / 7)
    assert (found.texts, found.most_tokens, found.open_tokens, found.choice_tokens) == (2, 80, 30, 1.5)
    assert AskedTokens.of([]) == AskedTokens(0, 0, 0, 0.0, 0, 0, 0, 0.0)


def test_what_a_run_measured_is_expected_of_the_next(file: GGUFFile, plan: MemoryPlan, tmp_path: Path) -> None:
    """Tokens and texts at its rate; a task of the same kind too; only of this model, device and number of replicas."""
    sections = {
        "mmlu": section(4.0, 2_000),
        "bbh": section(8.0, 2_000, greedy={"texts": 5}, device={"step_tokens": 150}),
        "short": section(0.9, 2_000),
        "restored": section(4.0, 20, greedy=None) | {"tokens": {"computed": 20, "restored": 1_980}},
    }
    assert keep_measured(sections, file, plan, 2, tmp_path / "run") is None
    assert {speed.task for speed in read_speeds()} == {"mmlu", "bbh"}
    found = expected_here({"mmlu": SCORES, "boolq": SCORES, "bbh": TEXTS}, file, plan, 2, None)
    assert found.seconds == pytest.approx({"mmlu": 4.0, "boolq": 4.0, "bbh": (2_000 + 10 * 30) / 250})
    assert found.measured == {"mmlu", "boolq", "bbh"}
    assert found.steps == {"bbh": 30.0}
    assert f"500 tokens/s, measured of mmlu on {read_speeds()[0].at[:10]} ({tmp_path / 'run'})" in found.basis
    shorter = replace(TEXTS, most_tokens=80, open_tokens=80)
    assert expected_here({"bbh": shorter}, file, plan, 2, None).steps == {"bbh": 8.0}
    other_file = GGUFFile.open(file.path)
    assert expected_here({"mmlu": SCORES}, other_file, plan, 2, None).measured == {"mmlu"}
    assert not expected_here({"mmlu": SCORES}, file, plan, 1, None).measured
    gpu = replace(plan, device=replace(plan.device, name="CUDA0 (another)", cuda=True))
    assert not expected_here({"mmlu": SCORES}, file, gpu, 2, None).measured


def test_where_nothing_was_measured_the_limits_count(file: GGUFFile, plan: MemoryPlan) -> None:
    """By hand; a text takes a quarter of what it may have, or nothing where its choices are at hand."""
    cost, here = TokenCost.of(file), Limits.of_cpu(expected.cpu_threads())
    found = expected_here({"mmlu": SCORES, "bbh": TEXTS, "exam": CHOICES}, file, plan, 1, limits_here(plan, 1))
    token = cost.token_s(here, 100.0)
    step = max(token, cost.step_s(here) / min(10, plan.settings.n_seq))
    assert found.seconds == pytest.approx(
        {"mmlu": 2_000 * token, "bbh": 2_000 * token + 10 * 25 * step, "exam": 2_000 * token + 10 * 3 * step}
    )
    assert found.steps == {"bbh": 25.0, "exam": 3.0}
    assert not found.measured
    assert any(line.startswith("assumed: ") for line in found.basis)
    assert "bbh: assumed that a text takes 25% of the tokens it may have, 25" in found.basis
    # Two replicas: half of the texts side by side on each, twice the bandwidth.
    memory_bound = Limits("here", 1e15, 1e15, 1e15, 1e6, "assumed")
    alone = expected_here({"bbh": TEXTS}, file, plan, 1, memory_bound).seconds["bbh"]
    assert alone == pytest.approx(25 * cost.weights / 1e6, rel=1e-3)
    both = expected_here({"bbh": TEXTS}, file, plan, 2, memory_bound.times(2)).seconds["bbh"]
    assert both == pytest.approx(alone, rel=1e-3), "each has as many steps"
    slow = Limits("slow", 1e9, 1e9, 1e6, 1e6, "assumed")
    projected = expected_on(slow, {"bbh": TEXTS}, file, n_seq=4)
    assert projected.projected
    step = cost.weights / 1e6 / 4
    assert projected.seconds["bbh"] == pytest.approx(2_000 * cost.token_s(slow, 100.0) + 250 * step)


def test_of_a_gpu_that_nobody_knows_nothing_is_said(file: GGUFFile, plan: MemoryPlan) -> None:
    """But what would make it known."""
    found = expected_here({"mmlu": SCORES}, file, plan, 1, None)
    assert found.seconds == {}
    assert found.basis == (f"nothing is known of {plan.device.name}: a run of 1 s or more measures it",)


def test_plan_says_how_long(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a run by the limits, after it by what that has measured; on an Orin projected, more in slower modes."""
    monkeypatch.setattr(expected, "SHORTEST_S", 0.0)
    asked = ("exam", "--model", str(tiny_gguf), "--limit", "8")

    def planned(*options: str) -> str:
        done = CliRunner().invoke(app, ["plan", *asked, *options])
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    before = json.loads(planned("--json"))
    assert before["expected_s"]["CPU"]["basis"][0].startswith("assumed: ")
    done = CliRunner().invoke(app, ["eval", *asked, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    after = json.loads(planned("--json"))
    (line, _) = after["expected_s"]["CPU"]["basis"]
    assert line.endswith(f"({tmp_path / 'run'})")
    report = json.loads((tmp_path / "run" / "report.json").read_text())["tasks"]["exam"]
    assert after["tokens"]["exam"]["requests"] == report["items"] == 8
    (part,) = json.loads((tmp_path / "run" / "parts.json").read_text())
    assert after["tokens"]["exam"]["sent"] == part["exam"]["asked_sent"]
    rate = report["tokens"]["computed"] / report["clocks"]["inference"]
    tokens = after["tokens"]["exam"]
    assert tokens["texts"] == report["greedy"]["texts"] > 0
    steps = report["device"]["step_tokens"]
    assert after["expected_s"]["CPU"]["tasks"]["exam"] == pytest.approx((tokens["unique"] + steps) / rate, rel=1e-3)
    modes = [after["expected_s"][mode]["tasks"]["exam"] for mode in ("MAXN", "40W", "30W", "15W")]
    assert modes == sorted(modes)
    shown = planned("--device", "orin-32gb")
    assert "projected for a Jetson AGX Orin 32GB" in shown
    assert "CPU" not in shown
