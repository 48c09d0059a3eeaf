"""The command line's arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from eval.tasks.base import LoadOptions, Scoring
from orin_runner.errors import UserError
from orin_runner.machine.devices import KNOWN, parse_size

Tasks = Annotated[list[str], typer.Argument(metavar="TASK...", help="Such as mmlu; orin-run tasks lists all.")]
HarnessTasks = Annotated[
    str, typer.Option("--tasks", help="Tasks or groups of lm-evaluation-harness, or YAML files, separated by commas.")
]
ModelFile = Annotated[Path | None, typer.Option(help="GGUF file (default: $ORIN_MODEL, else the last make convert).")]
Data = Annotated[
    Path | None, typer.Option(help="Folder with the published data files; without it tasks load from the hub.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask only this many questions, evenly spread.")]
Shots = Annotated[
    str | None,
    typer.Option(metavar="N|phi3", help="Worked examples before each question; phi3: as many as Phi-3's report has."),
]
ScoringMode = Annotated[
    str | None,
    typer.Option("--scoring", metavar="letters|text", help="Score answer letters or whole choices (default: task's)."),
]
Chat = Annotated[bool, typer.Option("--chat", help="Put each prompt into the model's chat template.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the run (default: runs/TASK-TIME).")]
Device = Annotated[str, typer.Option(help="auto (this machine), orin-32gb, or an amount of memory such as 29000MiB.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out that was broken off.")]
Draft = Annotated[bool, typer.Option("--draft/--no-draft", help="Verify a question's own choices instead of decoding.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Bound on each greedy text, where it is lower than the task's own.")
]
CacheFolder = Annotated[
    Path | None, typer.Option(help="Keep states of shared prefixes here between runs (off by default).")
]
CacheSize = Annotated[float, typer.Option(min=0.0, help="Bound of that folder; the oldest go first.")]
MeasuredLimit = Annotated[
    bool,
    typer.Option(
        "--measure-limit",
        help="After the run, measure plain prompt processing on the same context (seconds, or four full batches if "
        "that is longer), and report what share of that rate was reached.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


SCORINGS: dict[str, Scoring] = {"letters": "letters", "text": "text"}


def load_options(
    data: Path | None, limit: int | None, shots: str | None, scoring: str | None, *, chat: bool
) -> LoadOptions:
    """How tasks are loaded.

    Raises:
        UserError: ``shots`` or ``scoring`` is something else than its help says.
    """
    if shots is not None and shots != "phi3" and not (shots.isascii() and shots.isdecimal()):
        raise UserError(f"--shots is a number or phi3, not {shots!r}")
    if scoring is not None and scoring not in SCORINGS:
        raise UserError(f"--scoring is letters or text, not {scoring!r}")
    number: int | Literal["phi3"] | None = None if shots is None else "phi3" if shots == "phi3" else int(shots)
    return LoadOptions(data, limit, number, None if scoring is None else SCORINGS[scoring], chat)


def asked(options: LoadOptions) -> dict[str, Any]:
    """What ``run.json`` says of the questions."""
    return {"limit": options.limit, "shots": options.shots, "scoring": options.scoring, "chat": options.chat}


def device_bytes(device: str) -> int | None:
    """Bytes named by --device; None for auto.

    Raises:
        UserError: neither a known device nor a size.
    """
    if device == "auto":
        return None
    if device in KNOWN:
        return KNOWN[device].available
    size = parse_size(device)
    if size is None:
        known = ", ".join(KNOWN)
        raise UserError(f"--device {device} is neither a device nor an amount of memory", f"auto, {known}, or 29000MiB")
    return size
