"""The engine in a process of its own, so that an abort inside llama.cpp cannot take the run with it.

llama.cpp aborts the whole process on some failures (CUDA out of memory in its pool, for one) and the kernel kills what
takes too much of a unified memory. The worker holds model and context and nothing that would be missed: it receives
requests and sends results over a pipe. ``orin_runner.workers.supervisor`` is the other end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from orin_runner.engine.engine import Engine, Progress, RunStats
from orin_runner.engine.prompt_cache import PromptCache, PromptCacheOptions
from orin_runner.engine.prompt_rate import MeasureLimit, PromptRate, prompt_rate
from orin_runner.errors import UserError
from orin_runner.machine.devices import present_device
from orin_runner.machine.memory_plan import CANONICAL_CHUNK, MemoryPlan, Needs, budget_of, plan_that_fits
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Request, Result


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is started with.

    Attributes:
        model: the GGUF.
        needs: what all requests together ask of the context.
        lengths: context tokens each request needs, to find out how long a request may be where memory is short.
        device_bytes: memory to plan for instead of what is free, None for what is free.
        share: share of the first plan's cache and buffers to use; halved after every death.
        n_threads: CPU threads.
        draft: verify candidates.
        prompt_cache: where states of shared prefixes are kept between runs, None for nowhere.
    """

    model: Path
    needs: Needs
    lengths: Sequence[int]
    device_bytes: int | None
    share: float
    n_threads: int
    draft: bool
    prompt_cache: PromptCacheOptions | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """The worker's plan; sent before the model is loaded. ``limit``: requests of more tokens must be left out."""

    plan: MemoryPlan
    limit: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Share of the weights that is loaded."""

    share: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is ready; what it runs on."""

    seconds: float
    gpu_layers: int
    n_layers: int
    devices: tuple[llama.Device, ...]
    buffers: dict[str, float]


@dataclass(frozen=True, slots=True)
class Answers:
    """Results that have become known, by index in the request list, and how far the run is."""

    results: tuple[tuple[int, Result], ...]
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Done:
    """All requests of a list are answered."""

    stats: RunStats


@dataclass(frozen=True, slots=True)
class Refused:
    """A mistake of the user, to be shown as such."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the user."""

    text: str


SWITCH_S = 1e-4
"""How long a thread may keep Python's lock from one that asks for it (Python's own: 5 ms). The thread that feeds the
device asks often; at this value HellaSwag ran a tenth faster on an H100."""

Message = Note | Planned | Loading | Loaded | Answers | Done | Refused | PromptRate


def serve(connection: Connection, job: Job) -> None:
    """Plan, load, then answer every request list (or ``MeasureLimit``) that comes, until the other end closes."""
    # Ctrl-C reaches the whole process group; the supervisor decides what becomes of the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    try:
        _serve(connection, job)
    except UserError as error:
        connection.send(Refused(error.message, error.hint))
    except llama.DecodeError as error:
        connection.send(Note(str(error)))
        sys.exit(1)  # another worker may do with less memory
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the supervisor is gone, and nobody is left to tell


def _serve(connection: Connection, job: Job) -> None:
    file = GGUFFile.open(job.model)
    device = present_device(job.device_bytes)
    plan, limit = plan_that_fits(
        file, job.needs, job.lengths, device, job.n_threads, lambda s: llama.simulate(job.model, s), job.share
    )
    connection.send(Planned(plan, limit))
    if limit == 0:
        return
    before = time.perf_counter()
    _drop_cached_pages(job.model)
    with llama.Model(job.model, progress=lambda share: connection.send(Loading(share))) as model:
        _drop_cached_pages(job.model)
        with ExitStack() as stack:
            contexts = [stack.enter_context(llama.Context(model, plan.settings)) for _ in range(plan.n_contexts)]
            connection.send(
                Loaded(
                    seconds=time.perf_counter() - before,
                    gpu_layers=model.gpu_layers,
                    n_layers=model.n_layers,
                    devices=tuple(llama.devices()),
                    buffers={kind: sum(c.buffers[kind] for c in contexts) for kind in contexts[0].buffers},
                )
            )
            engine = Engine(
                contexts,
                budget_of(plan.settings),
                n_chunk=CANONICAL_CHUNK,
                n_positions=file.n_ctx_train,
                n_threads=job.n_threads,
                draft=job.draft,
                cache=_prompt_cache(connection, job, plan),
            )
            while True:
                asked = connection.recv()
                if isinstance(asked, MeasureLimit):
                    connection.send(prompt_rate(contexts[0], min(plan.settings.n_batch, plan.settings.n_cells)))
                else:
                    _answer(connection, engine, asked)


def _prompt_cache(connection: Connection, job: Job, plan: MemoryPlan) -> PromptCache | None:
    if job.prompt_cache is None:
        return None
    # A state is only good for the context it came from: its types, its shape of computation, the library, the device.
    settings = plan.settings
    parts = (
        job.prompt_cache.identity,
        f"kv {settings.kv_type}, flash attention {settings.flash_attn}, ubatch {settings.n_ubatch}",
        f"llama-cpp-python {llama.version()}, {plan.device.name}",
    )
    return PromptCache(replace(job.prompt_cache, identity="\n".join(parts)), lambda text: connection.send(Note(text)))


def _answer(connection: Connection, engine: Engine, requests: Sequence[Request]) -> None:
    results: list[tuple[int, Result]] = []
    for event in engine.run(requests):
        if isinstance(event, Progress):
            connection.send(Answers(tuple(results), event))
            results.clear()
        else:
            results.append(event)
    connection.send(Answers(tuple(results), None))
    connection.send(Done(engine.stats))


def _drop_cached_pages(path: Path) -> None:
    """Ask the kernel to forget the file's cached pages: where memory is unified they would crowd out the weights."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
