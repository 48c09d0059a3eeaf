"""From a GGUF's path to an engine that runs: what every command with a model begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orin_runner.cli.show import model_line, plan_lines
from orin_runner.console import Notes
from orin_runner.default_model import default_model
from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import needs_of
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Request, context_tokens
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor
from orin_runner.workers.worker import Job


def open_model(notes: Notes, model: Path | None) -> GGUFFile:
    """The GGUF named, or the default one; a line says which.

    Raises:
        UserError: there is no default, or the file is no GGUF.
    """
    path, why = (model, "") if model is not None else default_model()
    file = GGUFFile.open(path)
    notes.note(f"model {path}{f' ({why})' if why else ''}: {model_line(file)}")
    return file


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
        DoesNotFitError: not even the shortest request fits; the plan has been shown.
    """
    job = Job(
        model=file.path,
        needs=needs_of(requests),
        lengths=[context_tokens(request) for request in requests],
        device_bytes=device_bytes,
        share=1.0,
        n_threads=cpu_threads(),
        draft=draft,
        prompt_cache=prompt_cache,
    )
    with notes.progress(f"loading {file.path.name}", 1.0) as bar:
        supervisor = Supervisor(job, notes.warn, bar.update)
        try:
            supervisor.start()
        except DoesNotFitError as error:
            for line in plan_lines(error.plan):
                notes.warn(line)
            raise
    return supervisor
