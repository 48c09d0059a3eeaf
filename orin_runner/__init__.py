"""Runs a non-quantized LLM over whole benchmarks through llama.cpp, computing every distinct token once.

``from orin_runner import pipeline`` is a drop-in for the greedy part of transformers' text-generation pipeline, and
``from orin_runner import evaluate`` is ``orin-run eval``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orin_runner.version import __version__

if TYPE_CHECKING:
    from orin_runner.cli.python import evaluate
    from orin_runner.text_generation import pipeline

__all__ = ["__version__", "evaluate", "pipeline"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: they bring along what the worker and its parent can do without.
    if name == "pipeline":
        from orin_runner.text_generation import pipeline  # noqa: PLC0415

        return pipeline
    if name == "evaluate":
        from orin_runner.cli.python import evaluate  # noqa: PLC0415

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
