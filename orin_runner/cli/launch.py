"""From a GGUF's path to an engine that runs, and the lines that say what was opened, planned and loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from eval.evaluate import Prepared
from orin_runner.console import GIB, Notes
from orin_runner.default_model import default_model
from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import Evidence, examine
from orin_runner.requests import Request
from orin_runner.workers.messages import Job, Loaded
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor

F16_COMPUTE = "GGML_CUDA_CUBLAS_COMPUTE_TYPE"


def open_model(notes: Notes, model: Path | None) -> GGUFFile:
    """The GGUF named, or the default one; lines say which, and how far it is proven by its header.

    Raises:
        UserError: as ``open_proved``.
    """
    file, evidence = open_proved(notes, model)
    notes.note(evidence.verdict.line)
    return file


def open_proved(notes: Notes, model: Path | None) -> tuple[GGUFFile, Evidence]:
    """The GGUF named, or the default one, and what there is to prove it by; a line says which.

    Raises:
        UserError: there is no default, the file is no GGUF, or its header is not what its manifest says.
    """
    path, why = (model, "") if model is not None else default_model()
    file = GGUFFile.open(path)
    notes.note(f"model {path}{f' ({why})' if why else ''}: {model_line(file)}")
    return file, examine(file)


def all_requests(prepared: Sequence[Prepared]) -> list[Request]:
    """The requests of all tasks, which a run is planned for together."""
    return [question.request for item in prepared for question in item.questions]


def start(
    notes: Notes,
    file: GGUFFile,
    requests: Sequence[Request],
    device_bytes: int | None,
    *,
    draft: bool = True,
    prompt_cache: PromptCacheOptions | None = None,
) -> Supervisor:
    """A worker with the model loaded, planned for ``requests``.

    Raises:
        typer.Exit: not even the shortest request fits; the plan has been shown, and the exit status is 1.
    """
    job = Job.of(file, requests, device_bytes=device_bytes, draft=draft, prompt_cache=prompt_cache)
    with notes.progress(f"loading {file.path.name}", 1.0) as bar:
        supervisor = Supervisor(job, notes.warn, bar.update)
        try:
            supervisor.start()
        except DoesNotFitError as error:
            for line in plan_lines(error.plan):
                notes.warn(line)
            raise typer.Exit(1) from error
    if (context := file.original_context) and supervisor.loaded.rope_factors == "long":
        within = sum(length <= context for length in job.lengths)
        notes.warn(
            f"long-rope: the longest request has {job.needs.longest:,} tokens, more than the original context of "
            f"{context:,}: all {len(job.lengths):,} requests have the long factors, as in one batch of transformers; "
            f"{within:,} of them would have the short ones alone"
        )
    return supervisor


def model_line(file: GGUFFile) -> str:
    """Layout, types and proof of a GGUF in one line."""
    sizes = sorted(file.tensor_types.items(), key=lambda item: -item[1][1])
    types = " + ".join(f"{size / GIB:.2f} GiB {name}" for name, (_, size) in sizes)
    altered = file.altered_values
    proof = "unknown origin" if altered is None else f"{altered:,} values altered"
    window = f", window {file.window}" if file.window else ""
    return f"{file.architecture}{window}, {types}, {proof}"


def offload_lines(loaded: Loaded, file: GGUFFile) -> list[str]:
    """Where the layers are, and what the F16 products are computed in (``GGML_CUDA_CUBLAS_COMPUTE_TYPE``)."""
    gpus = [device for device in loaded.devices if device.is_gpu]
    if not gpus:
        return [f"llama.cpp {llama.version()} was built without a GPU backend: computing on the CPU"]
    line = f"{loaded.gpu_layers} of {loaded.n_layers} layers on {gpus[0].name} ({gpus[0].description})"
    if loaded.gpu_layers < loaded.n_layers:
        line += f": THE OTHER {loaded.n_layers - loaded.gpu_layers} RUN ON THE CPU"
    lines = [line]
    if "F16" in file.tensor_types:
        asked = os.environ.get(F16_COMPUTE)
        kind = {None: "F16", "auto": "F16", "f16": "F16", "f32": "F32", "bf16": "BF16"}.get(asked, asked)
        lines.append(f"F16 products accumulate in {kind} ({F16_COMPUTE}={asked or 'auto'})")
    return lines


def plan_lines(plan: MemoryPlan) -> list[str]:
    """One line: does it fit, with what settings; one more where it does not."""
    settings = plan.settings
    two = "two contexts of " if plan.n_contexts == 2 else ""
    line = (
        f"memory plan for {plan.device.name}: {plan.total / MIB:,.0f} of {plan.device.available / MIB:,.0f} MiB; "
        f"{two}n_ctx {settings.n_cells}, n_batch {settings.n_batch}, n_ubatch {settings.n_ubatch}, "
        f"{settings.n_seq} sequences, {settings.n_outputs} outputs; longest request {plan.longest} tokens"
    )
    return [line] if plan.fits else [line, f"does not fit: {plan.advice}"]
