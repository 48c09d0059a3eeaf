"""llama.cpp against transformers in float32, on a random checkpoint of every family: log-probabilities and texts.

A run's lengths are prefixes of one text. They end beyond the window, the original context or the rope boundary, where
the family has one; long-rope is asked on both sides of its boundary, a run each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Generated, GenerateRequest, Scored
from tests.support.families import FAMILIES, Family
from tests.support.runs import run_gguf, whole_rows

TOKENS = np.random.default_rng(7).integers(3, 480, 400).tolist()
VOCABULARY = range(0, 500, 7)
NEW_TOKENS = 12


@dataclass
class Subject:
    """A family's checkpoint, its GGUFs and what transformers says."""

    family: Family
    folder: Path

    @cached_property
    def checkpoint(self) -> Path:
        return self.family.build(self.folder / "checkpoint")

    def gguf(self, outtype: str) -> Path:
        path = self.folder / f"{outtype}.gguf"
        if not path.exists():
            convert(Checkpoint.open(self.checkpoint), path, Options(outtype))
        return path

    def transformers_rows(self, dtype: torch.dtype = torch.float32) -> list[np.ndarray]:
        """Of each run, log-probabilities of ``VOCABULARY``, ``[lengths, vocabulary]``."""
        model = AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=dtype).eval()
        found = []
        for run in self.family.runs:
            with torch.no_grad():
                logits = model(torch.tensor([TOKENS[: max(run)]])).logits[0].double()
            rows = torch.log_softmax(logits, dim=-1)[[n - 1 for n in run]]
            found.append(rows[:, list(VOCABULARY)].numpy())
        return found

    @cached_property
    def expected(self) -> list[np.ndarray]:
        return self.transformers_rows()

    def farthest(self, outtype: str, *, exact: bool) -> float:
        """Largest difference of any log-probability from transformers float32."""
        worst = 0.0
        for run, expected in zip(self.family.runs, self.expected, strict=True):
            results, _ = run_gguf(self.gguf(outtype), whole_rows(TOKENS, run, VOCABULARY), exact=exact)
            found = [[float(logprob[0]) for logprob in r.logprobs] for r in results if isinstance(r, Scored)]
            worst = max(worst, float(np.abs(np.array(found) - expected).max()))
        return worst


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(FAMILIES[request.param], tmp_path_factory.mktemp("family"))


def test_float32_is_within_a_thousandth(subject: Subject) -> None:
    """F32 file, F32 cache, no flash attention; the logits are sharp, so a wrong layout is off by whole nats."""
    assert min(float(rows.max(axis=1).min() - rows.min()) for rows in subject.expected) > 10
    assert subject.farthest("f32", exact=True) < 1e-3


def test_16_bit_is_no_farther_than_transformers_in_bfloat16(subject: Subject) -> None:
    """At default settings, in the type that the conversion picks."""
    theirs = max(
        float(np.abs(ours - rows).max())
        for ours, rows in zip(subject.transformers_rows(torch.bfloat16), subject.expected, strict=True)
    )
    assert subject.farthest("auto", exact=False) < 1.5 * theirs


@pytest.mark.parametrize("subject", ["OPT"], indirect=True)
def test_opt_in_float16_is_within_five_thousandths(subject: Subject) -> None:
    """F16 is what OPT is published in; its GELU is a ReLU to that precision."""
    assert subject.farthest("f16", exact=True) < 5e-3


def test_greedy_texts_are_the_same(subject: Subject) -> None:
    """Of a prompt that ends with the longest prefix of its run, and where all is one run of a short one too."""
    model = AutoModelForCausalLM.from_pretrained(subject.checkpoint, dtype=torch.float32).eval()
    for run in subject.family.runs:
        lengths = [max(run) - NEW_TOKENS, *([run[0]] if len(subject.family.runs) == 1 else [])]
        prompts = [TOKENS[:n] for n in lengths]
        requests = [GenerateRequest(np.array(p, dtype=np.int32), frozenset({2}), NEW_TOKENS) for p in prompts]
        results, _ = run_gguf(subject.gguf("f32"), requests, exact=True)
        for prompt, result in zip(prompts, results, strict=True):
            assert isinstance(result, Generated)
            with torch.no_grad():
                ids = model.generate(
                    torch.tensor([prompt]),
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    eos_token_id=2,
                    pad_token_id=0,
                )[0]
            text = [int(token) for token in ids[len(prompt) :] if token != 2]
            assert result.tokens.tolist() == text


def test_the_graph_is_the_family_s(subject: Subject) -> None:
    """And the tokenizer's pre-tokenizer is recognised."""
    file = GGUFFile.open(subject.gguf("auto"))
    assert file.architecture == subject.family.architecture
    assert file.metadata["tokenizer.ggml.pre"] == subject.family.pre
    assert file.altered_values == 0
    assert file.dropped_window is None
