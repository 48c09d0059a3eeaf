"""Long prefixes that many paths share: their states are restored from the prompt cache, or kept in it."""

from __future__ import annotations

from orin_runner.batching.packer import Packer
from orin_runner.engine.executor import Executor, LostPrefixError
from orin_runner.engine.prompt_cache import PromptCache


def restore_base(packer: Packer, executor: Executor, cache: PromptCache) -> None:
    """Put the base that the next batch begins into the KV cache, if its state is on disk."""
    base = packer.base_ahead
    payload = None if base is None else cache.load(base)
    if base is None or payload is None:
        return
    if not executor.restore(packer.restore(), payload):
        cache.forget(base)  # whoever computes it again finds none
        raise LostPrefixError("llama.cpp did not take a state of the prompt cache that it had saved itself")
    cache.restored_tokens += len(base)


def save_base(packer: Packer, executor: Executor, cache: PromptCache) -> None:
    """Keep the state of the base that the batch just submitted completes."""
    base = packer.base_complete
    if base is not None and packer.trunk is not None:
        cache.save(base, executor.state(packer.trunk))
