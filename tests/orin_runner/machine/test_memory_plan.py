"""The memory plan: its numbers against llama.cpp's own, and what it says where something does not fit."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.hf_encoder import HFEncoder
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.machine.devices import KNOWN
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlanner, Needs, needs_of
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import GenerateRequest, ScoreRequest, context_tokens
from tests.support.checkpoints import phi3
from tests.support.devices import memory
from tests.support.shapes import PHI3_MEDIUM, header_only

ORIN_32GB = KNOWN["orin-32gb"]


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """Phi-3-medium's shape."""
    return GGUFFile.open(header_only(tmp_path_factory.mktemp("medium") / "m.gguf", PHI3_MEDIUM))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> GGUFFile:
    """A model that can really be loaded."""
    folder = tmp_path_factory.mktemp("small")
    out = folder / "m.gguf"
    convert(Checkpoint.open(phi3(folder / "m", tiny, hidden=256)), out, Options())
    return GGUFFile.open(out)


def test_phi3_medium_is_26627_mib_with_200_kib_a_token(medium: GGUFFile) -> None:
    """13,960,238,080 parameters at two bytes (norms and sinks at four), and 40 layers of 10 heads of 128."""
    plan = MemoryPlanner(medium, ORIN_32GB, 4).plan(Needs(3478))
    weights = plan.terms["weights"] + plan.terms["embedding"]
    assert weights == pytest.approx(13_960_238_080 * 2, rel=1e-4)
    assert plan.terms["KV cache"] == plan.settings.n_cells * 200 * 1024


def test_mmlu_fits_an_orin_with_full_batches(medium: GGUFFile) -> None:
    """The projection: everything in one memory, the assumed terms named."""
    plan = MemoryPlanner(medium, ORIN_32GB, 8).plan(Needs(3478))
    assert plan.fits
    assert plan.settings.n_batch == 2048
    assert plan.total == sum(plan.terms.values()) <= ORIN_32GB.available
    assert {"compute", "CUDA", "program"} <= set(plan.assumed)
    assert plan.formula is not None


def test_a_call_on_a_processor_is_one_ubatch(small: GGUFFile) -> None:
    """Of scores and of texts: attention is not computed over what other ubatches of the call left in the cache."""
    planner = MemoryPlanner(small, memory(10**6, cuda=False), 2)
    for needs in (Needs(300), Needs(300, generated=True)):
        settings = planner.plan(needs).settings
        assert (settings.n_batch, settings.n_ubatch) == (512, 512)
    assert planner.plan(Needs(300, generated=True)).settings.n_cells >= 300 + 512 + 8192


def test_new_tokens_are_planned_for_once_and_not_for_every_item(medium: GGUFFile) -> None:
    """500 new tokens behind the longest prompt; a thousand items take the cache that one takes."""
    item = GenerateRequest(np.arange(868, dtype=np.int32), frozenset(), 500)
    one, thousand = (
        MemoryPlanner(medium, ORIN_32GB, 8).plan(needs_of(requests))
        for requests in ([item], [replace(item, prompt=item.prompt + k) for k in range(1000)])
    )
    assert one.longest == thousand.longest == 1368
    assert one.settings.n_cells == thousand.settings.n_cells >= 1368
    assert one.terms["KV cache"] == thousand.terms["KV cache"]


def test_a_full_context_fits_an_orin(medium: GGUFFile) -> None:
    """A text that fills all 4,096 positions, and a prompt that leaves room for only a few of its 500 tokens."""
    for n in (3596, 4090):
        request = GenerateRequest(np.arange(n, dtype=np.int32), frozenset(), 500)
        plan, limit = MemoryPlanner(medium, ORIN_32GB, 8).plan_that_fits(needs_of([request]), [context_tokens(request)])
        assert plan.fits
        assert plan.settings.n_cells >= 4096
        assert limit == n + 500  # nothing is left out


def test_the_published_longest_sample_fits_an_orin(medium: GGUFFile, orin_data: Path) -> None:
    """868 tokens under Phi-3-medium's tokenizer, beside the public questions, with its 500 new tokens."""
    encoder = HFEncoder(orin_data / "tokenizers" / "phi-3-medium", frozenset())
    requests = [q.request for q in encode_docs(get_task("challenge").load(LoadOptions(orin_data)).docs, encoder)]
    assert max(len(q.prompt) for q in requests if isinstance(q, GenerateRequest)) == 868
    lengths = [context_tokens(request) for request in requests]
    plan, limit = MemoryPlanner(medium, ORIN_32GB, 8).plan_that_fits(needs_of(requests), lengths)
    assert (plan.fits, limit) == (True, 868 + 500)


def test_settings_shrink_until_they_fit(medium: GGUFFile) -> None:
    """Less memory, smaller ubatches and caches; every plan that says it fits does."""
    seen = []
    for mib in range(29400, 28300, -50):
        plan = MemoryPlanner(medium, memory(mib), 8).plan(Needs(868))
        if plan.fits:
            assert plan.total <= mib * MIB
            assert plan.settings.n_cells >= 868
            seen.append((plan.settings.n_ubatch, plan.settings.n_batch, plan.settings.n_cells))
    assert len(set(seen)) > 3
    assert seen[0] > seen[-1]


def test_advice_is_true(medium: GGUFFile) -> None:
    """What the plan says would fit does fit, and a little more does not."""
    planner = MemoryPlanner(medium, memory(28350), 8)
    plan = planner.plan(Needs(4096))
    assert not plan.fits
    assert plan.advice is not None
    limit = int(plan.advice.split("up to ")[1].split(" tokens")[0].replace(",", ""))
    assert planner.plan(Needs(limit)).fits
    assert not planner.plan(Needs(limit + 512)).fits
    hopeless = MemoryPlanner(medium, memory(20000), 8).plan(Needs(100))
    assert hopeless.advice is not None
    assert "MiB more are needed" in hopeless.advice
    needed = int(hopeless.advice.split("a device with ")[1].split(" MiB")[0].replace(",", ""))
    assert MemoryPlanner(medium, memory(needed), 8).plan(Needs(100)).fits


def test_as_many_requests_as_fit(medium: GGUFFile) -> None:
    """The longest length that fits is found; the rest is left out."""
    lengths = [100, 500, 1000, 2000, 4096]
    planner = MemoryPlanner(medium, memory(28350), 8)
    plan, limit = planner.plan_that_fits(Needs(4096), lengths)
    assert plan.fits
    assert limit in lengths[:-1]
    longer = min(length for length in lengths if length > limit)
    assert not planner.plan(Needs(longer)).fits
    plan, limit = MemoryPlanner(medium, memory(20000), 8).plan_that_fits(Needs(4096), lengths)
    assert (plan.fits, limit) == (False, 0)


def test_half_the_budget_after_a_death(medium: GGUFFile) -> None:
    """Cache and buffers of the second plan take at most half of the first's, and so on."""
    planners = [MemoryPlanner(medium, memory(40000), 8, share=0.5**k) for k in range(4)]
    plans = [planner.plan(Needs(300, generated=True)) for planner in planners]
    for k, (before, after) in enumerate(itertools.pairwise(plans), start=1):
        assert after.fits
        assert after.elastic <= plans[0].elastic * 0.5**k
        assert after.elastic < before.elastic
        assert after.settings.n_cells >= 300


def test_two_contexts_where_a_gpu_has_the_memory(medium: GGUFFile) -> None:
    """Not where memory is unified or short, nor for a handful of tokens, one trunk, or no tree; nor after a death."""
    needs = Needs(3478, tokens=10**6, n_parts=8)
    gpu = replace(memory(80000), unified=False)
    planner = MemoryPlanner(medium, gpu, 8)
    pair = planner.plan(needs)
    assert pair.n_contexts == 2
    one = planner.sized(needs, pair.settings)
    for term in ("KV cache", "compute", "host compute", "outputs"):
        assert pair.terms[term] == 2 * one.terms[term]
    assert one.terms["CUDA"] < pair.terms["CUDA"] < 2 * one.terms["CUDA"]
    assert replace(planner, device=replace(gpu, available=pair.total - 1)).plan(needs).n_contexts == 1
    assert replace(planner, device=replace(gpu, unified=True)).plan(needs).n_contexts == 1
    assert planner.plan(replace(needs, tokens=2000)).n_contexts == 1
    assert planner.plan(replace(needs, n_parts=1)).n_contexts == 1
    assert replace(planner, share=0.5).plan(needs).n_contexts == 1


def test_three_contexts_for_texts(medium: GGUFFile) -> None:
    """Decode steps leave a GPU idle more often; where three do not fit, two may."""
    gpu = replace(memory(80000), unified=False)
    needs = Needs(3478, generated=True, tokens=10**6, n_parts=8)
    three = MemoryPlanner(medium, gpu, 8).plan(needs)
    assert (three.n_contexts, three.settings.n_batch) == (3, 1024)
    short = MemoryPlanner(medium, replace(gpu, available=three.total - 1), 8).plan(needs)
    assert short.fits
    assert short.n_contexts < 3 or short.settings.n_cells < three.settings.n_cells
    assert MemoryPlanner(medium, gpu, 8).plan(replace(needs, n_parts=2)).n_contexts == 2


@pytest.mark.parametrize("needs", [Needs(300), Needs(900, row_share=0.6), Needs(700, generated=True)])
def test_cpu_plans_match_llama_cpps_buffers(small: GGUFFile, needs: Needs) -> None:
    """Simulated cache and compute buffers and output rows: never under what is allocated, and within 10 %."""
    device = replace(memory(16000, cuda=False), present=True)
    plan = MemoryPlanner(small, device, 2, lambda settings: llama.simulate(small.path, settings)).plan(needs)
    with llama.Model(small.path) as model, llama.Context(model, plan.settings) as context:
        real = context.buffers
    # llama.cpp grows its output rows from n_seq to what a batch needs.
    rows = plan.settings.n_seq * small.n_vocab * 4
    assert plan.terms["outputs"] == max(plan.settings.n_seq, plan.settings.n_outputs) * small.n_vocab * 4
    planned = {"KV": plan.terms["KV cache"], "compute": plan.terms["compute"], "output": rows}
    for kind, size in planned.items():
        assert real[kind] <= size / MIB + 0.01, kind
    assert sum(planned.values()) / MIB <= 1.1 * sum(real.values())


def test_the_formula_is_never_under_the_simulation(small: GGUFFile) -> None:
    """For a backend that is not there; checked where it is."""
    for n_cells, n_batch, n_ubatch, n_outputs in (
        (512, 256, 64, 256),
        (512, 256, 256, 256),
        (4096, 2048, 512, 256),
        (2304, 2048, 512, 1500),
    ):
        settings = llama.ContextSettings(n_cells, n_batch, n_ubatch, n_outputs)
        simulated = llama.simulate(small.path, settings)
        formula = MemoryPlanner(small, memory(10**6, cuda=False), 2).sized(Needs(300), settings)
        assert formula.terms["KV cache"] >= simulated.kv
        assert formula.terms["compute"] >= simulated.compute_device + simulated.compute_host


def test_needs_count_rows_among_computed_tokens() -> None:
    """A row for a prompt, and one per further token of a continuation or of the longest candidate; prompts once."""
    prompt = np.arange(10, dtype=np.int32)
    letters = tuple(np.array([t], dtype=np.int32) for t in range(4))
    needs = needs_of([ScoreRequest(prompt, letters)] * 3)
    assert (needs.longest, needs.generated) == (10, False)
    assert needs.row_share == pytest.approx(3 / 10)
    texts = (prompt[:4], prompt[:2])
    needs = needs_of([GenerateRequest(prompt, frozenset(), 500, texts)])
    assert (needs.longest, needs.generated) == (510, True)
    assert needs.row_share == pytest.approx(5 / 14)


def test_needs_say_whether_two_contexts_can_share_the_tree() -> None:
    """Families of prompts can be divided, whatever is asked of them; one trunk cannot."""
    tails = np.random.default_rng(1).integers(0, 30000, (40, 50)).astype(np.int32)
    trunk = np.arange(900, dtype=np.int32)
    letter = (trunk[:1],)
    apart = [ScoreRequest(tail, letter) for tail in tails]
    assert needs_of(apart).n_parts > 1
    assert needs_of([ScoreRequest(np.concatenate([trunk, tail]), letter) for tail in tails]).n_parts == 1
    # A trunk of one in 200 tokens may be computed twice, not eight times.
    many = np.random.default_rng(1).integers(0, 30000, (400, 50)).astype(np.int32)
    assert needs_of([ScoreRequest(np.concatenate([trunk[:100], tail]), letter) for tail in many]).n_parts in {2, 3}
    texts = [GenerateRequest(tail, frozenset(), 8, letter) for tail in tails]
    assert needs_of(texts).n_parts > 1
    assert needs_of([replace(text, candidates=()) for text in texts]).n_parts > 1
    assert needs_of([]).n_parts == 1
