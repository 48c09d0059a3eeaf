"""The worker takes long-rope's factors by its run's longest request, not by the size of its cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Scored, ScoreRequest
from orin_runner.workers.messages import Job
from orin_runner.workers.supervisor import Supervisor
from tests.support.commands import orin_run
from tests.support.families import FAMILIES, WINDOW
from tests.support.runs import whole_rows

TOKENS = np.random.default_rng(3).integers(3, 400, 2 * WINDOW).tolist()
VOCABULARY = range(0, 400, 10)


def rows(results: dict[int, object]) -> np.ndarray:
    found = [results[i] for i in range(len(results))]
    return np.array([[float(logprob[0]) for logprob in r.logprobs] for r in found if isinstance(r, Scored)])


@pytest.mark.parametrize(("longest", "factors"), [(WINDOW - 1, "short"), (2 * WINDOW, "long")])
def test_the_longest_request_decides(tmp_path: Path, longest: int, factors: str) -> None:
    """As transformers decides by the longest sequence of a forward pass; the cache has thousands of cells."""
    checkpoint = FAMILIES["Phi-4-mini"].build(tmp_path / "m")
    path = tmp_path / "m.gguf"
    convert(Checkpoint.open(checkpoint), path, Options("f32"))
    file = GGUFFile.open(path)
    at = (20, longest)
    requests: list[ScoreRequest] = whole_rows(TOKENS, at, VOCABULARY)
    supervisor = Supervisor(Job.of(file, requests), lambda _: None, lambda *_: None)
    supervisor.start()
    try:
        assert supervisor.plan.settings.n_cells > 4 * WINDOW
        assert supervisor.loaded.rope_factors == file.rope_factors(longest) == factors
        found = rows(dict(supervisor.run(requests)))
    finally:
        supervisor.close()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS[:longest]])).logits[0].double()
        alone = model(torch.tensor([TOKENS[:20]])).logits[0].double()
    expected = torch.log_softmax(logits, dim=-1)[[n - 1 for n in at]][:, list(VOCABULARY)].numpy()
    assert np.abs(found - expected).max() < 0.2  # the cache is F16
    short = torch.log_softmax(alone, dim=-1)[-1, list(VOCABULARY)].numpy()
    assert (np.abs(found[0] - short).max() > 1) == (factors == "long")


def test_a_run_says_which_factors_it_has(tmp_path: Path) -> None:
    """In run.json, and in a line where they are the long ones."""
    family = FAMILIES["Phi-3.5-mini"]
    wide = replace(family, settings={**family.settings, "max_position_embeddings": 2048})
    path, out = tmp_path / "m.gguf", tmp_path / "run"
    convert(Checkpoint.open(wide.build(tmp_path / "m")), path, Options())
    done = orin_run("eval", "exam", "--model", path, "--limit", "3", "--out", out)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["model"]["rope_factors"] == "long"
    assert "more than the original context of 64: all 3 requests have the long factors" in done.stderr
