"""The engine in a process of its own, so that an abort inside llama.cpp cannot take the run with it.

llama.cpp aborts the whole process on some failures (CUDA out of memory in its pool, for one), and the kernel kills what
takes too much of a unified memory. The worker holds model and context and nothing that would be missed: it receives
requests and sends results over a pipe. ``supervisor`` is the other end.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from orin_runner.engine.engine import Engine
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.engine.prompt_rate import prompt_rate
from orin_runner.errors import UserError, os_error_line
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.devices import present_device
from orin_runner.machine.layer_split import split_of
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, budget_of
from orin_runner.machine.tuned import shape_on
from orin_runner.model import llama, llama_library, llama_log
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import LoadMode
from orin_runner.requests import Failed, Result
from orin_runner.runner import Progress
from orin_runner.workers.messages import (
    Answers,
    Done,
    GiveBack,
    GivenBack,
    Job,
    Loaded,
    Loading,
    MeasurePromptRate,
    Note,
    Opening,
    Planned,
    Questions,
    Refused,
    ToWorker,
)
from orin_runner.workers.packed_requests import unpack

SWITCH_S = 1e-4
"""How long a thread may keep Python's lock from one that asks for it (Python's own: 5 ms). The thread that feeds the
device asks often; at this value HellaSwag ran a tenth faster on an H100."""


LOADING_STEP = 0.01
"""Share of the weights between two words of how far their loading is."""
BESIDE_WEIGHTS = 512 << 20
"""Bytes that a run needs beside the weights at least, roughly."""


def serve(connection: Connection, first: Job | Opening) -> None:
    """Plan, load, then answer whatever comes (``messages``), until the other end closes."""
    sys.setswitchinterval(SWITCH_S)
    llama_log.write_errors_to(sys.stderr.fileno())
    with refusing(connection):
        _serve(connection, first)


@contextmanager
def refusing(connection: Connection) -> Iterator[None]:
    """What the user can mend is sent as ``Refused``, and ends the process."""
    try:
        yield
    except UserError as error:
        connection.send(Refused(error.message, error.hint))
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        connection.send(Refused(os_error_line(error), "see that the file is there and may be read"))


def _serve(connection: Connection, first: Job | Opening) -> None:
    stat = first.model.stat()
    file = GGUFFile.open(first.model)
    device = present_device(first.device_bytes)
    split = split_of(file, device)
    with ExitStack() as stack:
        model, seconds = None, 0.0
        # Long-rope's factors are chosen by the longest request. A model that would not fit is left for the plan to
        # refuse.
        early = isinstance(first, Opening) and file.original_context is None
        if early and file.data_bytes + BESIDE_WEIGHTS <= device.available:
            model, seconds = load(connection, stack, file, device, {}, split)
        job: Job = first if isinstance(first, Job) else connection.recv()
        planner = MemoryPlanner(
            file,
            device,
            job.n_threads,
            simulate=lambda settings: llama.simulate(job.model, settings, split),
            share=job.share,
            tuned=shape_on(device, job.tuned, texts=job.needs.generated),
        )
        plan, max_context = planner.plan_that_fits(job.needs, job.lengths)
        connection.send(Planned(plan, max_context))
        if max_context == 0 or not job.load:
            return
        if model is None:
            overrides = file.rope_overrides(job.needs.longest)
            model, seconds = load(connection, stack, file, device, overrides, split)
        before = time.perf_counter()
        contexts = [stack.enter_context(llama.Context(model, plan.settings)) for _ in range(plan.n_contexts)]
        seconds += time.perf_counter() - before
        connection.send(
            Loaded(
                seconds=seconds,
                gpu_layers=model.gpu_layers,
                n_layers=model.n_layers,
                n_vocab=model.n_vocab,
                devices=tuple(llama_library.devices()),
                buffers={kind: sum(c.buffers[kind] for c in contexts) for kind in contexts[0].buffers},
                rope_factors=file.rope_factors(job.needs.longest),
                file=(stat.st_ino, stat.st_size, stat.st_mtime_ns),
            )
        )
        asked: ToWorker = connection.recv()  # a run that is refused until then leaves no prompt cache behind
        engine = Engine(
            contexts,
            budget_of(plan.settings),
            n_positions=file.n_ctx_train,
            n_threads=job.n_threads,
            draft=job.draft,
            cache=_prompt_cache(connection, job, plan, file),
        )
        later: list[ToWorker] = []
        while True:
            if isinstance(asked, MeasurePromptRate):
                connection.send(prompt_rate(contexts[0], min(plan.settings.n_batch, plan.settings.n_cells)))
            elif isinstance(asked, GiveBack):  # it has come too late
                connection.send(GivenBack(()))
            else:
                later += answer(connection, engine, asked)
            asked = later.pop(0) if later else connection.recv()


def load(
    connection: Connection,
    stack: ExitStack,
    file: GGUFFile,
    device: DeviceMemory,
    overrides: Mapping[str, int],
    split: Sequence[int],
) -> tuple[llama.Model, float]:
    """The model, which ``stack`` will close, and the seconds it took; ``Loading`` says how far it is."""
    before, said = time.perf_counter(), 0.0
    # Of a memory that the GPU shares, what stands in the page cache is missing. Elsewhere the cache is fast, and
    # several threads read from it where make has patched the library (patches/).
    mode = LoadMode.DIRECT if device.cuda and device.unified else LoadMode.READ

    def progress(share: float) -> None:
        nonlocal said
        if share - said >= LOADING_STEP:  # nobody may be reading yet, and a pipe holds so much
            said = share
            connection.send(Loading(share))

    if mode is LoadMode.DIRECT:
        _drop_cached_pages(file.path)
    model = stack.enter_context(llama.Model(file.path, progress=progress, overrides=overrides, mode=mode, split=split))
    if mode is LoadMode.DIRECT:
        _drop_cached_pages(file.path)
    return model, time.perf_counter() - before


def _prompt_cache(connection: Connection, job: Job, plan: MemoryPlan, file: GGUFFile) -> PromptCache | None:
    if job.prompt_cache is None:
        return None
    # A state is only good for the context it came from: its types, its shape of computation, the library, the device.
    settings = plan.settings
    parts = (
        job.prompt_cache.identity,
        f"kv {settings.kv_type}, flash attention {settings.flash_attn}, ubatch {settings.n_ubatch}",
        f"rope factors {file.rope_factors(job.needs.longest)}",
        f"llama-cpp-python {llama_library.version()}, {plan.device.name}",
    )
    return PromptCache(replace(job.prompt_cache, identity="\n".join(parts)), lambda text: connection.send(Note(text)))


def answer(connection: Connection, engine: Engine, questions: Questions) -> list[ToWorker]:
    """Run ``questions`` and send what comes: the results of each batch with how far the run is then.

    Returns:
        What has been asked meanwhile and is to be answered behind it.
    """
    results: list[tuple[int, Result | Failed]] = []
    later: list[ToWorker] = []

    def send(progress: Progress | None) -> None:
        connection.send(Answers(tuple(results), progress, engine.stats))
        results.clear()
        # Before the first batch the engine does not know yet what it will have begun.
        while progress is not None and progress.computed and connection.poll():
            asked = connection.recv()
            if isinstance(asked, GiveBack):
                connection.send(GivenBack(tuple(engine.give_back(asked.share))))
            else:
                later.append(asked)

    requests = unpack(questions.requests)
    for found in engine.run(requests, send, goes_on=questions.goes_on, n_engines=questions.n_engines):
        results.append(found)  # noqa: PERF402 - what has been collected is sent meanwhile
    send(None)
    connection.send(Done(engine.stats))
    return later


def _drop_cached_pages(path: Path) -> None:
    """Ask the kernel to forget the file's cached pages: where memory is unified they would crowd out the weights."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
