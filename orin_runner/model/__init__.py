"""One GGUF: its keys, its tokenizer, and llama.cpp to run it."""
