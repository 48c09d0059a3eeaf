"""Benchmarks: tasks, runs on disk, the Hugging Face reference, and the difference between two runs."""
