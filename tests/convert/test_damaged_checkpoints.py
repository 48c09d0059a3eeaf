"""Checkpoints that something has damaged: one line that names the file, nothing written, no code of theirs run."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.errors import UserError
from orin_runner.model import gguf_keys
from tests.support.checkpoints import TOKENIZER_FILES, llama, phi3
from tests.support.damage import VALUES, damaged_bytes, damaged_json

QUICK = range(80)
THOROUGH = range(80, 1600)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> list[Path]:
    """A Phi-3 in three shards and a Llama in one file."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return [phi3(folder / "phi3", tiny, layers=1, hidden=64, shard_size="100KB"), llama(folder / "llama", tiny)]


def outcome(directory: Path, out: Path) -> str:
    """``"converted"``, or the error; what is written is a whole conversion or nothing."""
    found = "converted"
    try:
        convert(Checkpoint.open(directory), out, Options())
    except (UserError, OSError) as error:
        found = str(error)
    written = sorted(path.name for path in out.parent.glob("out.gguf*"))
    assert written == (["out.gguf", "out.gguf.manifest.json"] if found == "converted" else [])
    assert len(found.splitlines()) == 1
    for name in written:
        (out.parent / name).unlink()
    return found


def any_damage(checkpoints: list[Path], folder: Path, seeds: range) -> None:
    """Damage one file of a checkpoint and convert, once a seed. Any other exception than a UserError ends the test."""
    found: Counter[str] = Counter()
    for seed in seeds:
        random = Random(seed)
        source = checkpoints[random.randrange(2)]
        directory = shutil.copytree(source, folder / "damaged", dirs_exist_ok=True)
        name = random.choice(sorted(path.name for path in source.iterdir()))
        damage = damaged_json if name.endswith(".json") and random.random() < 0.7 else damaged_bytes
        (directory / name).write_bytes(damage((source / name).read_bytes(), random))
        found[outcome(directory, folder / "out.gguf") == "converted"] += 1
        shutil.rmtree(directory)
    assert found[True] > len(seeds) / 20  # harmless damage is none: a changed weight is a weight
    assert found[False] > len(seeds) / 4


def test_any_damage_ends_in_one_line(checkpoints: list[Path], tmp_path: Path) -> None:
    """Bits, bytes and JSON values of every file of a checkpoint."""
    any_damage(checkpoints, tmp_path, QUICK)


@pytest.mark.slow
def test_any_damage_ends_in_one_line_thoroughly(checkpoints: list[Path], tmp_path: Path) -> None:
    """The same with more seeds."""
    any_damage(checkpoints, tmp_path, THOROUGH)


ROPE = {"null", "{}", '{"x": []}'}
POSITIVE = {"3", "7", "1.5", "2147483648", str(1 << 63), "1000000000"}
MEANT: dict[str, set[str]] = {
    "architectures": set(),
    "head_dim": {"null"},  # follows from hidden_size
    "hidden_size": set(),
    "intermediate_size": set(),
    "layer_types": {"null"},
    "max_position_embeddings": {"3", "7", "1000000000", "2049"},
    "num_attention_heads": set(),
    "num_hidden_layers": set(),
    "num_key_value_heads": {"null"},  # as many as there are heads
    "rms_norm_eps": POSITIVE,
    "rope_parameters": ROPE,
    "rope_scaling": ROPE,
    "rope_theta": {*POSITIVE, "null"},
    "sliding_window": {"0", "null"},
    "vocab_size": set(),
}
"""What may stand under a key for the tensors that the Llama has."""


@pytest.mark.parametrize("key", MEANT)
def test_no_value_of_a_config_breaks_the_converter(checkpoints: list[Path], tmp_path: Path, key: str) -> None:
    """Every odd value under every key that decides sizes, and one more than the right one."""
    directory = shutil.copytree(checkpoints[1], tmp_path / "m")
    config = json.loads((directory / "config.json").read_text())
    one_more = [str(config[key] + 1)] if isinstance(config.get(key), int) else []
    for value in (*VALUES, *one_more, "1000000000", '{"rope_type": 3}', '{"rope_theta": "x"}', '["OneForCausalLM", 3]'):
        text = json.dumps({**config, key: "HERE"}).replace('"HERE"', value)
        (directory / "config.json").write_text(text)
        assert outcome(directory, tmp_path / "out.gguf") != "converted" or value in MEANT[key], value


SIZES = {
    "num_hidden_layers": 10**9,
    "hidden_size": 10**9,
    "num_attention_heads": 10**6,
    "head_dim": 33,
    "vocab_size": 2**40,
    "max_position_embeddings": 2**31,
    "rms_norm_eps": 1e300,
    "rope_theta": 1e300,
    "num_key_value_heads": 3,
}


@pytest.mark.parametrize(("key", "value"), SIZES.items())
def test_sizes_that_nobody_has_are_refused_by_name(
    checkpoints: list[Path], tmp_path: Path, key: str, value: float
) -> None:
    """Before memory for them is asked for; 1e300 is beyond a GGUF's float32."""
    directory = shutil.copytree(checkpoints[1], tmp_path / "m")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, key: value}))
    found = outcome(directory, tmp_path / "out.gguf")
    assert "config.json" in found
    assert key in found or f"share {value} key" in found


@pytest.mark.parametrize("ids", [3072, [1, 3072], -1, 2**31, [[2]], "2", True, 2.0, [None]])
def test_stop_tokens_that_do_not_exist_are_refused(checkpoints: list[Path], tmp_path: Path, ids: object) -> None:
    """The model has 3,072 rows."""
    directory = shutil.copytree(checkpoints[1], tmp_path / "m")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    assert ("3072" if ids in (3072, [1, 3072]) else "eos_token_id") in outcome(directory, tmp_path / "out.gguf")


@pytest.mark.parametrize("ids", [3071, [3071, 0], [], None])
def test_stop_tokens_that_exist_are_written(checkpoints: list[Path], tmp_path: Path, ids: object) -> None:
    """None and an empty list mean what transformers takes them for: the tokenizer's, and none."""
    directory = shutil.copytree(checkpoints[1], tmp_path / "m")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    convert(Checkpoint.open(directory), tmp_path / "out.gguf", Options())
    field = GGUFReader(tmp_path / "out.gguf").get_field(gguf_keys.STOP_TOKENS)
    written = [] if field is None else field.contents()
    assert written == {"3071": [3071], "[3071, 0]": [0, 3071], "[]": [], "None": [3000]}[str(ids)]


def test_a_half_surrogate_in_the_chat_template_is_refused(checkpoints: list[Path], tmp_path: Path) -> None:
    """It has no UTF-8, in which a GGUF's texts are."""
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "\ud83d{{ messages }}"}))
    assert "chat template" in outcome(directory, tmp_path / "out.gguf")


def test_a_tokenizer_that_loses_text_is_refused(checkpoints: list[Path], tmp_path: Path) -> None:
    """A normalizer that removes every letter."""
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    path = directory / "tokenizer.json"
    remove = {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": remove}))
    assert "encodes 'a' as" in outcome(directory, tmp_path / "out.gguf")


@pytest.mark.parametrize("where", ["vocab", "added_tokens"])
def test_token_ids_without_a_row_are_refused_before_room_is_made_for_them(
    where: str, checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizers library ends the process where there is none."""
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("the library was called"))
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    path = directory / "tokenizer.json"
    definition = json.loads(path.read_text())
    if where == "vocab":
        definition["model"]["vocab"]["zzz"] = 1 << 31
    else:
        definition["added_tokens"][0]["id"] = 1 << 31
    path.write_text(json.dumps(definition))
    assert "the tokenizer has a token 2147483648" in outcome(directory, tmp_path / "out.gguf")


PAD = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("padding", {"strategy": {"Fixed": 1 << 60}, **PAD}, "converted"),  # the runner does not pad
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "chunk size must be non-zero"),
    ],
)
def test_a_tokenizer_on_which_rust_panics_is_refused_in_one_line(
    part: str, value: object, said: str, checkpoints: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without its traceback, and only where the runner would meet it."""
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    assert said in outcome(directory, tmp_path / "out.gguf")
    assert capfd.readouterr().err == ""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def nothing(path: Path) -> None:
    path.symlink_to("missing")


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [fifo, device, loop, folder, nothing, empty])
@pytest.mark.parametrize("n", [0, 1])
def test_what_is_no_file_is_not_read(
    checkpoints: list[Path], tmp_path: Path, make: Callable[[Path], None], n: int
) -> None:
    """In place of every file in turn, those that transformers reads among them; nothing hangs."""
    for name in sorted({*(path.name for path in checkpoints[n].iterdir()), "chat_template.jinja", "added_tokens.json"}):
        directory = shutil.copytree(checkpoints[n], tmp_path / "m")
        (directory / name).unlink(missing_ok=True)
        make(directory / name)
        found = outcome(directory, tmp_path / "out.gguf")
        if found != "converted":
            assert str(directory) in found
        else:
            # Files that are not needed where another one says the same, or says it by default.
            assert make not in (fifo, device), name
            assert not name.endswith(".safetensors"), name
            assert name != "config.json"
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/hostname", "sub/model.safetensors", "..", ".", "", "x\0", "y" * 300]
)
def test_shards_outside_the_folder_are_refused(checkpoints: list[Path], tmp_path: Path, name: str) -> None:
    """Whatever lies there."""
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    shutil.copytree(checkpoints[1], tmp_path / "other")
    shutil.copytree(checkpoints[1], directory / "sub")
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(content))
    assert "index.json: 'weight_map.model.norm.weight'" in outcome(directory, tmp_path / "out.gguf")


def test_a_tensor_in_two_shards_is_refused(checkpoints: list[Path], tmp_path: Path) -> None:
    """Nobody knows which of the two is meant."""
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    first, second = sorted(directory.glob("model-*.safetensors"))[:2]
    shutil.copy(first, second)
    assert "stands in two shards" in outcome(directory, tmp_path / "out.gguf")


def test_one_file_is_taken_before_shards(checkpoints: list[Path], tmp_path: Path) -> None:
    """As transformers does it, with which answers are compared."""
    from safetensors.torch import load_file, save_file

    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    tensors = {name: t for shard in directory.glob("model-*.safetensors") for name, t in load_file(shard).items()}
    save_file({name: tensor * 0 for name, tensor in tensors.items()}, directory / "model.safetensors", {"format": "pt"})
    found = Checkpoint.open(directory)
    assert {tensor.file.name for tensor in found.tensors.values()} == {"model.safetensors"}


def test_what_a_library_says_of_a_file_is_not_shown(
    checkpoints: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """tokenizers prints the names of settings that it does not know, whatever is in them."""
    directory = shutil.copytree(checkpoints[0], tmp_path / "m")
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][0]["\x17odd"] = "x"
    path.write_text(json.dumps(content))
    convert(Checkpoint.open(directory), tmp_path / "out.gguf", Options())
    assert "odd" not in "".join(capfd.readouterr())


class TestCodeOfACheckpoint:
    """``auto_map`` names Python files of the folder; none is run, and nobody is asked."""

    @pytest.fixture
    def armed(self, checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A checkpoint whose code leaves a mark; whoever asks on stdin is told yes."""
        directory = shutil.copytree(checkpoints[0], tmp_path / "m")
        (directory / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
        for name, keys in (
            ("tokenizer_config.json", ["AutoTokenizer"]),
            ("config.json", ["AutoConfig", "AutoModelForCausalLM"]),
        ):
            path = directory / name
            content = json.loads(path.read_text())
            content["auto_map"] = {
                key: ["code.Any", "code.Any"] if key == "AutoTokenizer" else "code.Any" for key in keys
            }
            path.write_text(json.dumps(content))
        monkeypatch.setattr("builtins.input", lambda *_: "y")
        return directory

    @pytest.mark.parametrize("known", [True, False])
    def test_convert_runs_none_of_it(self, armed: Path, tmp_path: Path, known: bool) -> None:
        """Neither where transformers has classes of its own, nor where it has not."""
        if not known:
            for name, key in (("tokenizer_config.json", "tokenizer_class"), ("config.json", "model_type")):
                path = armed / name
                path.write_text(json.dumps({**json.loads(path.read_text()), key: "unknown_kind"}))
        outcome(armed, tmp_path / "out.gguf")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("known", [True, False])
    def test_the_reference_runs_none_of_it(self, armed: Path, tmp_path: Path, known: bool) -> None:
        """The model and the tokenizer of transformers itself, or one line."""
        from eval.hf_encoder import HFEncoder
        from eval.reference import Reference

        if not known:
            path = armed / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "unknown_kind"}))
            with pytest.raises(UserError, match="transformers cannot load"):
                Reference(armed, "float32", "cpu")
        else:
            assert Reference(armed, "float32", "cpu").encoder.encode(["a"])[0].size
            assert HFEncoder(armed, frozenset()).encode(["a"])[0].size
        assert not (tmp_path / "ran").exists()


def test_what_cannot_be_read_is_said(checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission denied, as the system says it; root may read everything, so the system is made to say it."""
    directory = shutil.copytree(checkpoints[1], tmp_path / "m")
    original = Path.open

    def denied(self: Path, *arguments: object, **options: object) -> object:
        if self.name == "config.json":
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", denied)
    (directory / "config.json").chmod(stat.S_IWUSR)
    assert "Permission denied" in outcome(directory, tmp_path / "out.gguf")


def test_tokenizer_files_are_those_of_the_checkpoints(checkpoints: list[Path]) -> None:
    """The damage above reaches all of them."""
    assert {*TOKENIZER_FILES} <= {path.name for path in checkpoints[0].iterdir()}
