"""``orin-run bench``: what is measured and in what order, what is the fastest, what is shown, kept, and used later."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from orin_runner.cli import bench
from orin_runner.cli.bench import bench_command, print_findings, to_json
from orin_runner.cli.measuring import Findings
from orin_runner.console import Notes
from orin_runner.engine.bench import Rate
from orin_runner.errors import RunError
from orin_runner.machine.shape import Shape, score_shapes
from orin_runner.machine.speeds import read_speeds
from orin_runner.machine.tuned import KEPT, Tuned, tuned_for
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.bench import BenchJob, Ceilings, Measure, Measured, NoCeilings, Ready
from tests.support.checkpoints import small_gguf
from tests.support.commands import orin_run, orin_run_begun
from tests.support.waiting import runs, until
from tests.support.widths import check

PLANNED, FAST = Shape(1, 2048, 512), Shape(1, 1024, 1024)
RATE = 1500.0
"""Tokens a second; of a family a repetition takes less than a second then, and of many families too long."""
CEILINGS = Ceilings(
    "a device", "blk.0.ffn_up.weight", "BF16", 256, 512, 512, Rate((1e10, 1e10), 1e10), Rate((5e9, 5e9), 5e9), 1 << 28
)
Answer = Callable[[Measure], Measured]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of what is remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def rate(mean: float, spread: float = 0.0) -> Rate:
    return Rate((mean - spread, mean, mean + spread), mean / 2)


def answering(rates: dict[tuple[str, Shape | None], float], spread: float = 1.0, rest: float = RATE) -> Answer:
    """A device with these rates, and ``rest`` of all else; what is planned is ``PLANNED``."""

    def answer(asked: Measure) -> Measured:
        return Measured(asked, asked.shape or PLANNED, rate(rates.get((asked.work, asked.shape), rest), spread))

    return answer


class FakeBench:
    """In place of ``Bench``; ``asked`` has what it was asked."""

    answer: Answer
    ceiling: Ceilings | NoCeilings = CEILINGS
    own_memory = False
    asked: list[Measure]

    def __init__(self, job: BenchJob, spawn: object) -> None:
        self.job = job
        self.ready: Ready | None = None
        type(self).asked = []

    def __enter__(self) -> FakeBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def ceilings(self) -> Ceilings | NoCeilings:
        return self.ceiling

    def measure(self, asked: Measure) -> Measured:
        self.asked.append(asked)
        self.ready = Ready("a device", own_memory=self.own_memory)
        return type(self).answer(asked)


Measuring = Callable[..., dict[str, Any]]


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> Measuring:
    """Runs the command on a device that answers so; its JSON."""

    def run(answer: Answer, **attributes: Any) -> dict[str, Any]:
        fake = type("Fake", (FakeBench,), {"answer": staticmethod(answer), **attributes})
        monkeypatch.setattr(bench, "Bench", fake)
        try:
            bench_command(model=tiny_gguf, as_json=True, notes=Notes(quiet=True))
        finally:
            found: dict[str, Any] = json.loads(capsys.readouterr().out)
            found["asked"] = fake.asked
        return found

    return run


def row_of(found: dict[str, Any], work: str, shape: Shape) -> dict[str, Any]:
    size = {"n_contexts": shape.n_contexts, "n_batch": shape.n_batch, "n_ubatch": shape.n_ubatch}
    (row,) = [row for row in found["rows"] if row["work"] == work and row["shape"] == size]
    return dict(row)


class TestWhatIsMeasured:
    """All shapes, each once; what seems fastest twice."""

    def test_every_shape_once(self, measuring: Measuring) -> None:
        found = measuring(answering({}))
        prompts = [each.shape for each in found["asked"] if each.work == "scores"]
        assert prompts == [None, *(shape for shape in score_shapes(own_memory=False) if shape != PLANNED)]
        assert [each.n for each in found["asked"] if each.work == "steps"] == [1, 8, 32, 128]
        texts = [each.shape for each in found["asked"] if each.work == "texts"]
        assert texts == [None, Shape(1, 512, 512), Shape(2, 512, 512)]
        assert len(found["rows"]) == len(found["asked"])
        assert {each.n for each in found["asked"] if each.work != "steps"} == {4}

    def test_more_contexts_where_the_device_has_its_own_memory(self, measuring: Measuring) -> None:
        found = measuring(answering({}), own_memory=True)
        assert {each.shape.n_contexts for each in found["asked"] if each.shape is not None} == {1, 2, 3, 4}

    def test_a_fast_device_has_more_to_do(self, measuring: Measuring) -> None:
        """So much that a repetition takes 2/3 of a second: of 1,024 tokens a family, 1,792 with texts."""
        texts = {("texts", shape): 30 * 1792 * 1.5 for shape in (None, Shape(1, 512, 512), Shape(2, 512, 512))}
        found = measuring(answering(texts, rest=20 * 1024 * 1.5))
        assert {row["n"] for row in found["rows"] if row["work"] == "scores"} == {20}
        assert {row["n"] for row in found["rows"] if row["work"] == "texts"} == {30}
        assert max(each.n for each in measuring(answering({}, rest=1e6))["asked"] if each.work != "steps") == 64
        assert len({(row["work"], str(row["shape"]), row["n"]) for row in found["rows"]}) == len(found["rows"])

    def test_a_slow_device_measures_what_it_would_run_with(self, measuring: Measuring) -> None:
        """4,096 tokens take 41 s there: no other shape is tried, and few texts side by side."""
        found = measuring(answering({}, rest=100.0))
        assert [(each.work, each.shape) for each in found["asked"]] == [
            ("scores", None),
            ("steps", None),
            ("steps", None),
            ("texts", None),
        ]
        assert found["stored"]["scores"]["n_ubatch"] == PLANNED.n_ubatch

    def test_a_device_whose_ceiling_is_low_begins_with_little(self, measuring: Measuring) -> None:
        ceiling = Ceilings("slow", "blk.0.x", "BF16", 256, 512, 512, rate(1e6), rate(1e9), 1 << 28)
        found = measuring(answering({}, rest=2.0), ceiling=ceiling)
        assert found["asked"][0].n == 1

    def test_no_ceilings(self, measuring: Measuring) -> None:
        found = measuring(answering({}), ceiling=NoCeilings("no memory for it"))
        assert found["ceilings"] == {"failure": "no memory for it"}
        assert {row["share_of_product"] for row in found["rows"]} == {None}
        assert found["stored"]


class TestFastest:
    """What later runs have."""

    def test_the_fastest_by_more_than_the_spread(self, measuring: Measuring, tiny_gguf: Path) -> None:
        """Measured twice over, with what is planned; kept for prompts and for texts, with the rates."""
        found = measuring(answering({("scores", FAST): 1700.0, ("texts", Shape(2, 1024, 1024)): 1900.0}))
        twice = [each for each in found["asked"] if found["asked"].count(each) == 2]
        assert {(each.work, each.shape) for each in twice} == {
            ("scores", None),
            ("scores", FAST),
            ("texts", None),
            ("texts", Shape(2, 1024, 1024)),
        }
        assert len(row_of(found, "scores", FAST)["tokens_per_s"]["samples"]) == 6
        file = GGUFFile.open(tiny_gguf)
        known = {each.work: each for each in tuned_for(file.digest(), llama_library.version())}
        assert known["scores"].shape == FAST
        assert known["texts"].shape == Shape(2, 1024, 1024)
        assert known["scores"].tokens_per_s == pytest.approx(1700)
        speeds = {speed.task: (speed.tokens_per_s, speed.steps) for speed in read_speeds()}
        assert speeds == {"bench": (pytest.approx(1700), None), "bench texts": (pytest.approx(1900), 64)}

    @pytest.mark.parametrize(("other", "spread"), [(1520.0, 0.0), (1700.0, 200.0), (1499.0, 0.0)])
    def test_what_is_planned_stays_where_nothing_is_clearly_faster(
        self, measuring: Measuring, other: float, spread: float
    ) -> None:
        """By less than 2 %, or within the spread."""
        found = measuring(answering({("scores", FAST): other}, spread))
        assert found["stored"]["scores"] == {
            "n_contexts": 1,
            "n_batch": 2048,
            "n_ubatch": 512,
            "tokens_per_s": pytest.approx(RATE),
        }

    def test_a_shape_that_was_fast_once(self, measuring: Measuring) -> None:
        """The machine was faster for a moment: measured again it is not, and the spread has it."""
        seen: list[Measure] = []

        def answer(asked: Measure) -> Measured:
            seen.append(asked)
            lucky = asked == Measure("scores", FAST, 4) and seen.count(asked) == 1
            return Measured(asked, asked.shape or PLANNED, rate(1700.0 if lucky else RATE, 1.0))

        assert measuring(answer)["stored"]["scores"]["n_ubatch"] == PLANNED.n_ubatch

    def test_another_that_comes_out_on_top_then_is_measured_again_as_well(self, measuring: Measuring) -> None:
        """Nothing is kept that was fast only once."""
        other = Shape(1, 512, 512)
        seen: list[Measure] = []

        def answer(asked: Measure) -> Measured:
            seen.append(asked)
            again = seen.count(asked) > 1
            speed = {FAST: RATE if again else 1900.0, other: 1800.0}.get(asked.shape, RATE)
            return Measured(asked, asked.shape or PLANNED, rate(speed if asked.work == "scores" else RATE, 1.0))

        found = measuring(answer)
        assert found["stored"]["scores"]["n_batch"] == other.n_batch
        assert found["asked"].count(Measure("scores", other, 4)) == 2

    def test_what_does_not_fit_says_so_and_the_others_go_on(self, measuring: Measuring) -> None:
        def answer(asked: Measure) -> Measured:
            if asked.shape == Shape(1, 2048, 2048):
                return Measured(asked, asked.shape, None, "does not fit: 300 MiB too much")
            return Measured(asked, asked.shape or PLANNED, rate(RATE))

        found = measuring(answer)
        row = row_of(found, "scores", Shape(1, 2048, 2048))
        assert (row["tokens_per_s"], row["failure"]) == (None, "does not fit: 300 MiB too much")
        assert len(found["stored"]) == 2

    def test_nothing_fits(self, measuring: Measuring) -> None:
        with pytest.raises(RunError, match="nothing could be measured"):
            measuring(lambda asked: Measured(asked, PLANNED, None, "does not fit: 300 MiB too much"))
        assert KEPT.read() == []


class TestInterrupted:
    """Ctrl-C."""

    @pytest.mark.parametrize("after", [0, 1, 5, 10, 13])
    def test_what_is_there_is_shown_and_nothing_kept(
        self,
        after: int,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tiny_gguf: Path,
        state: Path,
    ) -> None:
        asked: list[Measure] = []

        def answer(each: Measure) -> Measured:
            if len(asked) == after:
                raise KeyboardInterrupt
            asked.append(each)
            return Measured(each, each.shape or PLANNED, rate(RATE))

        monkeypatch.setattr(bench, "Bench", type("Fake", (FakeBench,), {"answer": staticmethod(answer)}))
        with pytest.raises(KeyboardInterrupt):
            bench_command(model=tiny_gguf, notes=Notes(quiet=True))
        shown = capsys.readouterr().out
        assert "product: 10.0 " in shown
        assert shown.count("1,500.0") == after
        assert "fastest for" not in shown
        assert not state.exists()


def test_ctrl_c_ends_the_engine(small: Path, state: Path) -> None:
    """As the shell expects it; nothing is left of it, in memory or on the disk."""
    process = orin_run_begun("bench", "--model", small)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: bool(children.read_text()))
    engines = [int(pid) for pid in children.read_text().split()]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "error: interrupted" in said
    assert "Traceback" not in said
    until(lambda: not any(map(runs, engines)))
    assert not state.exists()


def findings(file: Path) -> tuple[Findings, tuple[Tuned, ...]]:
    """A row of every kind."""
    measured = [
        Measured(Measure("scores", None, 4), PLANNED, rate(123_456.78, 99.5)),
        Measured(Measure("scores", FAST, 4), FAST, rate(234_567.89, 1.25)),
        Measured(Measure("scores", Shape(2, 1024, 1024), 4), Shape(2, 1024, 1024), None, "does not fit: 1,234 MiB"),
        Measured(Measure("steps", None, 1), PLANNED, Rate((12.5,), 11.5)),
        Measured(Measure("steps", None, 128), PLANNED, rate(1200.0)),
        Measured(Measure("texts", None, 4), PLANNED, rate(3456.0, 7.0)),
    ]
    tuned = Tuned("a" * 64, "a device", "0", "scores", FAST, 234_567.89, "2026-01-02T03:04:05+00:00")
    return Findings(GGUFFile.open(file), 2, CEILINGS, measured), (tuned,)


class TestShown:
    """The table and the JSON."""

    def test_the_table_at_every_width(self, tiny_gguf: Path, state: Path) -> None:
        found, stored = findings(tiny_gguf)
        check(lambda: print_findings(found, stored), whole=[state])

    def test_what_the_lines_say(self, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Mean and spread, the warm-up, what is planned and what is fastest, why there is no rate."""
        print_findings(*findings(tiny_gguf))
        lines = capsys.readouterr().out.splitlines()
        (planned,) = [line for line in lines if line.startswith("prompts ") and "123,456.8" in line]
        assert "123,456.8 ± 99.5" in planned
        assert f"{123_456.78 / 2:,.1f}" in planned
        assert planned.endswith("as planned")
        assert any("234,567.9 ± 1.2" in line and line.endswith("fastest") for line in lines)
        assert any(line.endswith("does not fit: 1,234 MiB") for line in lines)
        assert any("decode, 1 text" in line and "±" not in line for line in lines)

    def test_shares_of_the_ceilings(self, tiny_gguf: Path) -> None:
        """2 FLOP for each value of a layer's matrices a token; of decode steps the bytes that each of them reads."""
        found = to_json(*findings(tiny_gguf)[:1], "a device", ())
        tensors = GGUFFile.open(tiny_gguf).header.tensors
        values = sum(t.shape[0] * t.shape[1] for t in tensors if t.name.startswith("blk.") and len(t.shape) == 2)
        of_product = {row["work"]: row["share_of_product"] for row in found["rows"]}
        assert of_product["texts"] == pytest.approx(3456 * 2 * values / 1e10)
        read = sum(t.n_bytes for t in tensors if t.name != "token_embd.weight")
        steps = [row for row in found["rows"] if row["work"] == "steps"]
        assert [row["share_of_copy"] for row in steps] == pytest.approx([12.5 * read / 5e9, 1200 / 128 * read / 5e9])
        assert {row["share_of_copy"] for row in found["rows"] if row["work"] != "steps"} == {None}
        json.dumps(found, allow_nan=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A model of one layer, which is fast everywhere; with the tiny model's tokenizer."""
    return small_gguf(tmp_path_factory.mktemp("small"), tiny)


@pytest.fixture(scope="module")
def measured(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of what is remembered, and the JSON."""
    folder = tmp_path_factory.mktemp("state")
    arguments = ("--repetitions", "1", "--seconds", "0", "--json", "--model", small)
    done = orin_run("bench", *arguments, env={"XDG_STATE_HOME": str(folder)})
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


class TestWhole:
    """With llama.cpp."""

    def test_every_row_has_a_rate(self, measured: tuple[Path, dict[str, Any]], small: Path) -> None:
        _, found = measured
        assert found["sha256"] == GGUFFile.open(small).digest()
        assert found["library"] == llama_library.version()
        assert [row["failure"] for row in found["rows"]] == [None] * len(found["rows"])
        assert {row["work"] for row in found["rows"]} == {"scores", "steps", "texts"}
        assert all(row["tokens_per_s"]["mean"] > 0 for row in found["rows"])
        assert found["ceilings"]["product"]["mean"] > 0
        assert found["ceilings"]["copy"]["mean"] > 0
        assert set(found["stored"]) == {"scores", "texts"}
