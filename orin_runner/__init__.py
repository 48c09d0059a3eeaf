"""Runs a non-quantized LLM over whole benchmarks through llama.cpp, computing every distinct token once."""

__version__ = "0.1.0"
