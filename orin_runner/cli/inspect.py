"""``orin-run inspect``: what a GGUF is, and what ``orin-run eval`` would refuse of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from orin_runner.cli.launch import QUANTIZED, plan_here
from orin_runner.cli.options import Json
from orin_runner.console import GIB, Notes, print_table, say, say_json
from orin_runner.errors import UserError
from orin_runner.machine.memory_formula import MIB
from orin_runner.model import gguf_keys
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import FIRST_THREADS, DataCheck, Evidence, Proof, Verdict, examine
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.table import BOUND
from orin_runner.workers.messages import Job
from orin_runner.workers.vocabulary import own_tokenizer

GENERAL = "general."
"""What the keys begin with that say where a model comes from."""
FILE_TYPE = "general.file_type"
LONGEST = 200
"""Characters of such a key's text that are shown."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was tried on a file.

    Attributes:
        verdict: how far it is proven.
        tokenizer: what it would be run with, None where there is none.
        refused: why ``orin-run eval`` would refuse it, a line each.
    """

    verdict: Verdict
    tokenizer: Tokenizer | None
    refused: tuple[str, ...]


def inspect_command(
    path: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="GGUF file, of this tool or another's.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare all data with the manifest.")] = False,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Show what a GGUF is: layout, types, tokenizer, window, stop tokens, origin, proof, and what eval would refuse."""
    file = GGUFFile.open(path)
    with notes.progress(f"trying {path.name}", None):
        found = try_out(file, notes, verify=verify)
    shown = description(file, found)
    if as_json:
        say_json(shown)
    else:
        print_description(shown)


def try_out(file: GGUFFile, notes: Notes, *, verify: bool) -> Findings:
    """Everything that ``orin-run eval`` does with a file before it loads the weights; errors are kept, not raised."""
    refused: list[str] = []
    try:
        file.need_full_precision(QUANTIZED)
    except UserError as error:
        refused.append(str(error))
    try:
        verdict = _proof(examine(file), verify=verify)
    except UserError as error:
        refused.append(str(error))
        verdict = Verdict(Proof.REFUTED, error.message)
    if verify and verdict.proof is Proof.REFUTED and not refused:
        refused.append(verdict.line)
    tokenizer = None
    try:
        tokenizer = own_tokenizer(file)
    except UserError as error:
        refused.append(str(error))
    try:
        plan, fitting, _ = plan_here(notes, file, Job.of(file, []))
        if not fitting:
            refused.append(f"it does not fit into this machine's memory: {plan.advice}")
    except UserError as error:
        refused.append(str(error))
    return Findings(verdict, tokenizer, tuple(refused))


def _proof(evidence: Evidence, *, verify: bool) -> Verdict:
    with DataCheck(evidence) as check:
        if verify:
            check.start(FIRST_THREADS)
        return check.verdict(wait=True)


def description(file: GGUFFile, found: Findings) -> dict[str, Any]:
    """What ``inspect --json`` prints."""
    keys = file.keys
    tokenizer = None if found.tokenizer is None else found.tokenizer.vocabulary
    return {
        "file": str(file.path),
        "bytes": file.path.stat().st_size,
        "sha256": file.digest(),
        "architecture": file.architecture,
        "types": {name: {"tensors": n, "bytes": size} for name, (n, size) in file.tensor_types.items()},
        "quantized": list(file.quantized),
        "context_length": file.n_ctx_train,
        "original_context": file.original_context,
        "window": file.window or file.dropped_window,
        "window_honoured": file.dropped_window is None,
        "tokenizer": None if tokenizer is None else tokenizer.kind,
        "tokenizer_sha256": None if tokenizer is None else tokenizer.sha256,
        "vocabulary": {"model": keys.vocabulary_kind, "pre": keys.pre_tokenizer, "tokens": file.n_vocab},
        "special_tokens": {name: _token(file, token) for name, token in keys.special_tokens.items()},
        "stop_tokens": [{**_token(file, token), "by": why} for token, why in file.stop_tokens.items()],
        "chat_template": keys.chat_template is not None,
        "origin": {**_origin(file), "checkpoint_sha256": keys.checkpoint_sha256, "altered_values": file.altered_values},
        **found.verdict.keys,
        "refused": list(found.refused),
    }


def _token(file: GGUFFile, token: int) -> dict[str, Any]:
    return {"id": token, "text": None if file.keys.tokens is None else file.keys.tokens[token]}


def _origin(file: GGUFFile) -> dict[str, Any]:
    """What the file says of where it comes from; the file type by its name."""
    found = {
        name.removeprefix(GENERAL): value if isinstance(value, int) else value[:LONGEST]
        for name, value in file.metadata.items()
        if name.startswith(GENERAL) and name != gguf_keys.ARCHITECTURE and isinstance(value, str | int)
    }
    kind = file.metadata.get(FILE_TYPE)
    if type(kind) is int:
        from gguf import LlamaFileType  # noqa: PLC0415 - takes a third of a second

        names = {member.value: member.name for member in LlamaFileType}
        found[FILE_TYPE.removeprefix(GENERAL)] = names.get(kind, kind)
    return found


def print_description(shown: dict[str, Any]) -> None:
    """A file's description as tables, and what eval would refuse."""
    rows = [
        (name, f"{kind['tensors']:,}", f"{kind['bytes'] / MIB:,.1f}")
        for name, kind in sorted(shown["types"].items(), key=lambda item: -item[1]["bytes"])
    ]
    say(f"{shown['file']}, {shown['bytes'] / GIB:.2f} GiB")
    print_table("", ("type", "tensors", "MiB"), rows)
    vocabulary = shown["vocabulary"]
    kind = ", ".join(filter(None, (vocabulary["model"], vocabulary["pre"])))
    tokenizer = {
        "huggingface": "the checkpoint's own (Hugging Face), in the file",
        "llama.cpp": "llama.cpp's own vocabulary; the file carries no Hugging Face tokenizer",
        None: "none that can be used",
    }[shown["tokenizer"]]
    window = "none" if shown["window"] is None else f"{shown['window']:,} tokens"
    if not shown["window_honoured"]:
        window += f", dropped: llama.cpp's {shown['architecture']} graph does not honour it"
    stops = ", ".join(f"{token['id']} {token['text']!r} ({token['by']})" for token in shown["stop_tokens"])
    origin = {name: value for name, value in shown["origin"].items() if value is not None}
    said = [
        ("architecture", shown["architecture"]),
        ("quantized", ", ".join(shown["quantized"]) or "no"),
        ("context", f"{shown['context_length']:,} tokens"),
    ]
    if shown["original_context"] is not None:
        said.append(("long-rope", f"long factors beyond {shown['original_context']:,} tokens"))
    special = (f"{name} {token['id']} {token['text']!r}" for name, token in shown["special_tokens"].items())
    said += [
        ("sliding window", window),
        ("tokenizer", f"{tokenizer} ({kind or 'of no kind'}, {vocabulary['tokens']:,} tokens)"),
        ("special tokens", ", ".join(special) or "none"),
        ("stop tokens", stops or "none: texts run to their bound"),
        ("chat template", "yes" if shown["chat_template"] else "no"),
        ("origin", ", ".join(f"{name} {value}" for name, value in origin.items()) or "not said"),
        ("proof", Verdict(Proof(shown["proof"]), shown["proof_detail"]).line.removeprefix("proof: ")),
        *(("eval refuses", line) for line in shown["refused"] or ["nothing"]),
    ]
    print_table("", ("", ""), [(name.replace(" ", BOUND), value) for name, value in said], (0, 1))
