"""A GGUF against its manifest: one flipped bit anywhere is found, and what nothing proves is not said to be proven."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import DataCheck, Evidence, Proof, Verdict, examine
from tests.support.altered import copied, data_places, flip, manifest_of, restamped, rewritten, value_place

STAMPS = ("orin.manifest.sha256", "orin.checkpoint.sha256")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture
def gguf(tmp_path: Path, converted: Path) -> Path:
    return copied(converted, tmp_path)


def examined(gguf: Path) -> Evidence:
    return examine(GGUFFile.open(gguf))


def checked(gguf: Path, n_threads: int = 1) -> Verdict:
    """The verdict once all data has been read."""
    with DataCheck(examined(gguf)) as check:
        check.start(n_threads)
        return check.verdict(wait=True)


def test_a_converted_file_is_verified(gguf: Path) -> None:
    """By its header alone it is not; with its data it is, on one thread and on several."""
    evidence = examined(gguf)
    assert evidence.verdict.proof is Proof.HEADER
    assert [tensor.name for tensor in evidence.tensors] == [tensor.name for tensor in GGUFReader(gguf).tensors]
    for n_threads in (1, 4):
        assert checked(gguf, n_threads) == Verdict(Proof.VERIFIED)


def test_every_key_is_in_the_digest(gguf: Path) -> None:
    """A flipped bit in its name, its type, its lengths and its values; of an array in some, the last one among them."""
    rng = random.Random(1)
    fields = [field for field in GGUFReader(gguf).fields.values() if not field.name.startswith("GGUF.")]
    assert len(fields) > 30
    assert set(STAMPS) < {field.name for field in fields}
    for field in fields:
        ends = np.cumsum([int(part.nbytes) for part in field.parts])
        last = len(ends) - 1
        for number in {0, 1, 2, min(3, last), rng.randrange(last + 1), last}:
            size = int(field.parts[number].nbytes)
            if not size:
                continue
            at, bit = int(field.offset) + int(ends[number]) - 1 - rng.randrange(size), rng.randrange(8)
            flip(gguf, at, bit)
            with pytest.raises(UserError):
                examined(gguf)
            flip(gguf, at, bit)
    assert examined(gguf).tensors


def test_the_first_key_that_differs_is_named(gguf: Path) -> None:
    """One bit of a stop token, which would make a text go on, and of an epsilon, which alters every number."""
    for key in ("orin.generation.stop_token_ids", "tokenizer.chat_template", "orin.altered_values"):
        at = value_place(gguf, key)
        flip(gguf, at)
        with pytest.raises(UserError, match=f"the key {key} has another value"):
            examined(gguf)
        flip(gguf, at)
    at = value_place(gguf, "orin.checkpoint.sha256")
    flip(gguf, at)
    with pytest.raises(UserError, match=r"the key orin\.checkpoint\.sha256 has another value"):
        examined(gguf)


def test_the_tensor_table_is_in_the_digest(gguf: Path) -> None:
    """Two tensors of one shape that have exchanged their names."""
    content = gguf.read_bytes()
    one, other = b"blk.0.ffn_gate.weight", b"blk.1.ffn_gate.weight"
    assert content.count(one) == content.count(other) == 1
    gguf.write_bytes(content.replace(one, b"?" * len(one)).replace(other, one).replace(b"?" * len(one), other))
    with pytest.raises(UserError, match="the tensor table is another"):
        examined(gguf)


def test_a_tensor_that_the_manifest_does_not_know_is_named(gguf: Path) -> None:
    rewritten(gguf, lambda manifest: manifest["tensors"][3].update(shape=[1, 2]))
    name = json.loads(manifest_of(gguf).read_text())["tensors"][3]["name"]
    with pytest.raises(UserError, match=f"the tensor {name} has another name, type or shape"):
        examined(gguf)


def test_one_flipped_bit_in_any_tensor_is_found(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added constants, too, and however the file is read; the tensor is named."""
    monkeypatch.setattr("orin_runner.model.proof.CHUNK", 5_000)
    rng = random.Random(2)
    for name, place in data_places(gguf).items():
        at, bit = rng.choice(place), rng.randrange(8)
        flip(gguf, at, bit)
        assert checked(gguf) == Verdict(Proof.REFUTED, f"the data of tensor {name} is not what the manifest says")
        flip(gguf, at, bit)
    assert checked(gguf).proof is Proof.VERIFIED


def test_of_several_wrong_tensors_the_first_is_named(gguf: Path) -> None:
    """Whichever thread is done first."""
    places = list(data_places(gguf).items())[5:]
    for _, place in places:
        flip(gguf, place.start)
    for n_threads in (1, 8):
        assert f"tensor {places[0][0]} is" in str(checked(gguf, n_threads).detail)


def test_a_file_cut_off_while_it_is_read_is_refuted(gguf: Path) -> None:
    evidence = examined(gguf)
    os.truncate(gguf, max(place.stop for place in data_places(gguf).values()) - 1)
    with DataCheck(evidence) as check:
        check.start()
        assert check.verdict(wait=True).proof is Proof.REFUTED


def test_a_check_can_be_left_at_any_time(gguf: Path) -> None:
    """What is not known by then is not said."""
    evidence = examined(gguf)
    check = DataCheck(evidence)
    assert check.verdict(wait=True) == evidence.verdict
    check.close()
    with DataCheck(evidence) as check:
        check.start()
        assert check.verdict().proof in {Proof.HEADER, Proof.VERIFIED}
    check.close()


def test_a_file_that_vanishes_is_no_proof(gguf: Path) -> None:
    check = DataCheck(examined(gguf))
    gguf.unlink()
    with pytest.raises(FileNotFoundError):
        check.start()


def test_without_its_manifest_a_file_is_believed_by_its_header(gguf: Path) -> None:
    manifest_of(gguf).unlink()
    evidence = examined(gguf)
    assert evidence.verdict == Verdict(Proof.HEADER, "its manifest tiny.gguf.manifest.json is missing")
    assert evidence.tensors == ()
    with DataCheck(evidence) as check:
        check.start()
        assert check.verdict(wait=True) == evidence.verdict


@pytest.mark.parametrize(
    "change", [lambda text: text + b"\n", lambda text: text.replace(b'"changed": 0', b'"changed": 1')]
)
def test_a_manifest_that_was_edited_is_refused(gguf: Path, change: Callable[[bytes], bytes]) -> None:
    path = manifest_of(gguf)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match="another file's, or changed"):
        examined(gguf)


def test_the_manifest_of_another_file_is_refused(tmp_path: Path, tiny: Path, gguf: Path) -> None:
    other = tmp_path / "other.gguf"
    convert(Checkpoint.open(tiny), other, Options(window="off"))
    manifest_of(gguf).write_bytes(manifest_of(other).read_bytes())
    with pytest.raises(UserError, match="another file's, or changed"):
        examined(gguf)


def test_a_manifest_without_digests_of_the_keys_proves_no_file(gguf: Path) -> None:
    """Format 1, as versions before this one wrote it: one line says what to do."""

    def older(manifest: dict[str, Any]) -> None:
        manifest["format"] = 1
        del manifest["metadata_sha256"], manifest["tensor_table_sha256"]

    rewritten(gguf, older)
    evidence = examined(gguf)
    assert evidence.verdict.proof is Proof.HEADER
    assert "convert again" in str(evidence.verdict.detail)
    assert evidence.tensors == ()


def test_a_file_of_another_converter_has_no_proof(gguf: Path) -> None:
    """It names no manifest; and where one lies beside it, it is not this file's, or the name of the key was damaged."""
    gguf.write_bytes(gguf.read_bytes().replace(STAMPS[0].encode(), b"orin.manifest.sha255"))
    with pytest.raises(UserError, match="names no manifest, and one lies beside it"):
        examined(gguf)
    manifest_of(gguf).unlink()
    assert examined(gguf).verdict.proof is Proof.NONE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"format": "2"}',
        b'{"format": 2}',
        b'{"format": 2, "checkpoint": 3}',
        b'{"format": 2' + b"[" * 100_000,
        b"\xff\xfe",
        b'{"format": 1' + b"0" * 5_000 + b"}",
    ],
)
def test_a_manifest_that_is_none_is_one_line(gguf: Path, content: bytes) -> None:
    """The GGUF names it, whatever it is."""
    restamped(gguf, content)
    with pytest.raises(UserError, match="is no manifest"):
        examined(gguf)


@pytest.mark.parametrize("value", [[], [1.0], [1.0] * 5, 1e39, [-1e39] * 2, 1e400])
def test_added_values_that_are_none_of_their_tensor_are_refused(gguf: Path, value: float | list[float]) -> None:
    """More or fewer than its shape has, or beyond float32: nothing could be such a tensor's data."""
    name = ""

    def change(manifest: dict[str, Any]) -> None:
        nonlocal name
        added = next(record for record in manifest["added"] if "sinks" in record["name"])
        name, added["value"] = added["name"], value

    rewritten(gguf, change)
    with pytest.raises(UserError, match=f"the tensor {name} has not the values of its shape and type|is no manifest"):
        examined(gguf)


def test_a_manifest_that_is_no_file_is_one_line(gguf: Path) -> None:
    """A FIFO would be waited for."""
    path = manifest_of(gguf)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a file"):
        examined(gguf)


def test_what_run_json_says_comes_back() -> None:
    """A reference is its checkpoint; a run that says nothing believed the header, if that named a checkpoint."""
    refuted = Verdict(Proof.REFUTED, "the data of tensor x is not what the manifest says")
    assert Verdict.of_run({"engine": "llama.cpp", "model": refuted.keys}) == refuted
    assert Verdict.of_run({"engine": "transformers", "model": {"checkpoint_sha256": "c"}}).proof is Proof.VERIFIED
    assert Verdict.of_run({"engine": "llama.cpp", "model": {"checkpoint_sha256": "c"}}).proof is Proof.HEADER
    assert Verdict.of_run({"engine": "llama.cpp", "model": {}}).proof is Proof.NONE
    assert Verdict.of_run({}).proof is Proof.NONE


def test_the_weaker_of_two_verdicts_counts() -> None:
    ordered = [Verdict(proof) for proof in (Proof.VERIFIED, Proof.HEADER, Proof.NONE, Proof.REFUTED)]
    for i, one in enumerate(ordered):
        for j, other in enumerate(ordered):
            assert one.together(other) == ordered[max(i, j)]
