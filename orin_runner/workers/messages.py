"""What a worker and its parent say to each other, in the order in which it is said.

The parent sends a ``Job``. The worker plans (``Planned``), loads (``Loading``, ``Loaded``) and waits. Before the job is
known the parent may send an ``Opening``: the worker then loads the weights while it waits for it. Then the parent sends
``Questions``, which are answered by ``Answers`` and at last ``Done``, or ``MeasurePromptRate``, which is answered by a
``PromptRate``. It may send a ``GiveBack`` at any time after ``Questions``; the answer is ``GivenBack``. A ``Note`` may
come at any time, ``Refused`` or ``LastWords`` instead of anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import MemoryPlan, Needs, needs_of
from orin_runner.machine.tuned import Tuned
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama_library import Device
from orin_runner.requests import Failed, Request, Result, context_tokens
from orin_runner.runner import Progress, RunStats
from orin_runner.workers.death import LastWords
from orin_runner.workers.packed_requests import PackedRequests


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
        load: load the model; else the worker ends when it has planned.
        prompt_cache: where states of shared prefixes are kept between runs, None for nowhere.
        tuned: the fastest shapes that are known of this model, on whatever devices.
    """

    model: Path
    needs: Needs
    lengths: Sequence[int]
    device_bytes: int | None
    share: float
    n_threads: int
    draft: bool
    load: bool = True
    prompt_cache: PromptCacheOptions | None = None
    tuned: tuple[Tuned, ...] = ()

    @classmethod
    def of(
        cls,
        file: GGUFFile,
        requests: Sequence[Request],
        *,
        device_bytes: int | None = None,
        draft: bool = True,
        prompt_cache: PromptCacheOptions | None = None,
        n_threads: int | None = None,
        tuned: tuple[Tuned, ...] = (),
    ) -> Job:
        """The job of answering ``requests`` with ``file``; on all CPUs of this process where no number is given."""
        n_threads = n_threads or cpu_threads()
        nothing = cls(file.path, Needs(longest=1), (), device_bytes, 1.0, n_threads, draft, tuned=tuned)
        return nothing.asking(requests, draft=draft, prompt_cache=prompt_cache)

    def asking(
        self, requests: Sequence[Request], *, draft: bool = True, prompt_cache: PromptCacheOptions | None = None
    ) -> Job:
        """The same with other requests."""
        return replace(
            self,
            needs=needs_of(requests),
            lengths=[context_tokens(request) for request in requests],
            draft=draft,
            prompt_cache=prompt_cache,
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """What a worker may begin with before its ``Job`` is known: ``model`` and ``device_bytes`` of it."""

    model: Path
    device_bytes: int | None


@dataclass(frozen=True, slots=True)
class Planned:
    """The worker's plan; sent before the model is loaded.

    Attributes:
        plan: the plan.
        max_context: requests of more tokens of context must be left out; 0 where nothing fits.
    """

    plan: MemoryPlan
    max_context: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Share of the weights that is loaded, 0 to 1."""

    share: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is ready; what it runs on.

    Attributes:
        seconds: it took to load the weights and to make the contexts.
        gpu_layers, n_layers: layers on the GPU, and all of them.
        n_vocab: token ids of requests are below it.
        devices: what ggml found.
        buffers: MiB that llama.cpp allocated, by kind.
        rope_factors: which of long-rope's it has, ``"short"`` or ``"long"``; None without long-rope.
        file: inode, bytes and time of modification in ns of the GGUF when it was opened.
    """

    seconds: float
    gpu_layers: int
    n_layers: int
    n_vocab: int
    devices: tuple[Device, ...]
    buffers: dict[str, float]
    rope_factors: str | None = None
    file: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Questions:
    """Requests to answer; the rest as ``Engine.run`` takes it."""

    requests: PackedRequests
    goes_on: bool = False
    n_engines: int = 1


@dataclass(frozen=True, slots=True)
class Answers:
    """Results that have become known, by index in the request list; how far the run is, and what it has cost so far."""

    results: tuple[tuple[int, Result | Failed], ...]
    progress: Progress | None
    stats: RunStats


@dataclass(frozen=True, slots=True)
class Done:
    """All requests of a list are answered."""

    stats: RunStats


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Asks a worker for questions that it has not begun, about ``share`` of what these have to compute."""

    share: float


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The requests that a worker will not answer, by index in the request list; none where it has too few left."""

    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MeasurePromptRate:
    """Asks a worker for its ``PromptRate``."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A mistake of the user, to be shown as such."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the user."""

    text: str


FromWorker = Planned | Loading | Loaded | Answers | GivenBack | Done | PromptRate | Note | Refused | LastWords
ToWorker = Questions | GiveBack | MeasurePromptRate
