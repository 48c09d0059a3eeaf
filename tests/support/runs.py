"""Running real GGUFs in tests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.machine.devices import cpu_threads
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.requests import Request, Result, ScoreRequest, context_tokens
from orin_runner.runner import RunStats


def run_gguf(
    path: Path,
    requests: Sequence[Request],
    *,
    n_cells: int = 4608,
    n_batch: int = 512,
    n_ubatch: int = 256,
    n_outputs: int = 256,
    exact: bool = False,
    draft: bool = True,
    cache: PromptCache | None = None,
    n_contexts: int = 1,
) -> tuple[list[Result], RunStats]:
    """Answer ``requests`` with a GGUF.

    Args:
        exact: F32 KV cache and no flash attention, the closest llama.cpp comes to float32.
    """
    settings = ContextSettings(
        n_cells=n_cells,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        n_outputs=n_outputs,
        kv_type="f32" if exact else "f16",
        flash_attn=not exact,
        n_threads=cpu_threads(),
    )
    budget = Budget(n_cells, n_batch, 256, n_outputs)
    overrides = GGUFFile.open(path).rope_overrides(max(context_tokens(request) for request in requests))
    with Model(path, overrides=overrides) as model, ExitStack() as stack:
        contexts = [stack.enter_context(Context(model, settings)) for _ in range(n_contexts)]
        engine = Engine(contexts, budget, n_positions=model.n_ctx_train, draft=draft, cache=cache)
        found = dict(engine.run(requests))
    return [found[i] for i in range(len(requests))], engine.stats


def whole_rows(tokens: Sequence[int], at: Sequence[int], vocabulary: Sequence[int]) -> list[ScoreRequest]:
    """Requests for the log-probability of every token of ``vocabulary`` after each of the prefix lengths ``at``."""
    ids = np.array(tokens, dtype=np.int32)
    choices = tuple(np.array([token], dtype=np.int32) for token in vocabulary)
    return [ScoreRequest(ids[:n], choices) for n in at]
