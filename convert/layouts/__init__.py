"""Checkpoint tensors to GGUF tensors, one file a family."""
