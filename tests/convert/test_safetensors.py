"""Shards are accepted and refused as the safetensors library does it, and hold the values it reads."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from convert.safetensors_file import StoredTensor, read_header
from convert.source_tensor import DTYPES
from orin_runner.errors import UserError
from tests.support.damage import VALUES, damaged_bytes

TENSOR = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
OTHER = {"dtype": "F32", "shape": [5], "data_offsets": [12, 32]}
DATA = bytes(range(32))


def shard(header: object, data: bytes = DATA, *, n_header: int | None = None) -> bytes:
    """A file of ``header`` (JSON, or its text), of which the length field says ``n_header``, where that is given."""
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    length = len(text) if n_header is None else n_header
    return (length % 2**64).to_bytes(8, "little") + text + data


def ours(path: Path) -> dict[str, tuple[str, list[int], bytes]] | None:
    """What this converter reads, by name; None where it refuses the file."""
    try:
        tensors = list(read_header(path))
    except UserError:
        return None
    return {t.name: (t.dtype, list(t.shape), t.read().tobytes()) for t in tensors}


def theirs(content: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """What the library reads, of the types that are converted."""
    try:
        tensors = deserialize(content)
    except SafetensorError:
        return None
    if any(tensor["dtype"] not in DTYPES for _, tensor in tensors):
        return None
    return {name: (tensor["dtype"], tensor["shape"], bytes(tensor["data"])) for name, tensor in tensors}


def pair(first: str, second: str) -> str:
    """A header's text with one name twice."""
    return f'{{"a": {first}, "a": {second}}}'


REFUSED = {
    "header length of -1": shard({"a": TENSOR, "b": OTHER}, n_header=-1),
    "header longer than 100 MB": shard({"a": TENSOR, "b": OTHER}, n_header=100_000_001),
    "header longer than the file": shard({"a": TENSOR, "b": OTHER}, n_header=400),
    "header cut short": shard({"a": TENSOR, "b": OTHER}, n_header=40),
    "no header": b"",
    "half a length": b"\x10\0\0",
    "overlapping offsets": shard({"a": TENSOR, "b": {**OTHER, "data_offsets": [8, 28]}}, DATA[:28]),
    "shifted offsets": shard({"a": {**TENSOR, "data_offsets": [4, 16]}, "b": {**OTHER, "data_offsets": [16, 36]}}),
    "offsets of the other's": shard(
        {"a": {**TENSOR, "data_offsets": [0, 20]}, "b": {**OTHER, "data_offsets": [20, 32]}}
    ),
    "a hole": shard({"a": TENSOR, "b": {**OTHER, "data_offsets": [16, 36]}}, DATA + b"1234"),
    "bytes behind the last tensor": shard({"a": TENSOR, "b": OTHER}, DATA + b"1"),
    "a byte too few": shard({"a": TENSOR, "b": OTHER}, DATA[:-1]),
    "offsets backwards": shard({"a": {**TENSOR, "data_offsets": [12, 0]}}),
    "offsets below zero": shard({"a": {**TENSOR, "data_offsets": [-12, 0]}}),
    "negative size": shard({"a": {**TENSOR, "shape": [-2, -3]}, "b": OTHER}),
    "size over 64 bits": shard({"a": {**TENSOR, "shape": [2**32, 2**32, 6]}, "b": OTHER}),
    "shape of another size": shard({"a": {**TENSOR, "shape": [2, 2]}, "b": OTHER}),
    "size as a float": shard({"a": {**TENSOR, "shape": [2.0, 3]}, "b": OTHER}),
    "size as a text": shard({"a": {**TENSOR, "shape": ["2", 3]}, "b": OTHER}),
    "unknown type": shard({"a": {**TENSOR, "dtype": "BF15"}, "b": OTHER}),
    "a name twice": shard(pair(json.dumps(TENSOR), json.dumps(OTHER))),
    "metadata twice": shard('{"__metadata__": {}, "__metadata__": {}}', b""),
    "metadata that is no text": shard({"__metadata__": {"a": 1}, "a": TENSOR, "b": OTHER}),
    "a list": shard([TENSOR]),
    "half a surrogate pair": shard(
        '{"\\ud83d": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}', DATA[:12]
    ),
    "header that is no UTF-8": shard({"a": TENSOR, "b": OTHER}).replace(b'"a"', b'"\xff"'),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_the_library_refuses_is_refused(tmp_path: Path, content: bytes) -> None:
    """One line each, naming the file; the library agrees that it is broken."""
    assert theirs(content) is None
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.safetensors is not a complete safetensors file: [^\n]+$") as error:
        list(read_header(path))
    assert error.value.hint == "download the checkpoint again"


def test_any_damage_is_judged_as_by_the_library(tmp_path: Path) -> None:
    """600 seeded mutations of header and data: both refuse, or both read the same names, shapes and bits."""
    header = {"__metadata__": {"format": "pt"}, "a": TENSOR, "b": OTHER, "none": {**TENSOR, "shape": [0, 3]}}
    header["none"]["data_offsets"] = [32, 32]
    whole = shard(header)
    path = tmp_path / "x.safetensors"
    verdicts = {True: 0, False: 0}
    for seed in range(600):
        random = Random(seed)
        content = damaged_header(header, random) if seed % 3 else damaged_bytes(whole, random)
        path.write_bytes(content)
        found = ours(path)
        assert found == theirs(content), (seed, content)
        verdicts[found is not None] += 1
    assert verdicts[True] > 50
    assert verdicts[False] > 200


def damaged_header(header: dict[str, object], random: Random) -> bytes:
    """A file with an entry's field, an entry or a size replaced, or an entry standing twice."""
    text = json.dumps(header)
    name = random.choice(["a", "b", "none"])
    entry = header[name]
    assert isinstance(entry, dict)
    what = random.choice([*entry, "entry", "twice", "number"])
    if what == "twice":
        changed = {**entry, "dtype": random.choice(["BF16", "F16"])}
        return shard(f'{text[:-1]}, "{name}": {json.dumps(changed)}}}')
    if what == "number":
        field = random.choice(["shape", "data_offsets"])
        at = random.randrange(len(entry[field]))
        changed = [
            n if i != at else n + random.choice([-16, -12, -1, 0, 1, 12, 2**40]) for i, n in enumerate(entry[field])
        ]
        return shard({**header, name: {**entry, field: changed}})
    old = json.dumps(entry if what == "entry" else entry[what])
    return shard(text.replace(old, random.choice(VALUES), 1))


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    """Random shapes and types in random order, empty and scalar tensors among them."""
    random = np.random.default_rng(0)
    for i in range(20):
        shapes = [tuple(int(n) for n in random.integers(0, 4, int(random.integers(0, 4)))) for _ in range(8)]
        wanted = {
            f"t{n}": random.standard_normal(shape).astype(np.float16 if n % 2 else np.float32)
            for n, shape in enumerate(shapes)
        }
        path = tmp_path / f"{i}.safetensors"
        path.write_bytes(save(wanted, {"format": "np"}))
        found = ours(path)
        assert found is not None
        assert {name: values for name, (_, _, values) in found.items()} == {
            name: values.tobytes() for name, values in wanted.items()
        }


def test_types_that_are_not_converted_are_named(tmp_path: Path) -> None:
    """A float64 tensor would have to be rounded."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"w": np.zeros(3)}))
    with pytest.raises(UserError, match="tensor w has type F64"):
        list(read_header(path))


def test_a_file_cut_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """The header was whole when the checkpoint was opened."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(shard({"a": TENSOR, "b": OTHER}))
    tensors = {tensor.name: tensor for tensor in read_header(path)}
    path.write_bytes(path.read_bytes()[:-4])
    last: StoredTensor = tensors["b"]
    with pytest.raises(UserError, match="ends within tensor b"):
        last.read()
    with pytest.raises(UserError, match="ends within tensor b"):
        last.sha256()
