"""The sides of the challenge's benchmarks: greedy texts by this engine, a plain llama.cpp loop, and transformers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from eval.tasks.doc import Doc
from orin_runner.batching.batch import BatchBuilder
from orin_runner.engine.executor import Executor
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context
from orin_runner.requests import Generated, GenerateRequest, Tokens
from orin_runner.workers.messages import Job
from orin_runner.workers.supervisor import Supervisor

Texts = list[Any]
"""Per request the tokens of its text, without stop token; or the text itself, from transformers' pipeline."""
Side = Callable[[], Texts]
"""Answers all requests of a benchmark once."""


def supervisor_of(gguf: Path, requests: Sequence[GenerateRequest], *, draft: bool = True) -> Supervisor:
    """A worker with the model loaded, planned for ``requests``."""
    supervisor = Supervisor(Job.of(GGUFFile.open(gguf), requests, draft=draft), print)
    supervisor.start()
    return supervisor


def this_engine(supervisor: Supervisor, requests: Sequence[GenerateRequest]) -> Side:
    def run() -> Texts:
        texts: Texts = [[] for _ in requests]
        for i, result in supervisor.run(requests):
            assert isinstance(result, Generated)
            texts[i] = result.tokens.tolist()
        return texts

    return run


def plain_loop(context: Context, requests: Sequence[GenerateRequest]) -> Side:
    """llama.cpp at batch 1: the prompt, then one token at a time, until a stop token."""
    executor = Executor(context)

    def tokens_of(request: GenerateRequest) -> list[int]:
        context.clear()
        tokens: list[int] = []
        position = 0
        fresh = request.prompt
        while len(tokens) < request.max_new_tokens:
            for start in range(0, len(fresh), context.settings.n_batch):
                builder = BatchBuilder()
                part = fresh[start : start + context.settings.n_batch]
                builder.add(part, position, 0)
                builder.flag(np.array([len(part) - 1]))
                position += len(part)
                executor.submit(builder.build())
            token = int(executor.rows(1)[0].argmax())
            if token in request.stop:
                break
            tokens.append(token)
            fresh = np.array([token], dtype=np.int32)
        return tokens

    return lambda: [tokens_of(request) for request in requests]


@torch.inference_mode()
def last_logits(model: Any, prompts: Sequence[Tokens], size: int, device: str = "cpu") -> list[torch.Tensor]:
    """Next-token logits of each prompt, float32 ``[n_vocab]`` on the host; ``size`` at a time, padded on the left."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        longest = max(len(prompts[i]) for i in part)
        ids = torch.zeros((len(part), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for k, i in enumerate(part):
            ids[k, longest - len(prompts[i]) :] = torch.from_numpy(prompts[i].astype(np.int64))
            mask[k, longest - len(prompts[i]) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False)
        for i, row in zip(part, out.logits[:, -1].float().cpu(), strict=True):
            found[i] = row
    return found


def transformers_generate(model: Any, requests: Sequence[GenerateRequest], device: str) -> Side:
    """``model.generate`` at batch 1; stop tokens are ignored, so that the length is forced."""
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def text_of(request: GenerateRequest) -> list[int]:
        ids = torch.from_numpy(request.prompt.astype(np.int64))[None].to(device)
        mask = torch.ones_like(ids)
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=request.max_new_tokens, do_sample=False)
        tokens: list[int] = out[0, ids.shape[1] :].tolist()
        return tokens

    text_of(requests[0])  # the first call of all sets things up
    return lambda: [text_of(request) for request in requests]


def transformers_pipeline(checkpoint: Path, docs: Sequence[Doc]) -> tuple[str, Side]:
    """The pipeline over a ``KeyDataset`` as the organisers call it, in the faster of two types; and its name."""
    rows = [{"message": list(doc.prompt)} for doc in docs]
    limit = docs[0].max_new_tokens
    sides: dict[str, Side] = {}
    seconds: dict[str, float] = {}
    for name in ("float32", "bfloat16"):
        pipe = pipeline("text-generation", model=str(checkpoint), dtype=getattr(torch, name), device="cpu")

        def texts_of(some: list[dict[str, Any]], pipe: Any = pipe) -> Texts:
            outs = pipe(KeyDataset(some, "message"), max_new_tokens=limit, return_full_text=False, do_sample=False)
            return [out[0]["generated_text"] for out in outs]

        texts_of(rows[:1])
        before = time.perf_counter()
        texts_of(rows[:: max(1, len(rows) // 10)])
        seconds[name] = time.perf_counter() - before
        sides[name] = partial(texts_of, rows)
    best = min(seconds, key=lambda name: seconds[name])
    return f"transformers' pipeline, batch 1, {best}", sides[best]


def interleaved(sides: dict[str, Side], rounds: int) -> tuple[dict[str, float], dict[str, Texts]]:
    """Median seconds and last texts of each side, all sides once per round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    texts: dict[str, Texts] = {}
    for _ in range(rounds):
        for name, run in sides.items():
            before = time.perf_counter()
            texts[name] = run()
            seconds[name].append(time.perf_counter() - before)
    return {name: statistics.median(took) for name, took in seconds.items()}, texts
