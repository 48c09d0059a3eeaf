"""Malformed GGUFs, manifests and chat templates."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from gguf import GGUFReader

from tests.support.fuzz import corpus, kinds, texts
from tests.support.fuzz.case import Case, Outcome, Place
from tests.support.fuzz.mutations import damaged, other_json
from tests.support.fuzz.tokenizer_parts import PARTS
from tests.support.gguf_bytes import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    INT64,
    KEYS,
    STRING,
    UINT32,
    UINT64,
    Raw,
    Tensor,
    Typed,
    gguf,
)

NO_FIT = "does not fit|do not fit"
LEFT_OUT = r"items failed|died \d+ times|the engine|does not fit|more than rounding|FAILED|a request failed"
EXAMPLE = "arc_easy"


def copied(place: Place, random: Random, *, manifest: bool | None = None) -> Path:
    """One of the GGUFs, with or without its manifest, to be damaged."""
    name = random.choice(("llama", "llama", "phi3"))
    target = place.inputs / "model.gguf"
    shutil.copy(place.base / f"{name}.gguf", target)
    if manifest if manifest is not None else random.random() < 0.5:
        shutil.copy(place.base / f"{name}.gguf.manifest.json", place.inputs / "model.gguf.manifest.json")
    return target


def opened(place: Place, model: Path, random: Random, right: Callable[[Outcome], str | None] = lambda _: None) -> Case:
    """A command that opens a model: most often one that does not load it."""
    data = ["--data", str(place.base / "data")]
    kind = random.random()
    if kind < 0.7:
        chat = ["--chat"] if random.random() < 0.3 else []
        argv = ["orin-run", "plan", EXAMPLE, *data, "--model", str(model), "--device", "orin-32gb", "--json", *chat]
        return Case(argv, right=lambda outcome: right(outcome) or planned(outcome), fails='"fits": false')
    if kind < 0.8:
        argv = ["orin-run", "plan", EXAMPLE, *data, "--model", str(model), "--device", "700MiB"]
        return Case(argv, right=right, fails=NO_FIT)
    if kind < 0.9:
        return Case(
            ["orin-run", "selftest", "--requests", "2", "--device", "900MiB", "--model", str(model)],
            right=right,
            fails=LEFT_OUT,
        )
    return evaluated(place, model, EXAMPLE, random, right=right)


def evaluated(
    place: Place,
    model: Path,
    task: str,
    random: Random,
    *options: str,
    data: Path | None = None,
    right: Callable[[Outcome], str | None] = lambda _: None,
) -> Case:
    out = place.out / "run"
    verify = random.choice(([], [], ["--verify"], ["--no-verify"]))
    common = [
        "--data",
        str(data or place.base / "data"),
        "--model",
        str(model),
        "--out",
        str(out),
        "--max-new-tokens",
        "3",
    ]
    return Case(
        ["orin-run", "eval", task, *common, *verify, *options],
        writes=(out, place.state),
        right=lambda outcome: right(outcome) or whole_run(out, outcome),
        fails=f"{LEFT_OUT}|is damaged: the data of tensor",  # where the run was faster than the proof beside it
    )


def planned(outcome: Outcome) -> str | None:
    """What is wrong with ``plan --json``."""
    try:
        plan = json.loads(outcome.out, parse_constant=lambda name: name + 1)
    except (ValueError, TypeError) as error:
        return f"no strict JSON ({error})"
    return None if plan["requests"] > 0 and plan["total"] > 0 else "a plan of nothing"


def whole_run(out: Path, outcome: Outcome) -> str | None:
    """What is wrong with a run that has ended: a strict line for each item, and accuracies that are theirs."""
    if outcome.status == 1 and not out.exists():
        return None
    missing = [
        name for name in ("run.json", "predictions.jsonl", "report.json", "report.html") if not (out / name).exists()
    ]
    if missing:
        return f"no {', '.join(missing)}" if outcome.status == 0 else None
    lines = [
        json.loads(line, parse_constant=float.fromhex)
        for line in (out / "predictions.jsonl").read_text("utf-8").splitlines()
    ]
    last = {(line["task"], line["id"]): line for line in lines}
    for task, section in json.loads((out / "report.json").read_text("utf-8"))["tasks"].items():
        own = [line for (name, _), line in last.items() if name == task and line["skipped"] is None]
        score = sum(next(iter(line["scores"].values())) for line in own) / max(1, len(own))
        if len(own) != section["items"] or abs(score - section["accuracy"]) > 1e-9:
            said = f"{section['items']} of {section['accuracy']}"
            return f"{task}: {len(own)} predictions of {score}, the report says {said}"
    return None


def _same_keys(model: Path, base: Path) -> str | None:
    """Which key or tensor of an accepted file is not that of the sound one."""
    ours, theirs = GGUFReader(model), GGUFReader(base)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF.") and (
            name not in ours.fields or ours.fields[name].contents() != field.contents()
        ):
            return f"the key {name} is another, and its manifest was there"
    tables = [[(t.name, t.tensor_type, list(t.shape)) for t in file.tensors] for file in (ours, theirs)]
    return None if tables[0] == tables[1] else "the tensor table is another, and its manifest was there"


def header_bytes(random: Random, place: Place) -> Case:
    """Bytes of the header: with the manifest beside it, none that counts may be another."""
    model = copied(place, random)
    content = model.read_bytes()
    data = min(int(t.data_offset) for t in GGUFReader(model).tensors)
    other = (place.base / "phi3.gguf").read_bytes()
    spoiled = damaged(content[:data], other[:data], random)
    model.write_bytes(spoiled + content[data:])
    manifest = (place.inputs / "model.gguf.manifest.json").exists()
    base = next(
        place.base / f"{name}.gguf"
        for name in ("llama", "phi3")
        if (place.base / f"{name}.gguf").read_bytes() == content
    )
    return opened(place, model, random, lambda _: _same_keys(model, base) if manifest else None)


def whole_bytes(random: Random, place: Place) -> Case:
    """Bytes of the whole file."""
    model = copied(place, random)
    model.write_bytes(damaged(model.read_bytes(), (place.base / "phi3.gguf").read_bytes(), random))
    return opened(place, model, random)


VALUES: tuple[Typed | Raw, ...] = (
    *(Typed(UINT32, n) for n in (0, 1, 2, 3, 255, 4097, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)),
    *(Typed(INT32, n) for n in (-1, 0, 7)), *(Typed(UINT64, n) for n in (0, 1, 1 << 40, (1 << 64) - 1)),
    Typed(INT64, -5),
    *(Typed(FLOAT32, x) for x in (0.0, 1.0, -1.0, 3.4e38, float("nan"), float("inf"))), Typed(BOOL, True),
    *(Typed(STRING, text) for text in ("", "x", "llama", "\x1b[31m", "{", "{}", "[" * 3000, "a" * 100_000, "\u202e")),
    *(Typed(ARRAY, values, UINT32) for values in ([], [0], [1, 2, 3], [1 << 31] * 3, [7] * 5000)),
    Typed(ARRAY, [-1, 9], INT32), Typed(ARRAY, ["a", "", "b"], STRING), Typed(ARRAY, [1.5], FLOAT32),
    Typed(ARRAY, [True], BOOL),
    Raw(12, b"\0" * 8), Raw(13, b"\0" * 8), Raw(255, b"\0" * 8), Raw(7, b"\x02"), Raw(8, b"\xff" * 8),
    Raw(8, b"\x02\0\0\0\0\0\0\0\xff\xfe"),
    Raw(9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 4, 1) + b"\0" * 4), Raw(9, struct.pack("<IQ", 4, 1 << 40)),
    Raw(9, struct.pack("<IQ", 8, 1 << 60)), Raw(9, struct.pack("<IQ", 0, 200_000) + b"\0" * 200_000),
)  # fmt: skip
NAMES = (
    *KEYS, "general.alignment", "general.quantization_version", "general.file_type", "llama.vocab_size",
    "llama.attention.key_length",
    "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "llama.rope.dimension_count",
    "orin.manifest.sha256",
    "orin.checkpoint.sha256", "orin.dropped_sliding_window", "llama.attention.sliding_window", "llama.expert_count",
    "split.count",
    "llama.rope.scaling.type", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.merges", "tokenizer.ggml.pre",
    "tokenizer.ggml.model",
    "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id", "general.name", "x" * 70_000, "", "\x1b[2J",
    "general.type",
)  # fmt: skip


def keys(random: Random, place: Place) -> Case:
    """Other values, types and sets of keys in a small file written byte by byte."""
    changed: dict[str, Typed | Raw | None] = {}
    for _ in range(random.choice((1, 1, 2, 4))):
        changed[random.choice(NAMES)] = (
            random.choice((None, *VALUES)) if random.random() < 0.2 else random.choice(VALUES)
        )
    twice = random.choice(tuple(KEYS)) if random.random() < 0.05 else None
    twice = None if twice and changed.get(twice, "") is None else twice
    counts = (
        random.choice(((2, 16), (2, 17), (0, 16), (1 << 40, 16), (2, 1 << 40), (1, 0)))
        if random.random() < 0.1
        else None
    )
    model = place.inputs / "model.gguf"
    model.write_bytes(gguf(changed, version=random.choice((3, 3, 3, 2, 1, 4, 0, 1 << 16)), counts=counts, twice=twice))
    return opened(place, model, random)


def tables(random: Random, place: Place) -> Case:
    """Odd tensor tables."""
    n = len(KEYS["tokenizer.ggml.tokens"].value)  # type: ignore[union-attr]
    shapes = (
        (4, n),
        (4, n),
        (n, 4),
        (4,),
        (),
        (0, n),
        (4, n, 1, 1),
        (4, n, 1, 1, 1),
        (1 << 40, 1 << 40),
        (1 << 63,),
        (4, 1 << 20),
    )
    kind = random.choice((0, 0, 0, 1, 2, 8, 30, 24, 39, 99, 1 << 31))
    offset = random.choice((0, 0, 1, 31, 32, 128, 1 << 20, (1 << 64) - 32))
    name = random.choice(
        ("token_embd.weight", "token_embd.weight", "output.weight", "x" * 64, "x" * 5000, "", "\x1b[1m", "a\0b")
    )
    rows = [
        Tensor(name, random.choice(shapes), kind, offset),
        Tensor("output_norm.weight", (4,), 0, random.choice((128, 64, 0, 256))),
    ]
    if random.random() < 0.3:
        rows.append(random.choice(rows))
    model = place.inputs / "model.gguf"
    model.write_bytes(gguf(tensors=rows, data=random.choice((0, 1, 4096, 100))))
    return opened(place, model, random)


def tokenizers(random: Random, place: Place) -> Case:
    """The Hugging Face tokenizer in a GGUF."""
    value = corpus.tokenizer_json()
    if random.random() < 0.4:
        part = random.choice(sorted(PARTS))
        value[part] = random.choice(PARTS[part])
        text = json.dumps(value).encode("utf-8", "surrogatepass")
    elif random.random() < 0.6:
        text = other_json(json.dumps(value).encode(), random)
    else:
        text = damaged(json.dumps(value, ensure_ascii=False).encode(), b"{}", random)
    return opened(place, with_text(place, "tokenizer.huggingface.json", text), random)


def with_text(place: Place, key: str, text: bytes) -> Path:
    """The Llama's GGUF without manifest and with another text under ``key``."""
    source = place.base / "llama.gguf"
    content, reader = source.read_bytes(), GGUFReader(source)
    field = reader.fields[key]
    at = int(field.offset) + sum(int(part.nbytes) for part in field.parts[:3])  # behind name's length, name and type
    length = int(struct.unpack_from("<Q", content, at)[0])
    data = min(int(t.data_offset) for t in reader.tensors)
    head = content[:at] + struct.pack("<Q", len(text)) + text + content[at + 8 + length : _unpadded(reader)]
    target = place.inputs / "model.gguf"
    target.write_bytes(head + bytes(-len(head) % 32) + content[data:])
    return target


def _unpadded(reader: Any) -> int:
    """Where the tensor table ends."""
    last = reader.tensors[-1].field
    return int(last.offset) + sum(int(part.nbytes) for part in last.parts)


def file_kind(random: Random, place: Place) -> Case:
    """Something else in the place of the model."""
    model = copied(place, random)
    kinds.put(model, random)
    return opened(place, model, random)


def default_model(random: Random, place: Place) -> Case:
    """The model that no option names."""
    state = place.state / "last-model"
    state.parent.mkdir()
    kind = random.randrange(4)
    environment = {}
    if kind == 0:
        kinds.put(state, random)
    elif kind == 1:
        state.write_bytes(
            random.choice(
                (
                    texts.text(random).encode("utf-8", "replace"),
                    random.randbytes(60),
                    b"\xff\n",
                    b"a\0b\n",
                    b"\n",
                    b"/\n",
                )
            )
        )
    elif kind == 2:
        state.write_text(str(place.base / "llama.gguf") + random.choice(("\n", "\n\n", "", " ", "\nx\n", "\r\n")))
    else:
        environment = {"ORIN_MODEL": re.sub("[\0\ud800-\udfff]", "", texts.text(random))[:3000]}
    argv = ["orin-run", "plan", EXAMPLE, "--data", str(place.base / "data"), "--device", "orin-32gb", "--json"]
    return Case(argv, right=planned, fails='"fits": false', environment=environment)
