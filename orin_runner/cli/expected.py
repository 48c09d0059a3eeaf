"""How long tasks will take: by what was measured of this model on this device, else by the device's limits.

Of an Orin, which is not here, always by its limits: a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from eval.evaluate import Prepared
from eval.sent_tokens import AskedTokens
from orin_runner.errors import UserError
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.machine.nvml import Nvml
from orin_runner.machine.roofline import Limits, TokenCost, gpu_limits
from orin_runner.machine.speeds import SHORTEST_S, Speed, device_name, keep_speeds, read_speeds, speed_of
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import GenerateRequest, Request

TEXT_SHARE = 0.25
"""Of the tokens that a text may have, where nothing is known of how long a task's texts are: assumed."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How long tasks should take on one device.

    Attributes:
        name: of the device, or of a power mode.
        projected: it is not here.
        basis: what that rests on, one line for each thing.
        seconds: of inference, by task; without those of which nothing is known.
        steps: tokens that a text takes in decode steps, by task.
        measured: the tasks whose seconds follow from an earlier run's.
    """

    name: str
    projected: bool
    basis: tuple[str, ...]
    seconds: dict[str, float]
    steps: dict[str, float]
    measured: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """For ``plan --json``."""
        return {"basis": list(self.basis), "tasks": self.seconds, "steps_per_text": self.steps}


def asked_tokens(prepared: Sequence[Prepared]) -> dict[str, AskedTokens]:
    """What each task asks for."""
    return {item.task.name: AskedTokens.of([question.request for question in item.questions]) for item in prepared}


def generates(requests: Sequence[Request]) -> bool:
    """Whether a text is among what is asked for."""
    return any(isinstance(request, GenerateRequest) for request in requests)


def expected_here(
    asked: Mapping[str, AskedTokens], file: GGUFFile, plan: MemoryPlan, replicas: int, limits: Limits | None
) -> Expected:
    """What to expect of ``replicas`` workers on this machine.

    Args:
        asked: by task.
        file: the model.
        plan: by which each of them runs.
        replicas: how many there are.
        limits: of all their devices, for tasks that no run has measured; None where they are not known.
    """
    known = _known(file, plan, replicas) if asked else []
    by_limits = None if limits is None else _by_limits(limits, file, plan.settings.n_seq, replicas)
    basis: dict[str, None] = {}
    measured_tasks = []
    seconds: dict[str, float] = {}
    steps: dict[str, float] = {}
    for task, tokens in asked.items():
        measured = speed_of(known, task, texts=bool(tokens.texts))
        of_text, said = _steps(task, tokens, measured)
        if measured is not None:
            measured_tasks.append(task)
            seconds[task] = (tokens.unique + tokens.texts * of_text) / measured.tokens_per_s
            rate, day = measured.tokens_per_s, measured.at[:10]
            basis[f"{rate:,.0f} tokens/s, measured of {measured.task} on {day} ({measured.run})"] = None
        elif limits is not None and by_limits is not None:
            seconds[task] = by_limits(tokens, of_text)
            basis[limits.basis] = None
        else:
            basis[f"nothing is known of {plan.device.name}: a run of {SHORTEST_S:g} s or more measures it"] = None
        if tokens.texts:
            steps[task] = of_text
            basis[said] = None
    return Expected(plan.device.name.split(" (")[0], False, tuple(basis), seconds, steps, frozenset(measured_tasks))


def limits_here(plan: MemoryPlan, replicas: int) -> Limits | None:
    """Those of one of this machine's GPUs times the replicas, or of its CPU; None where NVML does not know the GPU."""
    if not plan.device.cuda:
        return Limits.of_cpu(cpu_threads())
    nvml = Nvml()
    try:
        gpus = nvml.visible()
        found = gpu_limits(gpus[0]) if gpus else None
    finally:
        nvml.close()
    return None if found is None else found.times(replicas)


def expected_on(limits: Limits, asked: Mapping[str, AskedTokens], file: GGUFFile, n_seq: int) -> Expected:
    """What to project for a device that is not here, with ``n_seq`` sequences in its cache."""
    by_limits = _by_limits(limits, file, n_seq)
    steps = {task: _steps(task, tokens, None)[0] for task, tokens in asked.items()}
    seconds = {task: by_limits(tokens, steps[task]) for task, tokens in asked.items()}
    of_texts = {task: steps[task] for task, tokens in asked.items() if tokens.texts}
    return Expected(limits.name, True, (limits.basis,), seconds, of_texts)


def keep_measured(
    sections: Mapping[str, Any], file: GGUFFile, plan: MemoryPlan, replicas: int, out: Path
) -> str | None:
    """Remember how fast the tasks of a run were; a line where that was not possible.

    Args:
        sections: the tasks' of ``report.json``.
        file: the model.
        plan: what it ran by, on each of ``replicas`` workers.
        replicas: how many there were.
        out: the run's folder.
    """
    model, device, library = _identity(file, plan, replicas)
    at = datetime.now().astimezone().isoformat(timespec="seconds")
    found = []
    for task, section in sections.items():
        seconds, greedy = section["clocks"]["inference"], section.get("greedy")
        if seconds < SHORTEST_S or section["tokens"].get("restored"):
            continue
        rate = section["tokens"]["computed"] / seconds
        steps = None if greedy is None else section["device"]["step_tokens"] / greedy["texts"]
        found.append(Speed(model, device, library, task, rate, steps, str(out), at))
    try:
        keep_speeds(found)
    except (UserError, OSError) as error:
        return f"what this run has measured is not remembered: {error}"
    return None


def _identity(file: GGUFFile, plan: MemoryPlan, replicas: int) -> tuple[str, str, str]:
    device = device_name(plan.device.name, cuda=plan.device.cuda, replicas=replicas)
    return file.digest(), device, llama_library.version()


def _known(file: GGUFFile, plan: MemoryPlan, replicas: int) -> list[Speed]:
    identity = _identity(file, plan, replicas)
    return [speed for speed in read_speeds() if (speed.model, speed.device, speed.library) == identity]


def _steps(task: str, tokens: AskedTokens, measured: Speed | None) -> tuple[float, str]:
    """Tokens of decode steps to expect of a text, and where that comes from."""
    if tokens.texts and measured is not None and measured.task == task and measured.steps is not None:
        steps = min(measured.steps, tokens.most_tokens / tokens.texts)
        return steps, f"{task}: {steps:.1f} tokens a text, as in {measured.run}"
    if not tokens.texts:
        return 0.0, ""
    steps = (TEXT_SHARE * tokens.open_tokens + tokens.choice_tokens) / tokens.texts
    said = f"a text takes {TEXT_SHARE:.0%} of the tokens it may have" if tokens.open_tokens else "a text is a choice"
    return steps, f"{task}: assumed that {said}, {steps:.0f}"


def _by_limits(limits: Limits, file: GGUFFile, n_seq: int, replicas: int = 1) -> Callable[[AskedTokens, float], float]:
    """What gives the seconds of a task and the decode steps of its texts.

    ``limits`` are of all replicas together, of which each has its part of the texts side by side.
    """
    cost = TokenCost.of(file)

    def seconds(tokens: AskedTokens, steps: float) -> float:
        token_s = cost.token_s(limits, tokens.context)
        side_by_side = max(1.0, min(tokens.texts / replicas, n_seq))
        step_s = max(cost.step_s(limits) / side_by_side, token_s)
        return tokens.unique * token_s + tokens.texts * steps * step_s

    return seconds
