"""From a GGUF's path to an engine that runs, and the lines that say what was opened, planned and loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from types import TracebackType

import typer

from eval.evaluate import Prepared
from orin_runner.console import GIB, Bar, Notes, listed
from orin_runner.default_model import default_model
from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.machine.checks import quick_warning
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.machine.tuned import Tuned, tuned_for
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import Evidence, Verdict, examine
from orin_runner.requests import Request
from orin_runner.workers.cluster import Cluster
from orin_runner.workers.messages import Job, Loaded
from orin_runner.workers.nodes import places_on, seats_here
from orin_runner.workers.places import Place, gpus_here, places_here
from orin_runner.workers.replicas import Replica, Replicas
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor, planned

F16_COMPUTE = "GGML_CUDA_CUBLAS_COMPUTE_TYPE"
QUANTIZED = "--allow-quantized runs it for comparison; else convert the original checkpoint"


def open_model(notes: Notes, model: Path | None, *, allow_quantized: bool = False) -> GGUFFile:
    """The GGUF named, or the default one; a line says which, and how far it is proven by its header.

    Raises:
        UserError: as ``open_proved``.
    """
    file, evidence = open_proved(notes, model, allow_quantized=allow_quantized)
    # Why it is no more than that goes without saying where nobody has asked for more.
    (notes.detail if evidence.tensors else notes.note)(evidence.verdict.line)
    return file


def open_proved(notes: Notes, model: Path | None, *, allow_quantized: bool) -> tuple[GGUFFile, Evidence]:
    """The GGUF named, or the default one, and what there is to prove it by; a line says which, how far proven.

    Raises:
        UserError: there is no default, the file is no GGUF, its header is not what its manifest says, or it is
            quantized and that is not allowed.
    """
    path, why = (model, "") if model is not None else default_model()
    file = GGUFFile.open(path)
    if not allow_quantized:
        file.need_full_precision(QUANTIZED)
    evidence = examine(file)
    notes.note(f"model {path}: {short_model_line(file, evidence.verdict)}")
    notes.detail(f"{f'{why}: ' if why else ''}{model_line(file)}")
    return file, evidence


def all_requests(prepared: Sequence[Prepared]) -> list[Request]:
    """The requests of all tasks, which a run is planned for together."""
    return [question.request for item in prepared for question in item.questions]


class Launch:
    """The workers of a command: they may be begun before it is known what will be asked, and are started when it is.

    Args:
        notes: where their progress and their ends are told.
        file: the model.
        device_bytes: memory to plan for on each seat, None for what is free.
        where: a place for each replica.
        tuned: the fastest shapes that are known of the model.
    """

    def __init__(
        self,
        notes: Notes,
        file: GGUFFile,
        device_bytes: int | None,
        where: Sequence[Place],
        tuned: tuple[Tuned, ...] = (),
    ) -> None:
        self._notes, self._file, self._where = notes, file, where
        self._loaded = [0.0] * len(where)
        self._bar: Bar | None = None
        self._started = False
        self._job = Job.of(file, [], device_bytes=device_bytes, tuned=tuned)
        every = [self._replica(k) for k in range(len(where))]
        self._workers = Replicas(every, notes.warn) if len(every) > 1 else every[0].supervisor

    def __enter__(self) -> Launch:
        """Begin them: they load the weights. Meanwhile a line warns of what this machine will make slow or fail."""
        try:
            self._workers.begin()
            if gpus_here(self._where) is not None and (line := quick_warning(self._file)) is not None:
                self._notes.warn(line)
        except BaseException:
            self._workers.kill()
            self._workers.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._started:  # nobody waits for the end of its loading
            self._workers.kill()
        self._workers.__exit__(kind, value, traceback)

    def started(
        self, requests: Sequence[Request], *, draft: bool = True, prompt_cache: PromptCacheOptions | None = None
    ) -> Supervisor | Replicas:
        """The workers with the model loaded, planned for ``requests``.

        Raises:
            typer.Exit: not even the shortest request fits; the plan has been shown, and the exit status is 1.
        """
        job = self._job.asking(requests, draft=draft, prompt_cache=prompt_cache)
        self._workers.plan_for(job)
        with self._notes.progress(f"loading {self._file.path.name}", 1.0) as self._bar:
            try:
                self._workers.start()
            except DoesNotFitError as error:
                for line in plan_lines(error.plan):
                    self._notes.warn(line)
                raise typer.Exit(1) from error
        self._bar, self._started = None, True
        if self._workers.plan.tuned:
            self._notes.note(tuned_line(self._workers.plan))
        if (context := self._file.original_context) and self._workers.loaded.rope_factors == "long":
            within = sum(length <= context for length in job.lengths)
            self._notes.warn(
                f"long-rope: the longest request has {job.needs.longest:,} tokens, more than the original context of "
                f"{context:,}: all {len(job.lengths):,} requests have the long factors, as in one batch of "
                f"transformers; {within:,} of them would have the short ones alone"
            )
        return self._workers

    def _replica(self, k: int) -> Replica:
        place, on_loading = self._where[k], partial(self._on_loading, k)
        return Replica(place.name, Supervisor(place.job(self._job), self._notes.warn, on_loading, spawn=place.spawn))

    def _on_loading(self, k: int, share: float) -> None:
        self._loaded[k] = share
        if self._bar is not None:
            self._bar.update(sum(self._loaded) / len(self._loaded))


@contextmanager
def chosen_places(notes: Notes, file: GGUFFile, gpus: str, replicas: str, ray: str | None) -> Iterator[list[Place]]:
    """Where the replicas that --gpus and --replicas ask for run, here or with --ray on each node; lines say why there.

    What runs on nodes ends with it.

    Raises:
        UserError: there are not so many, or they do not hold the model; the cluster or a node will not do.
    """
    if ray is None:
        seats, why = seats_here(file, gpus, replicas)
        if why:
            notes.note(why)
        yield places_here(file.path, seats)
        return
    with Cluster(ray, int(gpus) if gpus.isascii() and gpus.isdecimal() else None) as cluster:
        places, lines = places_on(cluster, file, gpus, replicas)
        for line in lines:
            notes.note(line)
        n, m = len(places), len(cluster.nodes)
        notes.note(f"{n} replica{'s' if n > 1 else ''} on {m} node{'s' if m > 1 else ''} of the Ray cluster")
        yield places


def plan_here(
    notes: Notes, file: GGUFFile, job: Job, gpus: str = "auto", replicas: str = "auto"
) -> tuple[MemoryPlan, int, int]:
    """The plan of the first replica that ``eval`` would start here, as ``planned`` returns it, and their number.

    Raises:
        UserError: as ``chosen_places`` and ``planned``.
    """
    with chosen_places(notes, file, gpus, replicas, None) as where:
        return *planned(where[0].job(job), notes.warn, where[0].spawn), len(where)


def short_model_line(file: GGUFFile, verdict: Verdict) -> str:
    """Size, types and proof of a GGUF, and what of it is not its checkpoint's."""
    types = sorted(file.tensor_types, key=lambda name: -file.tensor_types[name][1])
    size = sum(size for _, size in file.tensor_types.values())
    line = f"{size / GIB:.2f} GiB {'+'.join(types)}"
    if file.quantized:
        line += ", quantized"
    elif file.altered_values:
        line += f", {file.altered_values:,} values altered"
    return f"{line}, proof: {verdict.proof.value}"


def model_line(file: GGUFFile) -> str:
    """Layout, types and proof of a GGUF in one line."""
    sizes = sorted(file.tensor_types.items(), key=lambda item: -item[1][1])
    types = " + ".join(f"{size / GIB:.2f} GiB {name}" for name, (_, size) in sizes)
    altered = file.altered_values
    proof = "unknown origin" if altered is None else f"{altered:,} values altered"
    if file.quantized:
        proof = "quantized: its answers are not the checkpoint's"
    window = f", window {file.window}" if file.window else ""
    return f"{file.architecture}{window}, {types}, {proof}"


def device_line(loaded: Loaded, plan: MemoryPlan) -> str:
    """Where a model runs, and what of the memory there it is planned to take."""
    gpus = [device for device in loaded.devices if device.is_gpu]
    where = "CPU"
    if gpus:
        layers = "" if loaded.gpu_layers == loaded.n_layers else f"{loaded.gpu_layers} of {loaded.n_layers} layers on "
        where = f"{layers}{listed([gpu.name for gpu in gpus])} ({gpus[0].description})"
        where += f", THE OTHER {loaded.n_layers - loaded.gpu_layers} ON THE CPU" if layers else ""
    several = f"{plan.n_contexts} contexts of " if plan.n_contexts > 1 else ""
    return f"device: {where}; plan: {_taken(plan)}, {several}n_ctx {plan.settings.n_cells}"


def offload_lines(loaded: Loaded, file: GGUFFile) -> list[str]:
    """Where the layers are, and what the F16 products are computed in (``GGML_CUDA_CUBLAS_COMPUTE_TYPE``)."""
    gpus = [device for device in loaded.devices if device.is_gpu]
    if not gpus:
        return [f"llama.cpp {llama_library.version()} was built without a GPU backend: computing on the CPU"]
    on = listed([gpu.name for gpu in gpus])
    line = f"{loaded.gpu_layers} of {loaded.n_layers} layers on {on} ({gpus[0].description})"
    if loaded.gpu_layers < loaded.n_layers:
        line += f": THE OTHER {loaded.n_layers - loaded.gpu_layers} RUN ON THE CPU"
    lines = [line]
    if "F16" in file.tensor_types:
        asked = os.environ.get(F16_COMPUTE)
        kind = {None: "F16", "auto": "F16", "f16": "F16", "f32": "F32", "bf16": "BF16"}.get(asked, asked)
        lines.append(f"F16 products accumulate in {kind} ({F16_COMPUTE}={asked or 'auto'})")
    return lines


def tuned_here(file: GGUFFile, *, no_tuned: bool) -> tuple[Tuned, ...]:
    """What ``orin-run bench`` has found of a model with the library that is installed; nothing with --no-tuned."""
    return () if no_tuned else tuned_for(file.digest(), llama_library.version())


def tuned_line(plan: MemoryPlan) -> str:
    """That the settings are measured ones."""
    return f"tuned: {plan.shape}, the fastest that orin-run bench has measured here (--no-tuned plans without)"


def f32_line(file: GGUFFile, gain: float) -> str:
    """That another file of the same values would be faster."""
    n_bytes = sum(4 * prod(tensor.shape) for tensor in file.header.tensors)
    return (
        f"F32: a product is {gain:.2f} times as fast here with the same values in F32, as orin-run bench has measured; "
        f"convert --outtype f32 makes such a file, of {n_bytes / GIB:.2f} GiB"
    )


def plan_lines(plan: MemoryPlan) -> list[str]:
    """The settings; what it takes of the memory; one line more where that is too much."""
    settings = plan.settings
    several = f"{plan.n_contexts} contexts of " if plan.n_contexts > 1 else ""
    said = (
        f"settings: {several}n_ctx {settings.n_cells}, n_batch {settings.n_batch}, n_ubatch {settings.n_ubatch}, "
        f"{settings.n_seq} sequences, {settings.n_outputs} outputs"
    )
    line = f"memory plan for {plan.device.name}: {_taken(plan)}; longest request {plan.longest:,} tokens"
    return [said, line] if plan.fits else [said, line, f"does not fit: {plan.advice}"]


def _taken(plan: MemoryPlan) -> str:
    """The memory of a plan; of one for several GPUs that of each, with its layers."""
    if not plan.columns:
        return f"{plan.total / MIB:,.0f} of {plan.device.available / MIB:,.0f} MiB"
    return ", ".join(
        f"{column.name} {column.layers} layers and {column.total / MIB:,.0f} of {column.available / MIB:,.0f} MiB"
        for column in plan.columns
    )
