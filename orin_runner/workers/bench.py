"""Measures a model on this machine in a process of its own: rates of shapes of decode calls, and the device's ceilings.

The parent sends a ``BenchJob``, then one question at a time: ``MeasureCeilings``, which needs no model, or ``Measure``,
with the first of which the model is loaded (``Loading``). Each is answered; ``Refused`` or ``LastWords`` may come
instead. Where the process dies of a shape, that is the answer, and another one goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from orin_runner.engine.bench import Contexts, Pace, Rate, letters, repeated, texts
from orin_runner.errors import RunError, UserError
from orin_runner.machine.devices import present_device
from orin_runner.machine.layer_split import split_of
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, Needs, budget_of, needs_of
from orin_runner.machine.shape import Shape
from orin_runner.machine.tuned import name_of
from orin_runner.model import llama, llama_log
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.gguf_header import TensorInfo
from orin_runner.model.llama_ceilings import Ggml, Work
from orin_runner.requests import Request
from orin_runner.workers.death import Death, LastWords
from orin_runner.workers.messages import Loading, Refused
from orin_runner.workers.process import Function, Process, WorkerProcess
from orin_runner.workers.worker import SWITCH_S, load, refusing

CLOSE_S = 10
"""Seconds that the process has to end by itself."""
LONGEST = 2048
"""Tokens of the longest request that contexts are made for: few-shot prompts have as many."""
COPY_BYTES = 256 * MIB
"""That a copy reads, where an eighth of the memory is no less: more than the caches of most devices hold."""
COLUMNS = {True: 2048, False: 512}
"""Of the matrix product, on a GPU and on a CPU: tokens that are computed at a time."""


@dataclass(frozen=True, slots=True)
class BenchJob:
    """The model, bytes to plan for (None for what is free), CPU threads, and how long each rate is measured."""

    model: Path
    device_bytes: int | None
    n_threads: int
    pace: Pace


class MeasureCeilings:
    """Asks for ``Ceilings``."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Asks for a rate.

    Attributes:
        work: prompts with choices, greedy texts, or decode steps alone.
        shape: of the decode calls; None for the one that a plan without measurements chooses.
        n: families of prompts (``engine.bench``); texts side by side of decode steps.
    """

    work: Literal["scores", "texts", "steps"]
    shape: Shape | None
    n: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a ``Measure``.

    Attributes:
        asked: the question.
        shape: of the decode calls; None where it is not known.
        rate: tokens a second; None where there is none.
        failure: why.
    """

    asked: Measure
    shape: Shape | None
    rate: Rate | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device reaches with nothing around it.

    Attributes:
        device: as ggml calls it.
        tensor, kind, n_in, n_out, columns: the matrix of the model whose shape and type the product has, and with how
            many columns.
        product: FLOP/s.
        copy: bytes/s, read and written.
        copy_bytes: that one copy reads.
        product_f32: FLOP/s of the same product with weights in F32; None on a GPU, or of a file without 16-bit weights.
    """

    device: str
    tensor: str
    kind: str
    n_in: int
    n_out: int
    columns: int
    product: Rate
    copy: Rate
    copy_bytes: int
    product_f32: Rate | None = None


@dataclass(frozen=True, slots=True)
class NoCeilings:
    """Instead of ``Ceilings``: why they cannot be measured."""

    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded.

    Attributes:
        device: what tells it from others (``tuned.name_of``).
        own_memory: it has a memory of its own.
    """

    device: str
    own_memory: bool


FromBench = Ceilings | NoCeilings | Ready | Measured | Loading | Refused | LastWords


def serve(connection: Connection, first: BenchJob) -> None:
    """Answer questions until the other end closes."""
    sys.setswitchinterval(SWITCH_S)
    llama_log.write_errors_to(sys.stderr.fileno())
    with refusing(connection), ExitStack() as stack:
        file = GGUFFile.open(first.model)
        device = present_device(first.device_bytes)
        split = split_of(file, device)
        simulate = partial(_simulated, first.model, split)
        planner = MemoryPlanner(file, device, first.n_threads, simulate=simulate)
        model = None
        while True:
            try:
                asked = connection.recv()
            except EOFError:
                return
            if isinstance(asked, MeasureCeilings):
                connection.send(_ceilings(planner, first.pace))
                continue
            requests = _requests(asked, file)
            plan = _plan(planner, _needs(requests, file.n_ctx_train), asked.shape)
            if not plan.fits:
                why = f"does not fit: {-(plan.remaining // MIB):,} MiB too much"
                connection.send(Measured(asked, plan.shape, None, why))
                continue
            if model is None:
                model, _ = load(connection, stack, file, device, file.rope_overrides(LONGEST), split)
                connection.send(Ready(name_of(device), own_memory=device.cuda and not device.unified))
            connection.send(_measured(asked, requests, plan, model, planner, first.pace))


def _simulated(path: Path, split: Any, settings: llama.ContextSettings) -> llama.Simulated:
    return llama.simulate(path, settings, split)


def _ceilings(planner: MemoryPlanner, pace: Pace) -> Ceilings | NoCeilings:
    """Both ceilings, before the model is loaded: they take memory."""
    tensor = largest_matrix(planner.file)
    n_in, n_out = tensor.shape[:2]
    copy_bytes = min(COPY_BYTES, planner.device.available // 8)
    try:
        with closing(Ggml(planner.n_threads)) as ggml:
            columns = COLUMNS[ggml.gpu]

            def product(kind: str) -> Rate:
                with ggml.product(kind, n_in, n_out, columns) as work:
                    return repeated(partial(_once, work), pace)

            own = product(tensor.type)
            f32 = product("F32") if not ggml.gpu and tensor.type in {"F16", "BF16"} else None
            with ggml.copy(copy_bytes) as work:
                copy = repeated(partial(_once, work), pace)
            return Ceilings(ggml.device, tensor.name, tensor.type, n_in, n_out, columns, own, copy, copy_bytes, f32)
    except RunError as error:
        return NoCeilings(str(error))


def _once(work: Work) -> float:
    work.compute()
    return work.amount


def largest_matrix(file: GGUFFile) -> TensorInfo:
    """The matrix of a layer that has most values; of several experts' one."""
    matrices = [tensor for tensor in file.header.tensors if is_product(tensor)]
    if not matrices:
        raise UserError(f"{file.path} has no matrix in any layer", "name a model")
    return max(matrices, key=lambda tensor: prod(tensor.shape[:2]))


def is_product(tensor: TensorInfo) -> bool:
    """Whether a token is multiplied with it in a layer."""
    return tensor.name.startswith("blk.") and len(tensor.shape) > 1


def _requests(asked: Measure, file: GGUFFile) -> list[Request]:
    """What is answered; nothing where decode steps alone are measured."""
    if asked.work == "steps":
        return []
    return [*(letters if asked.work == "scores" else texts)(asked.n, file.n_vocab, file.n_ctx_train)]


def _measured(
    asked: Measure, requests: list[Any], plan: MemoryPlan, model: llama.Model, planner: MemoryPlanner, pace: Pace
) -> Measured:
    """The rate of a shape by a plan that fits; why not where llama.cpp cannot make or use it."""
    n_positions = planner.file.n_ctx_train
    try:
        with ExitStack() as stack:
            backends = [stack.enter_context(llama.Context(model, plan.settings)) for _ in range(plan.n_contexts)]
            contexts = Contexts(backends, budget_of(plan.settings), planner.n_threads)
            stack.callback(contexts.close)
            if asked.work == "steps":
                contexts.begin_texts(asked.n, n_positions)
                rate = repeated(partial(contexts.decode, asked.n), pace)
            else:
                answer = contexts.score if asked.work == "scores" else contexts.generate
                rate = repeated(partial(answer, requests), pace)
    except RunError as error:
        return Measured(asked, plan.shape, None, str(error))
    return Measured(asked, plan.shape, rate)


def _needs(requests: list[Request], n_positions: int) -> Needs:
    """Those of real tasks whose prompts are longer; without requests those of decode steps."""
    needs = needs_of(requests) if requests else Needs(1, row_share=1.0, generated=True)
    return replace(needs, longest=max(needs.longest, min(n_positions, LONGEST)))


def _plan(planner: MemoryPlanner, needs: Needs, shape: Shape | None) -> MemoryPlan:
    """That of a shape, the roomiest that fits; of none as for any run."""
    if shape is None:
        return planner.plan(needs)
    plans = [planner.sized(needs, settings, n) for settings, n in planner.shaped(needs, shape)]
    return next((plan for plan in plans if plan.fits), plans[-1] if plans else planner.plan(needs))


class Bench:
    """The parent's end.

    Args:
        job: what is measured.
        spawn: starts a process that calls a function.
        serve: the process's own function; tests put another in its place.

    Attributes:
        ready: what the model runs on; None as long as it has not been loaded.
    """

    def __init__(
        self,
        job: BenchJob,
        spawn: Callable[[Function], Process] = WorkerProcess,
        serve: Function = serve,
    ) -> None:
        self._job, self._spawn, self._serve = job, spawn, serve
        self._process: Process | None = None
        self.ready: Ready | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()  # amid a measurement it would not listen
            self._process.close(CLOSE_S)

    def ceilings(self) -> Ceilings | NoCeilings:
        """The device's ceilings; to be asked for before anything else, while the memory is free.

        Raises:
            UserError: the file cannot be used.
        """
        found = self._answer(MeasureCeilings())
        if isinstance(found, Death):
            return NoCeilings(f"the engine died of them ({found})")
        assert isinstance(found, (Ceilings, NoCeilings))
        return found

    def measure(self, asked: Measure) -> Measured:
        """A rate, or why there is none.

        Raises:
            UserError: llama.cpp cannot load the file.
            RunError: the process dies while it loads it.
        """
        try:
            found = self._answer(asked)
        except UserError as error:
            if self.ready is None:
                raise
            return Measured(asked, asked.shape, None, error.message)  # it could be loaded before
        if isinstance(found, Death):
            if self.ready is None:
                raise RunError(f"the engine died of {self._job.model} while it was loading ({found})")
            return Measured(asked, asked.shape, None, f"the engine died of it ({found})")
        assert isinstance(found, Measured)
        return found

    def _answer(self, asked: MeasureCeilings | Measure) -> Ceilings | NoCeilings | Measured | Death:
        """The answer of the process, which is started where there is none; what it died of where there is none then."""
        said = None
        try:
            if self._process is None:
                self._process = self._spawn(self._serve)
                self._process.connection.send(self._job)
            self._process.connection.send(asked)
            while True:
                message: FromBench = self._process.connection.recv()
                if isinstance(message, Refused):
                    raise UserError(message.message, message.hint)
                if isinstance(message, LastWords):
                    said = message.text
                elif isinstance(message, Ready):
                    self.ready = message
                elif not isinstance(message, Loading):
                    return message
        except (EOFError, OSError):
            assert self._process is not None
            death = self._process.death(said, CLOSE_S)
            self._process.close(CLOSE_S)
            self._process = None
            return death
