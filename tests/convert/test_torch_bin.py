"""``.bin`` files: the values that torch saved, nothing of them run, and one line for whatever else lies there."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.safetensors_file import read_header
from convert.source_tensor import CHUNK_VALUES
from convert.torch_bin import read_bin
from eval.reference import Reference
from orin_runner.errors import UserError
from orin_runner.model.gguf_digests import manifest_path
from tests.support.bins import WEIGHTS, pickled, repacked
from tests.support.checkpoints import llama
from tests.support.damage import damaged_bytes
from tests.support.families import FAMILIES

MATRIX = torch.arange(24, dtype=torch.float32).reshape(4, 6)


def found(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What this converter reads, by name, at once and piece by piece."""
    tensors = list(read_bin(path))
    for tensor in tensors:
        assert b"".join(chunk.tobytes() for chunk in tensor.chunks()) == tensor.read().tobytes()
    return {t.name: (t.dtype, t.shape, t.read().tobytes()) for t in tensors}


def expected(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The same tensors by way of a safetensors file, whose reader is compared with the library's elsewhere."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    return {t.name: (t.dtype, t.shape, t.read().tobytes()) for t in read_header(path)}


def refusal(path: Path) -> str:
    """The one line in which a file is refused."""
    with pytest.raises(UserError) as error:
        list(read_bin(path))
    assert error.value.hint
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in error.value.message
    return error.value.message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_conversion_is_that_of_the_safetensors(tmp_path: Path, tiny: Path, dtype: torch.dtype, shards: int) -> None:
    """GGUF and manifest byte for byte, the sources' digests among them, and transformers reads the same weights."""
    plain = llama(tmp_path / "a" / "m", tiny, dtype=dtype)
    binary = pickled(llama(tmp_path / "b" / "m", tiny, dtype=dtype), shards)
    assert not list(binary.glob("*.safetensors"))
    for folder in (plain, binary):
        convert(Checkpoint.open(folder), folder.parent / "m.gguf", Options())
    one, other = (folder.parent / "m.gguf" for folder in (plain, binary))
    assert one.read_bytes() == other.read_bytes()
    assert manifest_path(one).read_bytes() == manifest_path(other).read_bytes()
    digest = Reference(binary, "float32", "cpu").header()["model"]["checkpoint_sha256"]
    assert digest == json.loads(manifest_path(other).read_text())["checkpoint"]["sha256"]


@pytest.mark.parametrize("name", ["OPT", "LLaMA-1"])
def test_a_published_form(name: str, tmp_path: Path) -> None:
    """A head that shares its storage with the embeddings, and buffers that nobody needs: all are accounted for."""
    folder = FAMILIES[name].build(tmp_path / "m")
    before = convert(Checkpoint.open(folder), tmp_path / "a.gguf", Options())
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if name == "OPT":
        extra = {"lm_head.weight": tensors["model.decoder.embed_tokens.weight"], "decoder.version": torch.tensor([3.0])}
    else:
        extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    torch.save({**tensors, **extra}, folder / WEIGHTS)
    after = convert(Checkpoint.open(folder), tmp_path / "b.gguf", Options())
    assert after.tensors == before.tensors
    assert after.source_sha256.keys() == {*before.source_sha256, *extra}


def test_any_view_has_its_values(tmp_path: Path) -> None:
    """Transposed, sliced, repeated, shared, of no dimension, without values, a parameter; infinities and any NaN."""
    half = torch.tensor([[float("inf"), -0.0, 1e-7], [65504.0, float("nan"), -1.5]], dtype=torch.float16)
    half.view(torch.int16)[0, 1] = 0x7D23
    tensors = {
        "whole": MATRIX,
        "transposed": MATRIX.T,
        "slice": MATRIX[1:3, 2:5],
        "step": MATRIX[:, ::2],
        "repeated": MATRIX[0].expand(3, 6),
        "half": half,
        "half transposed": half.T,
        "bfloat": MATRIX.bfloat16().reshape(2, 3, 4).permute(2, 0, 1),
        "scalar": torch.tensor(7.0),
        "none": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(MATRIX + 0.5),
        "large": torch.randn(CHUNK_VALUES + 5),
    }
    torch.save(tensors, tmp_path / WEIGHTS)
    assert found(tmp_path / WEIGHTS) == expected(tensors, tmp_path / "x.safetensors")


def test_a_file_is_not_loaded_into_memory(tmp_path: Path) -> None:
    """192 MiB in three tensors; the pages of the mapped file are the kernel's to take back."""
    torch.save({name: torch.ones(16 << 20) for name in "abc"}, tmp_path / WEIGHTS)

    def own() -> int:
        rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("Anonymous:"))

    before = own()
    tensors = list(read_bin(tmp_path / WEIGHTS))
    assert len({tensor.sha256() for tensor in tensors}) == 1
    assert own() - before < 64 << 10


class Marks:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["saved", "legacy", "bare", "in a shard"])
@pytest.mark.parametrize("environment", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}])
def test_no_code_of_a_pickle_runs(
    tmp_path: Path, tiny: Path, form: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the form, and whatever torch is told elsewhere."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mark, path = tmp_path / "ran", tmp_path / WEIGHTS
    content = {"a": MATRIX, "b": Marks(mark)}
    if form == "bare":
        path.write_bytes(pickle.dumps(content["b"]))
    elif form == "in a shard":
        folder = pickled(llama(tmp_path / "m", tiny), 2)
        path = max(folder.glob("*.bin"))
        torch.save({**torch.load(path, weights_only=True), **content}, path)
        with pytest.raises(UserError, match=r"names code to run, which is never done: posix\.mkdir"):
            convert(Checkpoint.open(folder), tmp_path / "m.gguf", Options())
        assert not list(tmp_path.glob("m.gguf*"))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "saved")
    said = refusal(path)
    assert "names code to run" in said if form in {"saved", "in a shard"} else "or another pickle" in said
    assert not mark.exists()


def meta(path: Path) -> None:
    torch.save({"a": MATRIX.to("meta")}, path)


def module(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), path)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/readme.txt", "hello")


def bad_name(path: Path) -> None:
    torch.save({"\ud83drotary_emb.inv_freq": MATRIX}, path)


def quantized(path: Path) -> None:
    torch.save({"a": torch._empty_affine_quantized([3], scale=0.1, zero_point=0, dtype=torch.qint8)}, path)


def half_of_it(path: Path) -> None:
    torch.save({"a": MATRIX}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def saved(content: object) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated file": (half_of_it, "is damaged or cut short"),
    "nothing": (Path.touch, "not a file that torch has saved"),
    "a pointer of git": (lambda path: path.write_text("version https://git-lfs"), "not a file that torch has saved"),
    "a folder": (Path.mkdir, "Is a directory"),
    "another zip archive": (other_zip, "none of weights that torch has saved"),
    "the format before 1.6": (
        lambda path: torch.save({"a": MATRIX}, path, _use_new_zipfile_serialization=False),
        "of the format before torch 1.6",
    ),
    "a model": (module, "names code to run, which is never done: torch.nn.modules.linear.Linear"),
    "a state of training": (saved({"model": {"a": MATRIX}, "step": 3}), "holds 'model', a dict and no tensor"),
    "a number": (saved({"a": MATRIX, "step": 3}), "holds 'step', a int and no tensor"),
    "a list": (saved([MATRIX]), "holds a list, not tensors by their names"),
    "one tensor": (saved(MATRIX), "holds a Tensor, not tensors by their names"),
    "a number for a name": (saved({3: MATRIX}), "holds 3, which is no name of a tensor"),
    "a name that is no text": (bad_name, "a name that is no Unicode"),
    "a sparse tensor": (saved({"a": MATRIX.to_sparse()}), "tensor a of .* is sparse"),
    "compressed rows": (lambda path: torch.save({"a": MATRIX.to_sparse_csr()}, path), "tensor a of .* is sparse"),
    "a quantized tensor": (quantized, "tensor a of .* is quantized"),
    "a tensor without values": (meta, "tensor a of .* is without values"),
    "a negated view": (saved({"a": torch.ones(3, dtype=torch.complex64).conj().imag}), "a view that negates"),
    "more values than bytes": (saved({"a": torch.ones(1).expand(1 << 20)}), "has more values than the file"),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, where such tensors are made
def test_what_else_lies_there_is_refused(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    """By what it is, in one line."""
    make(tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=said):
        list(read_bin(tmp_path / WEIGHTS))
    refusal(tmp_path / WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool])
def test_what_is_left_out_may_be_of_another_type(tmp_path: Path, dtype: torch.dtype) -> None:
    """A checkpoint has one digest in both formats, and what lies behind such a tensor is read from its place."""
    tensors = {"x.rotary_emb.inv_freq": MATRIX.to(dtype), "a": MATRIX}
    torch.save(tensors, tmp_path / WEIGHTS)
    read = found(tmp_path / WEIGHTS)
    assert read == expected(tensors, tmp_path / "a.safetensors")
    assert {name: values for name, (_, _, values) in read.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in tensors.items()
    }


OTHER_TYPES = {
    torch.float64: "F64",
    torch.bool: "BOOL",
    torch.int8: "I8",
    torch.float8_e4m3fn: "float8_e4m3fn",
    torch.complex64: "complex64",
}


@pytest.mark.parametrize("dtype", OTHER_TYPES)
def test_other_types_are_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    """As in safetensors."""
    torch.save({"a": MATRIX.to(dtype)}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=f"tensor a has type {OTHER_TYPES[dtype]}; only BF16, F16 and F32"):
        list(read_bin(tmp_path / WEIGHTS))


class TestWhatTorchTakesForValues:
    """torch reads these files without a word, and other values than were saved."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        torch.save({"a": MATRIX.half(), "b": MATRIX.bfloat16()}, tmp_path / "source.bin")
        return tmp_path / "source.bin"

    def torch_reads_it(self, path: Path) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        return tensors

    def test_packed_records(self, source: Path, tmp_path: Path) -> None:
        path = repacked(source, tmp_path / WEIGHTS, lambda _, content: content, zipfile.ZIP_DEFLATED)
        assert not torch.equal(self.torch_reads_it(path)["a"], MATRIX.half())
        assert "has been packed again" in refusal(path)

    def test_a_record_that_is_shorter_than_its_tensors(self, source: Path, tmp_path: Path) -> None:
        path = repacked(source, tmp_path / WEIGHTS, lambda name, content: content[:40] if name == "data/1" else content)
        assert self.torch_reads_it(path)["b"].shape == (4, 6)
        assert "records are not as long" in refusal(path)

    def test_a_pickle_with_another_bit(self, source: Path, tmp_path: Path) -> None:
        """The checksum in the archive is the old one; a number of rows becomes another."""
        content = source.read_bytes()
        at = content.index(b"K\x04K\x06\x86")  # the shape (4, 6)
        path = tmp_path / WEIGHTS
        path.write_bytes(content[:at] + b"K\x02" + content[at + 2 :])
        assert self.torch_reads_it(path)["a"].shape == (2, 6)
        assert "is damaged" in refusal(path)


def test_a_file_without_checksums_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch can be told to work out none."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": MATRIX}, tmp_path / WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert found(tmp_path / WEIGHTS)["a"][2] == MATRIX.numpy().tobytes()


def test_any_damage_is_refused_or_read_as_torch_reads_it(tmp_path: Path) -> None:
    """400 seeded mutations, half of them of the pickle alone with its checksum put right."""
    source, path = tmp_path / "source.bin", tmp_path / WEIGHTS
    torch.save({"a": MATRIX.half(), "b": MATRIX.T, "c": MATRIX[1:]}, source)
    verdicts: Counter[bool] = Counter()
    for seed in range(400):
        random = Random(seed)
        if seed % 2:
            change = lambda name, content: damaged_bytes(content, random) if name == "data.pkl" else content  # noqa: B023,E731
            repacked(source, path, change)
        else:
            path.write_bytes(damaged_bytes(source.read_bytes(), random))
        try:
            ours = found(path)
        except UserError:
            verdicts[False] += 1
        else:
            theirs = torch.load(path, weights_only=True, map_location="cpu")
            assert ours == expected(theirs, tmp_path / "x.safetensors"), seed
            verdicts[True] += 1
    assert verdicts[True] > 20
    assert verdicts[False] > 100


def test_without_torch_the_hint_says_so(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And safetensors are read as before."""
    plain = llama(tmp_path / "plain", tiny)
    binary = pickled(shutil.copytree(plain, tmp_path / "m"))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "convert.torch_bin")
    with pytest.raises(UserError, match=r"\(pytorch_model.bin\), which takes torch to read") as error:
        Checkpoint.open(binary)
    assert "pip install 'orin-run[reference]'" in str(error.value.hint)
    assert Checkpoint.open(plain).tensors


class TestFolders:
    """Which files are taken, and what an index may say of them."""

    @pytest.fixture
    def sharded(self, tmp_path: Path, tiny: Path) -> Path:
        return pickled(llama(tmp_path / "m", tiny), 2)

    def refused(self, folder: Path, said: str) -> None:
        with pytest.raises(UserError, match=said):
            convert(Checkpoint.open(folder), folder.parent / "m.gguf", Options())
        assert not list(folder.parent.glob("m.gguf*"))

    def index(self, folder: Path, shard: str) -> None:
        path = folder / f"{WEIGHTS}.index.json"
        content = json.loads(path.read_text())
        content["weight_map"]["model.norm.weight"] = shard
        path.write_text(json.dumps(content))

    @pytest.mark.parametrize("shards", [1, 2])
    def test_safetensors_are_taken_first(self, tmp_path: Path, tiny: Path, shards: int) -> None:
        folder = llama(tmp_path / "m", tiny, shard_size="300KB" if shards > 1 else None)
        (folder / WEIGHTS).write_bytes(b"not read")
        assert {tensor.file.suffix for tensor in Checkpoint.open(folder).tensors.values()} == {".safetensors"}

    def test_a_missing_shard(self, sharded: Path) -> None:
        max(sharded.glob("*.bin")).unlink()
        self.refused(sharded, "shard pytorch_model-00002-of-00002.bin of .* is missing")

    def test_a_tensor_that_is_not_where_the_index_says(self, sharded: Path) -> None:
        names = sorted(path.name for path in sharded.glob("*.bin"))
        held = {tensor.name for tensor in read_bin(sharded / names[0])}
        self.index(sharded, names["model.norm.weight" in held])
        self.refused(sharded, "tensor model.norm.weight is not in pytorch_model-.*, where the index says")

    @pytest.mark.parametrize("name", ["../other.bin", "/etc/hostname", "sub/x.bin", "..", ""])
    def test_a_shard_outside_the_folder(self, sharded: Path, name: str) -> None:
        self.index(sharded, name)
        self.refused(sharded, "index.json: 'weight_map.model.norm.weight'")

    def test_a_tensor_in_two_shards(self, sharded: Path) -> None:
        first, second = sorted(sharded.glob("*.bin"))
        shutil.copy(first, second)
        self.refused(sharded, "stands in two shards")

    def test_a_shard_of_another_format(self, sharded: Path) -> None:
        save_file({"model.norm.weight": MATRIX}, sharded / "x.safetensors")
        self.index(sharded, "x.safetensors")
        self.refused(sharded, "x.safetensors is not a file that torch has saved")

    def test_files_of_other_names(self, sharded: Path) -> None:
        for path in sharded.glob("pytorch_model*"):
            path.rename(sharded / f"other_{path.name}")
        self.refused(sharded, "holds no model.safetensors and no pytorch_model.bin")
