"""Tensors of a ``.bin`` file, as ``torch.save`` writes it. The only module of this package that imports torch.

The file is a zip archive of a pickle, which names the tensors, and of a record for each storage
(https://docs.pytorch.org/docs/stable/notes/serialization.html). torch reads the pickle without running any code that it
names, and maps the file into memory: values are read where they are used, and the kernel takes the pages back. torch
compares neither the records' sizes nor the pickle's checksum, and takes packed records for values; that is done here.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convert.schemas import DAMAGED
from convert.source_tensor import CHUNK_VALUES, Bits, SourceTensor, check_type
from orin_runner.errors import UserError, first_line

TYPES = {
    torch.bfloat16: ("BF16", torch.uint16),
    torch.float16: ("F16", torch.uint16),
    torch.float32: ("F32", torch.uint32),
    torch.float64: ("F64", torch.uint64),
    torch.int64: ("I64", torch.uint64),
    torch.int32: ("I32", torch.uint32),
    torch.int16: ("I16", torch.uint16),
    torch.int8: ("I8", torch.uint8),
    torch.uint8: ("U8", torch.uint8),
    torch.bool: ("BOOL", torch.uint8),
}
"""safetensors' name of a type, and the type of its bits."""

PLAIN_ONLY = "name a checkpoint of weights alone: safetensors, or what torch.save(model.state_dict(), FILE) writes"
PICKLE_START, ZIP_START = b"\x80", b"PK\x03\x04"
TORCHSCRIPT = "constants.pkl"
"""The record by which torch knows a program of its own."""


@dataclass(frozen=True, slots=True)
class MappedTensor(SourceTensor):
    """A tensor whose values are ``bits``, a view of the mapped file; its rows may lie apart or overlap others."""

    bits: Bits

    def read(self) -> Bits:
        values: Bits = self.bits.copy()
        return values

    def chunks(self) -> Iterator[Bits]:
        flat = (self.bits if self.bits.flags.c_contiguous else self.read()).reshape(-1)
        for start in range(0, len(flat), CHUNK_VALUES):
            yield flat[start : start + CHUNK_VALUES].copy()


def read_bin(path: Path) -> Iterator[MappedTensor]:
    """The tensors of a shard; no data.

    Raises:
        UserError: the file is none of torch's, is damaged, or holds anything but plain tensors by their names.
    """
    records = _records(path)
    content = _load(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not tensors by their names", PLAIN_ONLY)
    storages: dict[int, int] = {}
    for name, value in content.items():
        _check(path, name, value)
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    if sorted(filter(None, storages.values())) != sorted(filter(None, records)):
        raise UserError(f"{path} is damaged: its records are not as long as its tensors say", DAMAGED)
    for name, value in content.items():
        dtype, of_bits = TYPES[value.dtype]
        yield MappedTensor(name, dtype, tuple(value.shape), path, value.detach().view(of_bits).numpy())


def _records(path: Path) -> list[int]:
    """Bytes of each storage in the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            index = entries.get("data.pkl")
            if index is None or TORCHSCRIPT in entries:
                raise UserError(f"{path} is a zip archive, but none of weights that torch has saved", PLAIN_ONLY)
            if any(entry.compress_type for name, entry in entries.items() if name.startswith("data")):
                raise UserError(f"{path} has been packed again, so that it cannot be mapped", DAMAGED)
            if index.CRC:  # 0 where torch was told to work out none
                archive.read(index)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            start = file.read(len(ZIP_START))
        if start.startswith(PICKLE_START):
            # Nothing maps it, so a shard would have to fit into memory; no OPT or LLaMA was published so.
            raise UserError(
                f"{path} is of the format before torch 1.6, or another pickle, of which nothing is read",
                "if torch saved it: torch.save(torch.load(FILE, weights_only=True), FILE)",
            ) from error
        what = "damaged or cut short" if start == ZIP_START else "not a file that torch has saved"
        raise UserError(f"{path} is {what}", DAMAGED) from error
    except (OSError, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a file that torch has saved: {first_line(error)}", DAMAGED) from error
    return [entry.file_size for name, entry in entries.items() if name.startswith("data/")]


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if not foreign:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:  # torch's words tell how to run the code
        raise UserError(f"{path} holds a pickle that is damaged, or not one of tensors alone", DAMAGED) from error
    except Exception as error:
        # A pickle is a program: what a damaged one makes of torch's interpreter may raise anything.
        raise UserError(f"{path} is damaged: {first_line(error)}", DAMAGED) from error
    named = ", ".join(sorted(foreign)[:3])
    raise UserError(f"{path} names code to run, which is never done: {named}", PLAIN_ONLY)


def _check(path: Path, name: Any, value: Any) -> None:
    """Refuse what is no plain tensor under a name, by what it is."""
    if not isinstance(name, str):
        raise UserError(f"{path} holds {name!r}, which is no name of a tensor", PLAIN_ONLY)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path} holds a name that is no Unicode: {name!r}", DAMAGED) from error
    if not isinstance(value, torch.Tensor):
        raise UserError(f"{path} holds {name!r}, a {type(value).__name__} and no tensor", PLAIN_ONLY)
    kinds = {
        "without values": value.is_meta,
        "quantized": value.is_quantized,
        "nested": value.is_nested,
        "sparse": value.layout != torch.strided,
        f"a {type(value).__name__}": type(value) not in {torch.Tensor, torch.nn.Parameter},
        "a view that negates": value.is_neg() or value.is_conj(),
    }
    for kind, found in kinds.items():
        if found:
            raise UserError(f"tensor {name} of {path} is {kind}; only plain tensors are converted", PLAIN_ONLY)
    check_type(name, TYPES[value.dtype][0] if value.dtype in TYPES else str(value.dtype).removeprefix("torch."))
    if value.numel() * value.element_size() > path.stat().st_size:
        raise UserError(f"tensor {name} of {path} has more values than the file", DAMAGED)
