"""The checkpoint's tokenizer, as the GGUF carries it."""
