"""The arguments that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from eval import code_run
from eval.data.digests import changed_files
from eval.data.question_file import is_question_file
from eval.evaluate import Prepared
from eval.tasks.base import LoadOptions, Scoring, Task, Year
from eval.tasks.code import CodeTask
from eval.tasks.own import OwnChoices, OwnTexts, own_task
from eval.tasks.registry import GROUPS, TASKS, get_task, names_in
from eval.truncation import TooLong
from orin_runner.console import Notes
from orin_runner.errors import UserError
from orin_runner.machine.devices import KNOWN, parse_size
from orin_runner.machine.memory_formula import MIB


def complete_task(incomplete: str) -> list[str]:
    """For a shell: tasks and groups whose names go on from what is typed, of several between commas the last one."""
    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*TASKS, *GROUPS) if name.startswith(begun)]


def completed(words: Sequence[str]) -> Callable[[str], list[str]]:
    """For a shell: those of ``words`` that go on from what is typed."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


SCORINGS: dict[str, Scoring] = {"letters": "letters", "text": "text"}
PROTOCOLS: dict[str, Year] = {"2023": "2023"}
TASKS_HELP = "Such as mmlu, or a group such as phi3 (orin-run tasks lists all), or a file of questions."
Tasks = Annotated[list[str], typer.Argument(metavar="TASK...", help=TASKS_HELP, autocompletion=complete_task)]
Template = Annotated[
    Path | None,
    typer.Option("--template", metavar="FILE", help="Prompt of your own questions: {question} stands for that column."),
]
FewShot = Annotated[
    Path | None,
    typer.Option("--fewshot", metavar="FILE", help="Worked examples before your own questions, in their form."),
]
ModelFile = Annotated[Path | None, typer.Option(help="GGUF file (default: $ORIN_MODEL, else the last make convert).")]
Data = Annotated[
    Path | None,
    typer.Option(
        show_default=False,  # its value would be this machine's
        help="Folder with the published data files (default: $ORIN_DATA); without it tasks load from the hub.",
    ),
]
MAX_COUNT = 10**9
"""Of questions, tokens and worked examples that may be asked for; ``run.json`` and llama.cpp count up to some more."""
Limit = Annotated[
    str | None,
    typer.Option(
        metavar="N|SHARE", help="Ask only this many questions of a task, or a share of them such as 0.1, evenly spread."
    ),
]
First = Annotated[
    str | None,
    typer.Option(
        metavar="N|SHARE",
        help="Ask only the first so many questions of each subject or sub-task, as --limit of lm-evaluation-harness.",
    ),
]
Shots = Annotated[
    str | None,
    typer.Option(metavar="N|phi3", help="Worked examples before each question; phi3: as many as Phi-3's report has."),
]
ScoringMode = Annotated[
    str | None,
    typer.Option(
        "--scoring",
        metavar="letters|text",
        help="Score answer letters or whole choices (default: task's).",
        autocompletion=completed([*SCORINGS]),
    ),
]
Chat = Annotated[bool, typer.Option("--chat", help="Put each prompt into the model's chat template.")]
ChallengeProtocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        metavar="2023",
        help="Ask as that year's challenge did: hellaswag, without BOS token.",
        autocompletion=completed([*PROTOCOLS]),
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=MAX_COUNT, help="Bound on each greedy text, where it is lower than the task's own."
    ),
]
TooLongRule = Annotated[
    TooLong,
    typer.Option(
        "--too-long",
        help="Prompts longer than the model's context lose their beginning, as in lm-evaluation-harness; or are "
        "skipped, in no accuracy; or refused before anything runs.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TOML file with options; those of the command line come first. Each run writes such a file, run.toml.",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder for the run (default: runs/TASK-TIME).")]
Device = Annotated[
    str,
    typer.Option(
        help=f"auto (this machine), {', '.join(KNOWN)}, or an amount of memory such as 29000M or 28G.",
        autocompletion=completed(["auto", *KNOWN]),
    ),
]
Gpus = Annotated[
    str,
    typer.Option(
        metavar="auto|N|ID,ID", help="GPUs to use: all that CUDA shows, so many of them, or those of these ids (0,2)."
    ),
]
ReplicaCount = Annotated[
    str,
    typer.Option(
        "--replicas",
        metavar="auto|N",
        help="Copies of the model that share the run; auto: as many as the GPUs hold, on CPUs one. 1 on several GPUs "
        "divides the model over them.",
    ),
]
NoTuned = Annotated[
    bool, typer.Option("--no-tuned", help="Plan without the settings that orin-run bench has measured to be fastest.")
]
RayCluster = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|HOST:PORT",
        help="Share the run over the nodes of this Ray cluster; auto: of the one that this machine belongs to. --gpus "
        "and --replicas are then those of each node (needs the ray extra).",
    ),
]
LogItems = Annotated[
    bool, typer.Option("--log-items", help="Write items.jsonl.gz: each item's prompt, choices and answer in full.")
]
RunCode = Annotated[
    bool,
    typer.Option(
        "--run-code",
        help="Run the code that the model writes (humaneval, mbpp): a program each, without network, files to write "
        "and other processes, for 3 s of a CPU at most.",
    ),
]
AllowQuantized = Annotated[
    bool,
    typer.Option("--allow-quantized", help="Run a quantized GGUF, for comparison; all that it leaves is marked lossy."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


OMIT = "omit it for what each task has of its own"


def load_options(
    data: Path | None,
    limit: str | None,
    shots: str | None,
    scoring: str | None,
    *,
    chat: bool,
    protocol: str | None = None,
    first: str | None = None,
) -> LoadOptions:
    """How tasks are loaded.

    Raises:
        UserError: an option is something else than its help says, or ``limit`` and ``first`` are both given.
    """
    if limit is not None and first is not None:
        raise UserError("--limit and --first both say which questions", "leave one of them out")
    if shots is not None and shots != "phi3" and not (shots.isascii() and shots.isdecimal()):
        raise UserError(f"--shots is a number or phi3, not {shots!r}", OMIT)
    if scoring is not None and scoring not in SCORINGS:
        raise UserError(f"--scoring is letters or text, not {scoring!r}", OMIT)
    if protocol is not None and protocol not in PROTOCOLS:
        raise UserError(f"--protocol is {' or '.join(PROTOCOLS)}, not {protocol!r}", OMIT)
    if shots is not None and shots != "phi3" and len(shots.lstrip("0")) >= len(str(MAX_COUNT)):
        raise UserError(f"--shots is less than {MAX_COUNT:,}, not {shots}", OMIT)
    number: int | Literal["phi3"] | None = None if shots is None else "phi3" if shots == "phi3" else int(shots)
    return LoadOptions(
        data,
        _amount("--limit", limit),
        _amount("--first", first),
        number,
        None if scoring is None else SCORINGS[scoring],
        chat,
        None if protocol is None else PROTOCOLS[protocol],
    )


def _amount(option: str, text: str | None) -> float | None:
    """A number of questions, or a share of them between 0 and 1.

    Raises:
        UserError: it is neither.
    """
    if text is None:
        return None
    with suppress(ValueError):
        number = float(text)
        if 0 < number < 1:
            return number
        if 1 <= number <= MAX_COUNT and text.isascii() and text.isdecimal():
            return int(text)
    reason = f"{option} is a number of questions from 1 to {MAX_COUNT:,}, or a share of them such as 0.1, not {text!r}"
    raise UserError(reason, "omit it to ask all")


def chosen_tasks(
    notes: Notes, names: Sequence[str], data: Path | None, template: Path | None = None, fewshot: Path | None = None
) -> list[Task]:
    """The tasks of these names, each once; files under ``data`` that are not the published ones are reported.

    Args:
        names: of tasks, of groups of them, and of files of questions.
        template, fewshot: of the latter.

    Raises:
        UserError: there is no such task, a file is not usable, or two are called the same.
    """
    tasks: list[Task] = []
    for name in names_in(names):
        own = is_question_file(name)
        tasks.append(own_task(Path(name), template, fewshot) if own else get_task(name))
    own_ones = [task.name for task in tasks if isinstance(task, (OwnChoices, OwnTexts))]
    if len({*own_ones}) < len(own_ones):
        raise UserError("two files of questions have the same name", "rename one: the results go by that name")
    for option, file in (("--template", template), ("--fewshot", fewshot)):
        if file is not None and not own_ones:
            raise UserError(f"{option} is for questions of your own", "name their file where a task is")
    for task in tasks:
        for line in changed_files(task.name, data, getattr(task, "folders", ())):
            notes.warn(line)
    return tasks


def check_code(tasks: Sequence[Task], *, run_code: bool) -> None:
    """Make sure that code which a model writes is run only where it is wanted, and shut off from the machine.

    Raises:
        UserError: it is not wanted, or cannot be shut off here.
    """
    names = [task.name for task in tasks if isinstance(task, CodeTask)]
    if names and not run_code:
        reason = f"{' and '.join(names)} run{'' if len(names) > 1 else 's'} the code that the model writes"
        raise UserError(reason, "--run-code allows it, without network, files to write and other processes")
    if names:
        code_run.require()


def asked(options: LoadOptions) -> dict[str, Any]:
    """What ``run.json`` says of the questions."""
    return {name: getattr(options, name) for name in ("limit", "first", "shots", "scoring", "chat", "protocol")}


def own_questions(tasks: Sequence[Task]) -> dict[str, dict[str, str | None]]:
    """By task, what ``run.json`` says of the files of the user's own questions."""
    return {task.name: task.file.identity for task in tasks if isinstance(task, (OwnChoices, OwnTexts))}


def splits(prepared: Sequence[Prepared]) -> dict[str, str | None]:
    """By task, what ``run.json`` says of the split that was read."""
    return {item.task.name: item.split for item in prepared}


def device_bytes(device: str) -> int | None:
    """Bytes named by --device; None for auto.

    Raises:
        UserError: neither a known device nor a size, or a size without a unit or of less than 1 MiB.
    """
    if device == "auto":
        return None
    if device in KNOWN:
        return KNOWN[device].available
    size = parse_size(device)
    if size is None and parse_size(f"{device}B") is not None:
        raise UserError(f"--device {device} has no unit", f"add one such as M, G, MiB or GB: --device {device}M")
    if size is None:
        known = ", ".join(KNOWN)
        raise UserError(f"--device {device} is neither a device nor an amount of memory", f"auto, {known}, or 29000M")
    if size < MIB:
        raise UserError(f"--device {device} is less than 1 MiB", "an amount of memory such as 29000M or 28G")
    return size


def cache_bytes(size: str) -> int:
    """Bytes named by --prompt-cache-size; a number without a unit is of gigabytes.

    Raises:
        UserError: it is no size.
    """
    found = parse_size(size)
    found = parse_size(f"{size}GB") if found is None else found
    if found is None:
        raise UserError(f"--prompt-cache-size {size} is no size of a folder", "such as 20G or 512M")
    return found
