"""Hugging Face checkpoints to 16-bit GGUF files, without altering a value, and the proof of it."""
