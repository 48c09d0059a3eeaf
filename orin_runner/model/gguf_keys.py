"""Names of the GGUF keys that the converter writes for the runner, and of the standard ones both read or write.

Every other key is llama.cpp's own: the converter writes it through ``gguf`` or a layout, llama.cpp reads it.
"""

from __future__ import annotations

MANIFEST_SHA256 = "orin.manifest.sha256"
"""String: digest of the manifest file that lies beside the GGUF."""

CHECKPOINT_SHA256 = "orin.checkpoint.sha256"
"""String: digest over all weights of the checkpoint, however it is sharded."""

ALTERED_VALUES = "orin.altered_values"
"""uint64: values that the conversion rounded."""

DROPPED_WINDOW = "orin.dropped_sliding_window"
"""uint32, in tokens: the model's sliding window where the file's layout does not honour it."""

STOP_TOKENS = "orin.generation.stop_token_ids"
"""Array of int32: tokens that end a generation."""

HUGGINGFACE_TOKENIZER = "tokenizer.huggingface.json"
"""String: the serialized ``tokenizers.Tokenizer``."""

CHAT_TEMPLATE = "tokenizer.chat_template"
"""String: Jinja source."""

TOKENS = "tokenizer.ggml.tokens"
"""Array of strings: llama.cpp's vocabulary, one entry per embedding row."""

SPECIAL_TOKENS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}
"""uint32 each, by the name that transformers gives the token."""

END_OF_TURN = "tokenizer.ggml.eot_token_id"
"""uint32: the token that ends a turn of a chat."""

END_OF_MESSAGE = "tokenizer.ggml.eom_token_id"
"""uint32: the token that ends a message after which a tool answers."""

VOCABULARY = "tokenizer.ggml."
"""What the keys of llama.cpp's own vocabulary begin with."""

VOCABULARY_KIND = "tokenizer.ggml.model"
"""String: llama.cpp's name of the kind of its vocabulary."""

PRE_TOKENIZER = "tokenizer.ggml.pre"
"""String: llama.cpp's name of the pre-tokenizer."""

SPLIT_COUNT = "split.count"
"""uint16: files that the model is divided among."""

SCORES = "tokenizer.ggml.scores"
"""Array of float32, one per token."""

TYPES = "tokenizer.ggml.token_type"
"""Array of int32, one per token."""

ALIGNMENT = "general.alignment"
"""uint32, in bytes: a power of two, to a multiple of which each tensor's data is padded; 32 where it is not said."""

ARCHITECTURE = "general.architecture"
"""String: llama.cpp's name of the graph, which prefixes the keys below."""

CONTEXT_LENGTH = "context_length"
"""uint32, in tokens, after the architecture: positions the model was made for."""

ORIGINAL_CONTEXT = "rope.scaling.original_context_length"
"""uint32, in tokens, after the architecture: the longest sequence that long-rope's short factors are for."""

SLIDING_WINDOW = "attention.sliding_window"
"""uint32, in tokens, after the architecture: the window's size."""

SLIDING_WINDOW_PATTERN = "attention.sliding_window_pattern"
"""Array of booleans, after the architecture: the layers with a window."""
