"""OPT, through llama.cpp's ``gpt2`` graph, which is OPT's but for the activation: GELU where OPT has ReLU.

gelu(2^k h) / 2^k tends to relu(h), and a power of two moves only exponents. So the residual stream is scaled by 2^k:
embeddings, the value projection, the norm before the feed-forward network and all biases that are added to the stream
or to what comes of it are multiplied; LayerNorm's epsilon by 2^2k, which makes the norms exactly scale-free; the output
head is a second, unscaled copy of the embeddings. The activation is off by at most 0.17 / 2^k at any unit.
"""

from __future__ import annotations

import math

import numpy as np

from convert.checkpoint import Checkpoint
from convert.exactness import Float32, to_float32
from convert.layouts.layout import Layout, MetadataValue, Omitted, OutputTensor, layers
from convert.layouts.shape import need
from convert.schemas import OF_ONE_MODEL
from orin_runner.errors import UserError
from orin_runner.model.gguf_keys import CONTEXT_LENGTH

EPS = 1e-5
"""Of torch's LayerNorm, which OPT leaves as it is."""
FIRST_POSITION = 2
"""Row of the position table that the first token gets."""
HALF_MAX = 65504
EXPONENTS = range(6, 13)
"""Powers of two to choose from. Below, the activation would be off by more than a 16-bit type rounds."""
FIXED = {
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
}
"""Settings, as every OPT but the one of 350 M parameters has them."""
OTHER_SIZE = "take another size of OPT than 350m"


def opt(checkpoint: Checkpoint, _window: str) -> Layout:
    """The layout of llama.cpp's ``gpt2`` graph.

    Raises:
        UserError: a size is missing, a setting is not supported, or the activations leave no room for the scaling.
    """
    config = checkpoint.config
    n_layers, width, n_ff, n_head, n_vocab, n_ctx = (
        need(config, key)
        for key in (
            "num_hidden_layers",
            "hidden_size",
            "ffn_dim",
            "num_attention_heads",
            "vocab_size",
            "max_position_embeddings",
        )
    )
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise UserError(f"config.json has {key} {config[key]!r}, and {value!r} is supported", OTHER_SIZE)
    if (config.get("word_embed_proj_dim") or width) != width:
        reason = "config.json has word_embed_proj_dim, a projection of the embeddings, which is not supported"
        raise UserError(reason, OTHER_SIZE)
    stem = "decoder" if "decoder.embed_tokens.weight" in checkpoint.tensors else "model.decoder"
    exponent = _exponent(checkpoint, f"{stem}.layers", n_layers, width)
    embedding, head = f"{stem}.embed_tokens.weight", "lm_head.weight"
    tied = config.get("tie_word_embeddings", True)
    metadata: dict[str, MetadataValue] = {
        "vocab_size": n_vocab,
        CONTEXT_LENGTH: n_ctx,
        "embedding_length": width,
        "block_count": n_layers,
        "feed_forward_length": n_ff,
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head,
        "attention.layer_norm_epsilon": math.ldexp(EPS, 2 * exponent),
    }
    tensors = (
        OutputTensor("token_embd.weight", embedding, (n_vocab, width), exponent=exponent),
        OutputTensor(
            "position_embd.weight",
            f"{stem}.embed_positions.weight",
            (n_ctx, width),
            np.arange(FIRST_POSITION, FIRST_POSITION + n_ctx),
            f"from row {FIRST_POSITION}",
            exponent,
        ),
        *_vectors("output_norm", f"{stem}.final_layer_norm", width, 0),
        OutputTensor("output.weight", embedding if tied else head, (n_vocab, width), repeated=bool(tied)),
        *layers(n_layers, _block(width, n_ff, exponent), f"{stem}.layers"),
    )
    reason = "positions begin at the row after these"
    return Layout(
        "gpt2",
        tensors,
        metadata,
        omitted=(Omitted(f"{stem}.embed_positions.weight", FIRST_POSITION, reason),),
        duplicates={head: embedding} if tied else {},
    )


def _block(width: int, n_ff: int, exponent: int) -> list[OutputTensor]:
    scales = {"q_proj": 0, "k_proj": 0, "v_proj": exponent}
    return [
        *_vectors("attn_norm", "self_attn_layer_norm", width, 0),
        *(
            OutputTensor("attn_qkv.weight", f"self_attn.{name}.weight", (width, width), exponent=scale)
            for name, scale in scales.items()
        ),
        *(
            OutputTensor("attn_qkv.bias", f"self_attn.{name}.bias", (width,), exponent=scale)
            for name, scale in scales.items()
        ),
        OutputTensor("attn_output.weight", "self_attn.out_proj.weight", (width, width)),
        OutputTensor("attn_output.bias", "self_attn.out_proj.bias", (width,), exponent=exponent),
        *_vectors("ffn_norm", "final_layer_norm", width, exponent),
        OutputTensor("ffn_up.weight", "fc1.weight", (n_ff, width)),
        OutputTensor("ffn_up.bias", "fc1.bias", (n_ff,), exponent=exponent),
        OutputTensor("ffn_down.weight", "fc2.weight", (width, n_ff)),
        OutputTensor("ffn_down.bias", "fc2.bias", (width,), exponent=exponent),
    ]


def _vectors(name: str, source: str, width: int, exponent: int) -> list[OutputTensor]:
    return [
        OutputTensor(f"{name}.{kind}", f"{source}.{kind}", (width,), exponent=exponent) for kind in ("weight", "bias")
    ]


def _exponent(checkpoint: Checkpoint, prefix: str, n_layers: int, width: int) -> int:
    """The largest power of two under which values, hidden units and stored tensors stay within float16.

    The output of a LayerNorm has a norm of at most the square root of its width, before weight and bias. So no element
    of a projection of it is above that root times the row's norm, plus what the biases add (Cauchy and Schwarz).
    """

    def read(name: str) -> Float32:
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            raise UserError(f"tensor {name} is missing from {checkpoint.directory}", "download the checkpoint again")
        return to_float32(tensor.read(), tensor.dtype)

    highest = 0.0
    for n in range(n_layers):
        for norm, projection in (("self_attn_layer_norm", "self_attn.v_proj"), ("final_layer_norm", "fc1")):
            weight = read(f"{prefix}.{n}.{projection}.weight")
            gain, shift = read(f"{prefix}.{n}.{norm}.weight"), read(f"{prefix}.{n}.{norm}.bias")
            bias = read(f"{prefix}.{n}.{projection}.bias")
            if weight.ndim != 2 or gain.shape != (width,) or weight.shape[1] != width:
                raise UserError(f"tensor {prefix}.{n}.{projection}.weight has shape {list(weight.shape)}", OF_ONE_MODEL)
            bound = math.sqrt(width) * np.linalg.norm(weight * gain, axis=1) + np.abs(weight @ shift + bias)
            highest = max(highest, float(bound.max()))
    room = math.floor(math.log2(HALF_MAX / highest)) if highest else EXPONENTS[-1]
    if room < EXPONENTS[0]:
        raise UserError(
            f"activations of up to {highest:,.0f} leave no room in float16 for the scaling that makes GELU a ReLU",
            "this OPT cannot be converted precisely",
        )
    return min(room, EXPONENTS[-1])
