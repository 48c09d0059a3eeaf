"""Runs a non-quantized LLM over whole benchmarks through llama.cpp, computing every distinct token once.

``from orin_runner import pipeline`` is a drop-in for the greedy part of transformers' text-generation pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orin_runner.text_generation import pipeline

__all__ = ["__version__", "pipeline"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded when asked for: it brings llama.cpp along, which the worker's parent can do without.
    if name == "pipeline":
        from orin_runner.text_generation import pipeline  # noqa: PLC0415

        return pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
