"""All of MMLU through a random model under the real tokenizer: nothing computed twice, nothing answered otherwise."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.near_ties import NearTies
from eval.runs.run import Run
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.engine.executor import Executor
from orin_runner.machine.devices import cpu_threads
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import ScoreRequest
from tests.support.checkpoints import phi3
from tests.support.commands import orin_run

UNIQUE = 1_541_749
"""Counted apart from this program, for prompts whose questions keep the white space around them."""
SAMPLE = 300


def test_every_question_once_and_as_if_alone(tmp_path: Path, orin_data: Path) -> None:
    """14,042 questions: computed / unique <= 1.01, and a sample of 300 answers as one prompt at a time does."""
    real = orin_data / "tokenizers" / "phi-3-medium"
    source = phi3(tmp_path / "hf", real, vocab_size=32064, hidden=64, window=2047, sharpness=4.0)
    model = tmp_path / "random.gguf"
    convert(Checkpoint.open(source), model, Options())
    options = ["--model", str(model), "--data", str(orin_data), "--out", str(tmp_path / "run")]
    done = orin_run("eval", "mmlu", *options)
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    section = run.report["tasks"]["mmlu"]
    tokens = section["tokens"]
    assert len(run.predictions) == section["items"] == 14042
    assert abs(tokens["unique"] / UNIQUE - 1) < 0.001
    assert tokens["computed"] <= 1.01 * tokens["unique"]

    file = GGUFFile.open(model)
    questions = encode_docs(get_task("mmlu").load(LoadOptions(orin_data)).docs, Tokenizer.from_gguf(file))
    near_ties = NearTies.of(section)
    near = 0
    settings = ContextSettings(n_cells=4096, n_batch=4096, n_ubatch=512, n_outputs=256, n_threads=cpu_threads())
    with Model(model) as opened, Context(opened, settings) as context:
        executor = Executor(context, 4096)
        for question in random.Random(1).sample(questions, SAMPLE):
            request = question.request
            assert isinstance(request, ScoreRequest)
            (row,) = executor.canonical_rows([request.prompt])
            letter = "ABCD"[int(np.argmax([row[c[0]] for c in request.continuations]))]
            ours = run.predictions["mmlu", question.doc.id]
            assert near_ties.bound(ours) is not None
            near += near_ties.holds(ours)
            assert letter == ours.prediction or near_ties.holds(ours)
    # The exemption is for a few: most of the sample is decided by more than rounding.
    assert near < SAMPLE / 3
