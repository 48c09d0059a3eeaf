"""Damaged, hostile and odd GGUFs: one line each, before llama.cpp sees them."""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path

import pytest

from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from tests.support.gguf_bytes import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    INT64,
    KEYS,
    STRING,
    TOKENS,
    UINT32,
    UINT64,
    Raw,
    Tensor,
    Typed,
    gguf,
    tokenizer_json,
)

CONTEXT, STOP = "llama.context_length", "orin.generation.stop_token_ids"


def opened(path: Path, content: bytes) -> Tokenizer:
    """The tokenizer of a file of these bytes, through all that a run reads before it loads the model."""
    path.write_bytes(content)
    file = GGUFFile.open(path)
    assert file.digest()
    assert file.window is None or file.window >= 0
    return Tokenizer.from_gguf(file)


def test_a_small_whole_file_is_read(tmp_path: Path) -> None:
    """What the other tests damage is sound; its sizes are those that were written."""
    tokenizer = opened(tmp_path / "m.gguf", gguf())
    file = GGUFFile.open(tmp_path / "m.gguf")
    assert (file.architecture, file.n_ctx_train, file.n_vocab, file.window) == ("llama", 64, 8, None)
    assert file.tensor_types == {"F32": (2, 144)}
    assert (file.data_bytes, file.embedding_bytes, file.altered_values) == (144, 128, 0)
    assert tokenizer.encode(["ab"])[0].tolist() == [5]
    assert tokenizer.chat([{"role": "user", "content": "hi"}]) == "hi"
    assert tokenizer.stop == {2}


def test_numbers_by_layer_count_as_the_largest(tmp_path: Path) -> None:
    """Memory has to be enough for the layer that needs most."""
    (tmp_path / "m.gguf").write_bytes(
        gguf(
            {
                "llama.attention.head_count_kv": Typed(ARRAY, [1, 3, 2], INT32),
            }
        )
    )
    assert GGUFFile.open(tmp_path / "m.gguf").sizes.head_count_kv == 3


@pytest.mark.parametrize(
    ("architecture", "size", "window", "dropped"),
    [
        ("granite_swa", 7, 7, None),
        ("gemma2", 7, 7, None),
        ("gemma2", 0, None, None),
        ("phi3", 7, None, 7),
        ("llama", 7, None, 7),
        ("phi3", 64, None, None),
        ("phi3", 0, None, None),
    ],
)
def test_a_window_is_applied_by_some_architectures(
    tmp_path: Path, architecture: str, size: int, window: int | None, dropped: int | None
) -> None:
    """What others say of one is dropped; none is one that is as long as the context of 64, or 0."""
    renamed = {name.replace("llama.", f"{architecture}.", 1): value for name, value in KEYS.items()}
    changed: dict[str, Typed | Raw | None] = {**dict.fromkeys(KEYS), **renamed}
    changed["general.architecture"] = Typed(STRING, architecture)
    changed[f"{architecture}.attention.sliding_window"] = Typed(UINT32, size)
    (tmp_path / "m.gguf").write_bytes(gguf(changed))
    file = GGUFFile.open(tmp_path / "m.gguf")
    assert (file.window, file.dropped_window) == (window, dropped)


def test_quantized_types_are_read_and_refused_on_demand(tmp_path: Path) -> None:
    """A row of 32 values of Q4_0 are 18 bytes; what a quantized file says of altered values does not count."""
    tensors = [Tensor("token_embd.weight", (32, 8), kind=2), Tensor("output_norm.weight", (32,), offset=160)]
    (tmp_path / "m.gguf").write_bytes(gguf({"orin.manifest.sha256": Typed(STRING, "0" * 64)}, tensors))
    file = GGUFFile.open(tmp_path / "m.gguf")
    assert file.tensor_types == {"Q4_0": (1, 8 * 18), "F32": (1, 128)}
    assert file.quantized == ("Q4_0",)
    assert file.altered_values is None
    assert file.digest() != "0" * 64
    with pytest.raises(UserError, match=r"is quantized: 1 of its 2 tensors are Q4_0; run it so"):
        file.need_full_precision("run it so")
    (tmp_path / "m.gguf").write_bytes(gguf())
    GGUFFile.open(tmp_path / "m.gguf").need_full_precision("")


@pytest.mark.parametrize(
    ("changed", "stops"),
    [
        ({}, {2: STOP}),
        ({STOP: None}, {2: "tokenizer.ggml.eos_token_id"}),
        ({STOP: None, "tokenizer.ggml.eos_token_id": None}, {}),
        (
            {
                STOP: None,
                "tokenizer.ggml.eot_token_id": Typed(UINT32, 3),
                "tokenizer.ggml.eom_token_id": Typed(UINT32, 4),
            },
            {2: "tokenizer.ggml.eos_token_id", 3: "tokenizer.ggml.eot_token_id", 4: "tokenizer.ggml.eom_token_id"},
        ),
        (
            {STOP: None, "tokenizer.ggml.tokens": Typed(ARRAY, [*TOKENS[:6], "<|end|>", "x"], STRING)},
            {2: "tokenizer.ggml.eos_token_id", 6: "its text"},
        ),
        (
            {STOP: None, "tokenizer.ggml.tokens": Typed(ARRAY, [*TOKENS[:6], "<|end|>", "<|return|>"], STRING)},
            {2: "tokenizer.ggml.eos_token_id", 7: "its text"},
        ),
        ({STOP: Typed(ARRAY, [], INT32)}, {}),
    ],
)
def test_stop_tokens(tmp_path: Path, changed: dict[str, Typed | Raw | None], stops: dict[int, str]) -> None:
    """Our list is all there is; else the keys of llama.cpp, and tokens that it knows by their texts."""
    (tmp_path / "m.gguf").write_bytes(gguf(changed))
    assert GGUFFile.open(tmp_path / "m.gguf").stop_tokens == stops


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", None),
        ("general.architecture", Typed(UINT32, 3)),
        ("general.architecture", Typed(STRING, "")),
        ("general.architecture", Typed(ARRAY, ["llama"], STRING)),
        (CONTEXT, None),
        (CONTEXT, Typed(STRING, "4096")),
        (CONTEXT, Typed(UINT32, 0)),
        (CONTEXT, Typed(INT32, -4096)),
        (CONTEXT, Typed(UINT64, 1 << 63)),
        (CONTEXT, Typed(FLOAT32, 64.0)),
        (CONTEXT, Typed(BOOL, True)),
        (CONTEXT, Typed(ARRAY, [64], UINT32)),
        ("llama.embedding_length", Typed(UINT32, 0)),
        ("llama.block_count", Typed(UINT32, 0)),
        ("llama.block_count", None),
        ("llama.attention.head_count", Typed(UINT32, 0)),
        ("llama.attention.head_count_kv", Typed(ARRAY, [], UINT32)),
        ("llama.attention.head_count_kv", Typed(ARRAY, ["a"], STRING)),
        ("llama.attention.sliding_window", Typed(STRING, "x")),
        ("llama.attention.sliding_window_pattern", Typed(STRING, "x")),
        ("tokenizer.huggingface.json", Typed(UINT32, 1)),
        ("tokenizer.huggingface.json", Typed(STRING, "")),
        ("tokenizer.chat_template", Typed(UINT32, 1)),
        ("tokenizer.chat_template", Typed(ARRAY, ["{{ x }}"], STRING)),
        ("tokenizer.ggml.tokens", Typed(STRING, "a")),
        ("tokenizer.ggml.tokens", Typed(ARRAY, [1, 2], UINT32)),
        ("tokenizer.ggml.bos_token_id", Typed(STRING, "1")),
        ("tokenizer.ggml.bos_token_id", Typed(UINT32, 8)),
        ("tokenizer.ggml.eos_token_id", Typed(INT32, -1)),
        ("tokenizer.ggml.scores", Typed(ARRAY, [0.0], FLOAT32)),
        ("tokenizer.ggml.token_type", Typed(ARRAY, [], INT32)),
        (STOP, Typed(UINT32, 2)),
        (STOP, Typed(ARRAY, [2, 8], INT32)),
        (STOP, Typed(ARRAY, [-1], INT32)),
        (STOP, Typed(ARRAY, ["2"], STRING)),
        (STOP, Typed(ARRAY, [True], BOOL)),
        ("orin.altered_values", Typed(STRING, "0")),
        ("orin.altered_values", Typed(INT64, -1)),
        ("orin.manifest.sha256", Typed(UINT32, 0)),
        ("orin.checkpoint.sha256", Typed(BOOL, False)),
        ("orin.dropped_sliding_window", Typed(STRING, "2047")),
        ("general.alignment", Typed(UINT32, 0)),
        ("general.alignment", Typed(UINT32, 3)),
        ("general.alignment", Typed(UINT64, 32)),
        ("general.alignment", Typed(STRING, "32")),
    ],
)
def test_a_key_that_cannot_be_is_named(tmp_path: Path, key: str, value: Typed | None) -> None:
    """Its name without the architecture's is in the message."""
    with pytest.raises(UserError, match=re.escape(key.removeprefix("llama."))):
        opened(tmp_path / "m.gguf", gguf({key: value}))


def _array(kind: int, n: int, content: bytes = b"") -> Raw:
    return Raw(ARRAY, struct.pack("<IQ", kind, n) + content)


ROW = Tensor("token_embd.weight", (4, 8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a GGUF"),
        (b"GGUF", "does not end"),
        (gguf()[:60], "does not end"),
        (gguf(version=1), "version 1"),
        (gguf(version=4), "version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "big-endian"),
        (gguf(counts=(1 << 63, 3)), "impossible counts"),
        (gguf(counts=(1, 1 << 40)), "impossible counts"),
        (gguf(counts=(1, 60000)), "damaged"),
        (gguf(counts=(60000, 17)), "damaged"),
        (gguf({"x": Raw(STRING, struct.pack("<Q", 1 << 60))}), "does not end"),
        (gguf({"x": Raw(STRING, struct.pack("<Q", (1 << 64) - 1))}), "does not end"),
        (gguf({"x": Raw(STRING, struct.pack("<Q", 2) + b"\xff\xfe")}), "not UTF-8"),
        (gguf({"x": Raw(13, b"")}), "type 13"),
        (gguf({"x": _array(UINT32, 1 << 62)}), "values"),
        (gguf({"x": _array(STRING, 1 << 30)}), "values"),
        (gguf({"x": _array(ARRAY, 1, struct.pack("<IQ", UINT32, 0))}), "type 9"),
        (gguf({"x": _array(77, 1)}), "type 77"),
        (gguf(twice=CONTEXT), "twice"),
        (gguf(tensors=[]), "no token embedding"),
        (gguf(tensors=[Tensor("token_embd.weight", (8,))]), "no token embedding"),
        (gguf(tensors=[Tensor("token_embd.weight", (4, 7))]), "8 tokens and embeds 7"),
        (gguf(tensors=[ROW, Tensor("token_embd.weight", (4, 8), offset=128)]), "twice"),
        (gguf(tensors=[ROW, Tensor("b", (4,), offset=0)]), "does not begin where"),
        (gguf(tensors=[ROW, Tensor("b", (4,), offset=96)]), "does not begin where"),
        (gguf(tensors=[ROW, Tensor("b", (4,), offset=1 << 60)]), "does not begin where"),
        (gguf(tensors=[ROW, Tensor("b", (1 << 20,), offset=128)]), "truncated"),
        (gguf(data=16), "truncated"),
        (gguf(tensors=[Tensor("b", ())]), "0 dimensions"),
        (gguf(tensors=[Tensor("b", (1,) * 5)]), "5 dimensions"),
        (gguf(tensors=[Tensor("b", (0, 4))]), "shape"),
        (gguf(tensors=[Tensor("b", (1 << 62, 1 << 62))]), "shape"),
        (gguf(tensors=[Tensor("b", (1 << 63,))]), "shape"),
        (gguf(tensors=[Tensor("b" * 64, (4,))]), "too long"),
        (gguf(tensors=[Tensor("b", (33,), kind=2)]), "shape"),
        (gguf({"split.count": Typed(UINT32, 3)}), "is one of 3 files"),
        (gguf({"tokenizer.ggml.eom_token_id": Typed(UINT32, 8)}), "eom_token_id names the token 8"),
        (gguf(tensors=[Tensor("b", (32,), kind=4321)]), "unknown type 4321"),
        (gguf({"general.alignment": Typed(UINT32, 256)}), "does not begin where"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Counts, lengths and places that no file backs are refused, not read for minutes."""
    with pytest.raises(UserError, match=re.escape(message)):
        opened(tmp_path / "m.gguf", content)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A folder, a FIFO that nobody writes to, a device, a name that no system takes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(UserError, match="not a file"):
            GGUFFile.open(path)
    for path in (tmp_path / "none", Path("a\0b"), Path("a\ud800b")):
        with pytest.raises(UserError, match="does not exist"):
            GGUFFile.open(path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        GGUFFile.open(loop)


def test_random_damage_ends_in_one_line(tmp_path: Path) -> None:
    """Two thousand files of which some bytes are others, left out, or more; a few of them stay sound.

    llama.cpp is asked only after all of this; a bug shows as another exception, as a hang or as a killed test.
    """
    chosen = random.Random(20261127)
    sound, header = gguf(), len(gguf(data=0))
    names = [m.start() for m in re.finditer(rb"general|llama\.|tokenizer\.|orin\.|\.weight", sound)]
    refused: list[str] = []
    for _ in range(2000):
        content = bytearray(sound)
        for _ in range(chosen.choice((1, 1, 2, 6))):
            near = chosen.choice(names) + chosen.randrange(-16, 48)
            at = min(max(4, near if chosen.random() < 0.6 else chosen.randrange(header)), header - 9)
            match chosen.randrange(6):
                case 0:
                    content[at] ^= 1 << chosen.randrange(8)
                case 1:
                    content[at] = chosen.choice((0, 1, 127, 128, 255))
                case 2:
                    number = chosen.choice((0, 1, 1 << 31, 1 << 32, 1 << 60, 1 << 63, (1 << 64) - 1))
                    content[at : at + 8] = struct.pack("<Q", number)
                case 3:
                    content[at : at + 4] = struct.pack("<I", chosen.randrange(16))
                case 4:
                    del content[at : at + chosen.randrange(1, 40)]
                case _:
                    content[at:at] = chosen.randbytes(chosen.randrange(1, 20))
        if chosen.random() < 0.05:
            del content[chosen.randrange(len(content)) :]
        try:
            opened(tmp_path / "m.gguf", bytes(content)).encode(["ab c", "", "漢"])
        except UserError as error:
            refused.append(str(error))
    assert 1000 < len(refused) < 2000
    assert [line for line in refused if len(line.splitlines()) != 1] == []


def test_every_tokenizer_in_a_file_is_read_or_refused(tmp_path: Path) -> None:
    """The tokenizer's JSON damaged inside a sound file: texts cut, parts of other types, ids beyond the model's."""
    for damaged in ("{", "[]", "null", "\0", tokenizer_json()[:-9], tokenizer_json(model=None)):
        with pytest.raises(UserError, match=r"m\.gguf is damaged"):
            opened(tmp_path / "m.gguf", gguf({"tokenizer.huggingface.json": Typed(STRING, damaged)}))
