"""Where config.json, generation_config.json and the tokenizer name different tokens: named, and the tokenizer wins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from convert.checkpoint import Checkpoint
from convert.convert import Options
from convert.convert import convert as converted
from eval.reference import Reference
from orin_runner.errors import UserError
from orin_runner.model import gguf_keys
from orin_runner.model.gguf_digests import manifest_path
from orin_runner.requests import GenerateRequest
from tests.support.bins import pickled
from tests.support.checkpoints import llama
from tests.support.commands import convert

COPIED = {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A Llama whose files agree: 0 is the unknown token, 1 BOS, 2 EOS; there is no PAD and no generation config."""
    directory = llama(tmp_path_factory.mktemp("sound") / "m", tiny)
    (directory / "tokenizer.json").unlink()
    (directory / "generation_config.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    return directory


@pytest.fixture
def checkpoint(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "m"))


def read(path: Path) -> dict[str, Any]:
    """What the GGUF says of special tokens."""
    reader = GGUFReader(path)
    keys = {name: gguf_keys.SPECIAL_TOKENS[name] for name in ("bos", "eos", "pad")} | {"stop": gguf_keys.STOP_TOKENS}
    fields = {name: reader.get_field(key) for name, key in keys.items()}
    return {name: field.contents() for name, field in fields.items() if field is not None}


def conflicts(checkpoint: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Those in the manifest, and what the GGUF says."""
    out = checkpoint.parent / "m.gguf"
    manifest = converted(Checkpoint.open(checkpoint), out, Options())
    found: list[dict[str, Any]] = json.loads(manifest_path(out).read_text())["tokenizer"]["conflicts"]
    assert found == manifest.tokenizer["conflicts"]
    return found, read(out)


def test_an_old_llama_1(checkpoint: Path) -> None:
    """As it was first published: pickled, other spellings of its classes, BOS 0 and EOS 1, a key that is gone since."""
    modern = converted(Checkpoint.open(checkpoint), checkpoint.parent / "modern.gguf", Options())

    def older(config: dict[str, Any]) -> None:
        config |= {"architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}
        config["max_sequence_length"] = config.pop("max_position_embeddings")

    edit(pickled(checkpoint, 2) / "config.json", older)
    edit(checkpoint / "tokenizer_config.json", lambda content: content.update(tokenizer_class="LLaMATokenizer"))
    (checkpoint / "generation_config.json").write_text(json.dumps(COPIED))
    out = checkpoint.parent / "m.gguf"
    done = convert(checkpoint, out)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "warning" in line)
    assert line == (
        "warning: other files name other special tokens than the tokenizer, whose are taken: BOS 0 in config.json (1), "
        "EOS 1 in config.json (2), EOS 1 in generation_config.json (2)"
    )
    assert read(out) == {"bos": 1, "eos": 2, "stop": [2]}
    manifest = json.loads(manifest_path(out).read_text())
    assert manifest["tokenizer"]["conflicts"] == [
        {"token": "bos", "file": "config.json", "named": 0, "tokenizer": 1},
        {"token": "eos", "file": "config.json", "named": 1, "tokenizer": 2},
        {"token": "eos", "file": "generation_config.json", "named": 1, "tokenizer": 2},
    ]
    assert manifest["source_sha256"] == modern.source_sha256
    for key in ("llama.context_length", "llama.vocab_size", "tokenizer.ggml.tokens"):
        assert manifest["metadata_sha256"][key] == modern.metadata_sha256[key]


def test_the_reference_ends_texts_where_the_runner_does(checkpoint: Path) -> None:
    """At the tokenizer's EOS, though transformers takes config.json's, and without padding by token -1."""
    edit(checkpoint / "config.json", lambda content: content.update(eos_token_id=1, pad_token_id=-1))
    assert conflicts(checkpoint)[1]["stop"] == [2]
    reference = Reference(checkpoint, "float32", "cpu")
    assert reference.encoder.stop == {2}
    requests = [GenerateRequest(np.array([5, 6 + n], np.int32), frozenset({2}), 3 + 3 * n) for n in range(2)]
    together, alone = (dict(reference.run(requests, batch_tokens)) for batch_tokens in (99, 1))
    assert [together[n].tokens.tolist() for n in range(2)] == [alone[n].tokens.tolist() for n in range(2)]


AGREEING: dict[str, dict[str, Any]] = {
    "the same": {"bos_token_id": 1, "eos_token_id": 2},
    "a list with it": {"eos_token_id": [7, 2]},
    "nothing": {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
    "none, as a negative number": {"bos_token_id": -1, "eos_token_id": [-1], "pad_token_id": -1},
    "one that the tokenizer has not": {"pad_token_id": 0},
}


@pytest.mark.parametrize("config", AGREEING.values(), ids=AGREEING)
def test_what_is_no_conflict(checkpoint: Path, config: dict[str, Any]) -> None:
    """The same token, one of several, or no token on one side."""
    edit(checkpoint / "config.json", lambda content: content.update(config))
    assert conflicts(checkpoint) == ([], {"bos": 1, "eos": 2, "stop": [2]})


def test_pad_and_a_list(checkpoint: Path) -> None:
    """A tokenizer with a PAD of its own, and a config with several EOS, none of them the tokenizer's."""
    edit(checkpoint / "config.json", lambda content: content.update(pad_token_id=0, eos_token_id=[5, 6]))
    edit(checkpoint / "tokenizer_config.json", lambda content: content.update(pad_token="</s>"))  # noqa: S106
    found, written = conflicts(checkpoint)
    assert [(c["token"], c["named"], c["tokenizer"]) for c in found] == [("eos", [5, 6], 2), ("pad", 0, 2)]
    assert written == {"bos": 1, "eos": 2, "pad": 2, "stop": [2]}


@pytest.mark.parametrize(
    ("generation", "stop"),
    [
        ({"eos_token_id": [7, 1]}, [1, 7]),  # somebody's decision, which transformers follows
        ({"eos_token_id": 1}, [1]),
        ({"eos_token_id": [7, 2], "_from_model_config": True}, [2, 7]),
        ({"eos_token_id": [7, 1], "_from_model_config": True}, [2]),
        ({"_from_model_config": True}, [2]),
    ],
)
def test_what_ends_a_text(checkpoint: Path, generation: dict[str, Any], stop: list[int]) -> None:
    """A generation config is believed, but not what a program has copied into it."""
    (checkpoint / "generation_config.json").write_text(json.dumps(generation))
    assert conflicts(checkpoint)[1]["stop"] == stop


@pytest.mark.parametrize("value", ["1", 1.5, True, [None], {"a": 1}])
def test_a_token_that_is_no_number(checkpoint: Path, value: object) -> None:
    """One line names it."""
    edit(checkpoint / "config.json", lambda content: content.update(bos_token_id=value))
    with pytest.raises(UserError, match=r"config.json: 'bos_token_id"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize("key", ["bos_token", "eos_token", "unk_token", "pad_token"])
@pytest.mark.parametrize("value", ["", {"content": "", "special": True}])
def test_an_empty_special_token_is_refused(checkpoint: Path, key: str, value: object) -> None:
    """Those of the first LLaMA-1: transformers would take token 0 for each."""
    edit(checkpoint / "tokenizer_config.json", lambda content: content.update({key: value}))
    with pytest.raises(UserError, match=f"tokenizer_config.json has an empty {key}") as error:
        converted(Checkpoint.open(checkpoint), checkpoint.parent / "m.gguf", Options())
    assert str(error.value.hint).startswith("delete that entry")
    assert not list(checkpoint.parent.glob("m.gguf*"))
