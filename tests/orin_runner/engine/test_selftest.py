"""The self-test passes on llama.cpp and fails where a tree gives other numbers than a sequence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.batching.batch import Batch
from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.engine.selftest import SelftestResult, compare, random_requests, strangers
from tests.support.checkpoints import phi3
from tests.support.commands import orin_run
from tests.support.fake_llama import FakeContext
from tests.support.runs import run_gguf


class ForgetsTheFirstToken(FakeContext):
    """Once a batch holds several sequences, nobody sees position 0."""

    def submit(self, batch: Batch) -> None:
        self.forget = len(set(batch.seq_ids.tolist())) > 1
        super().submit(batch)

    def _visible(self, seq: int, position: int) -> list[tuple[int, int]]:
        seen = super()._visible(seq, position)
        return [entry for entry in seen if entry[0]] if self.forget else seen


def selftest(context: FakeContext) -> SelftestResult:
    engine = Engine([context], Budget(1024, 128, 64, 64), n_chunk=16, n_positions=1024)
    requests = random_requests(12, context.n_vocab, 0, 200, seed=1)
    return compare(requests, engine, 0)


def test_a_sound_backend_passes_and_a_broken_one_fails() -> None:
    """Within rounding, and far beyond it."""
    sound = selftest(FakeContext(1024, n_seq=64, n_batch=128, n_outputs=64, jitter=1e-3))
    broken = selftest(ForgetsTheFirstToken(1024, n_seq=64, n_batch=128, n_outputs=64, jitter=1e-3))
    assert sound.passed
    assert sound.computed == sound.unique
    assert not broken.passed


@pytest.mark.parametrize("n", [2, 3, 23, 24, 40])
def test_rounding_is_measured_on_enough_sequences(n: int) -> None:
    """Of the same tokens as the requests, in other orders."""
    requests = random_requests(n, 512, 0, 200, seed=1)
    found = strangers(requests)
    assert len(found) == max(n, 24)
    for i, stranger in enumerate(found):
        assert sorted(stranger.prompt) == sorted(requests[i % n].prompt)
    assert len({stranger.prompt.tobytes() for stranger in found}) > 0.9 * len(found)
    assert all((a.prompt == b.prompt).all() for a, b in zip(found, strangers(requests), strict=True)), "repeatable"


@pytest.mark.parametrize("seed", ["1", "2"])
def test_few_requests_do_not_fail_by_chance(seed: str, tmp_path: Path, tiny: Path) -> None:
    """Of three, the rounding of three others was too small a sample: in one case in ten the tree differed by more."""
    convert(Checkpoint.open(tiny), tmp_path / "plain.gguf", Options(window="off"))
    words = ("--requests", "3", "--seed", seed, "--model", tmp_path / "plain.gguf", "--json", "-q")
    done = orin_run("selftest", *words)
    assert done.returncode == 0, done.stdout


def test_the_command_on_llama_cpp(tmp_path: Path, tiny: Path) -> None:
    """A random model with a small window: prompts on both sides of it."""
    source = phi3(tmp_path / "hf", tiny, window=64, sharpness=2.5)
    convert(Checkpoint.open(source), tmp_path / "model.gguf", Options())
    done = orin_run("selftest", "--json", "--model", tmp_path / "model.gguf")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["passed"] is True
    assert result["longest"] > 64 == result["window"]
    assert result["computed"] == result["unique"]


def test_budgets_do_not_change_the_answers_on_llama_cpp(tmp_path: Path, tiny: Path) -> None:
    """Small batches and few cells, one more than the longest path needs, give what large ones give."""
    source = phi3(tmp_path / "hf", tiny, window=64, sharpness=2.5)
    convert(Checkpoint.open(source), tmp_path / "model.gguf", Options("f32"))
    requests = random_requests(40, 3072, 64, 360, seed=2)
    longest = max(len(request.prompt) for request in requests)
    large, _ = run_gguf(tmp_path / "model.gguf", requests, exact=True)
    for n_cells in (longest + 1, longest + 200):
        small, stats = run_gguf(
            tmp_path / "model.gguf", requests, exact=True, n_cells=-(-n_cells // 256) * 256, n_batch=256, n_ubatch=256
        )
        assert stats.computed == stats.unique
        for a, b in zip(large, small, strict=True):
            for x, y in zip(a.logprobs, b.logprobs, strict=True):
                assert abs(x - y).max() < 1e-3
