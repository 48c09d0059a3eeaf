"""``orin-run doctor``: what of this machine will make a run fail or slow, and the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from orin_runner.cli.launch import plan_here
from orin_runner.cli.options import Json, ModelFile
from orin_runner.console import Notes, say, say_json
from orin_runner.default_model import default_model
from orin_runner.errors import RunError, UserError
from orin_runner.machine.checks import diagnose
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.diagnosis import Check, Machine, Verdict
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, Needs
from orin_runner.machine.tree import Tree
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.look import seen_from
from orin_runner.workers.messages import Job

LONGEST = 4096
"""Tokens of the request that is planned for, where the model's context has as many: the longest prompt of MMLU with its
five worked examples has 3,478."""


def doctor_command(
    model: ModelFile = None,
    as_json: Json = False,
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Look at the files of a machine that were copied below this folder.")
    ] = Path("/"),
) -> None:
    """Say what of this machine will make a run fail or slow, and what mends it. Exit status 1 if something will."""
    tree = Tree(root)
    if not tree.path("/proc/meminfo").is_file():
        raise UserError(f"{root} holds no machine's files", "copy proc/meminfo, and what else there is, below it")
    file = _file(model)
    machine = _looked_at(Notes(), Machine.read(tree, file))
    checks = diagnose(machine)
    bad = [check for check in checks if check.is_bad]
    if as_json:
        lines = [
            {"name": each.name, "fact": each.fact, "verdict": each.verdict.value, "command": each.command}
            for each in checks
        ]
        say_json(
            {"root": str(root), "model": None if file is None else str(file.path), "checks": lines, "passed": not bad}
        )
    else:
        _print(checks)
    if bad:
        raise typer.Exit(1)


def _file(model: Path | None) -> GGUFFile | None:
    """The model named, or the default one where that is still there."""
    if model is not None:
        return GGUFFile.open(model)
    try:
        path, _ = default_model()
    except UserError:
        return None
    return GGUFFile.open(path) if path.exists() else None


def _looked_at(notes: Notes, machine: Machine) -> Machine:
    """The machine, with a plan for the model; where it is this one, also what llama.cpp finds.

    Both come from processes of their own, which may open the GPU.

    Raises:
        UserError: llama.cpp cannot load the model.
    """
    file = machine.file
    if not machine.tree.is_here:
        return machine if file is None else replace(machine, plan=_plan_for(machine, file))
    if file is not None:
        needs = _needs(file)
        job = replace(Job.of(file, []), needs=needs, lengths=[needs.longest])
        try:
            machine = replace(machine, plan=plan_here(notes, file, job)[0])
        except RunError as error:
            machine = replace(machine, plan_failure=str(error))
    if not machine.library.cuda:
        return machine
    return replace(machine, seen=seen_from(None if file is None else file.path))


def _needs(file: GGUFFile) -> Needs:
    """One request, of whose tokens the last one's row is wanted."""
    longest = min(file.n_ctx_train, LONGEST)
    return Needs(longest=longest, tokens=longest)


def _plan_for(machine: Machine, file: GGUFFile) -> MemoryPlan:
    """The plan for another machine, by the formula: nothing can be simulated for it here."""
    available, note = machine.memory.available()
    cuda, name = machine.board is not None, (machine.board and machine.board.model) or "CPU"
    device = DeviceMemory(name, available, unified=True, cuda=cuda, present=False, note=note)
    return MemoryPlanner(file, device, n_threads=1).plan(_needs(file))


def _print(checks: Sequence[Check]) -> None:
    """Two lines a check at most: verdict, name and fact; the command."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        say(f"{check.verdict.value:<8}{check.name:<{width}}  {check.fact}")
        if check.command is not None:
            say(f"{'':<{8 + width}}  -> {check.command}")
    counts = {verdict: sum(check.verdict is verdict for check in checks) for verdict in Verdict}
    said = ", ".join(f"{n} {verdict.value}" for verdict, n in counts.items() if n)
    say(f"{len(checks)} checks: {said}")
