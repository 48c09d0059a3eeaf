"""``orin-run lm-eval``: any task of lm-evaluation-harness on this engine, as a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.export.harness_run import RESULTS
from eval.report.section import scores_section
from eval.runs.items import ITEMS
from eval.runs.meter import Meter
from eval.runs.prediction import Prediction
from eval.runs.resume import check_folder, check_settings, read_earlier
from eval.runs.run import PAGE
from eval.runs.samples import SAMPLES
from eval.runs.writer import RunWriter
from eval.truncation import TooLong
from orin_runner.cli import defaults, exits
from orin_runner.cli.eval import ENGINE, Resume
from orin_runner.cli.launch import Launch, chosen_places, open_proved
from orin_runner.cli.options import (
    AllowQuantized,
    Config,
    Device,
    Gpus,
    LogItems,
    ModelFile,
    Out,
    RayCluster,
    ReplicaCount,
    TooLongRule,
    device_bytes,
)
from orin_runner.cli.result import run_folder, write_report
from orin_runner.cli.run_header import common_header, model_header
from orin_runner.cli.tokenizer import NamedTokenizer, open_tokenizer
from orin_runner.console import Notes, listed, print_table, say
from orin_runner.errors import UserError
from orin_runner.machine.sensors import find_sensors
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import Verdict
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request
from orin_runner.workers.places import Place, gpus_here
from orin_runner.workers.replicas import Replicas
from orin_runner.workers.supervisor import Supervisor

HarnessArguments = Annotated[
    list[str] | None,
    typer.Option("--arguments", hidden=True, help="Words of the harness's own options, before those that are typed."),
]
"""What ``arguments`` of a run file is."""
FOLDERS = ("--include_path",)
"""Options of the harness that name a folder."""


def lm_eval_command(
    context: typer.Context,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", help="Tasks or groups of lm-evaluation-harness, or YAML files, separated by commas."),
    ] = None,
    model: ModelFile = None,
    named_tokenizer: NamedTokenizer = None,
    allow_quantized: AllowQuantized = False,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    gpus: Gpus = "auto",
    replicas: ReplicaCount = "auto",
    ray: RayCluster = None,
    too_long: TooLongRule = TooLong.TRUNCATE,
    log_items: LogItems = False,
    config: Config = None,  # noqa: ARG001 - defaults.Command has read it
    arguments: HarnessArguments = None,
    *,
    notes: Notes,
) -> None:
    """Run any task of lm-evaluation-harness; all other options are the harness's own (needs the lm-eval extra)."""
    try:
        from eval.harness.answers import ANSWERS, Answers  # noqa: PLC0415 - most runs do without
        from eval.harness.evaluation import Evaluation, tables, write_results  # noqa: PLC0415
        from eval.harness.items import write_harness_items  # noqa: PLC0415
        from eval.harness.model import HarnessModel  # noqa: PLC0415
        from eval.harness.predictions import predictions  # noqa: PLC0415
    except ModuleNotFoundError as error:
        reason = f"this command needs lm-evaluation-harness ({error})"
        raise UserError(reason, "pip install 'orin-run[lm-eval]'") from error
    if too_long is TooLong.SKIP:
        raise UserError(
            "the harness wants an answer to each request: none can be skipped", "--too-long truncate or refuse"
        )
    if resume and out is None:
        raise UserError("--resume needs --out", "name the folder of the run that was broken off")
    # Of an option that is given twice the last one counts.
    arguments = [*(arguments or ()), *context.args]
    if resume and out is not None:
        check_folder(out, resume=True)
    if not tasks:
        raise UserError("no task is named", "orin-run lm-eval --tasks TASK,...")
    out = out or run_folder([*tasks.split(","), "lm-eval"])
    if not resume and (out / RESULTS).exists():
        raise UserError(f"{out} already holds results", "name another folder with --out, or remove it")
    check_folder(out, resume=resume)
    evaluation = Evaluation.of(["--tasks", tasks, *arguments], out)
    settings = {**evaluation.settings, "too_long": too_long.value}
    if resume:
        check_settings(out, settings)
    file, evidence = open_proved(notes, model, allow_quantized=allow_quantized)
    size, tokenizer = device_bytes(device), open_tokenizer(notes, file, named_tokenizer)
    options = _options(context, arguments, file)
    header = {**common_header(ENGINE), "settings": settings, "options": options}
    if resume:
        read_earlier(out, {**header, "model": {"sha256": file.digest(), **tokenizer.header}})
    if resume and (out / RESULTS).exists():
        missing = log_items and not (out / ITEMS).exists()
        changed = f"{ITEMS} is added" if missing else "nothing is changed"
        notes.note(f"{out} holds all answers: nothing is left to go on with, and {changed}")
        if missing:
            write_harness_items(out)
        return
    with (
        Answers(out / ANSWERS) as answers,
        chosen_places(notes, file, gpus, replicas, ray) as where,
        _Folder(notes, out, header, file, tokenizer, evidence.verdict, where, resume=resume) as folder,
    ):
        if resume:
            notes.note(f"{out} holds the answers to {len(answers)} requests")

        def start(asked: Sequence[Request]) -> Supervisor | Replicas:
            supervisor = Launch(notes, file, size, where).started(asked)
            folder.begin(supervisor)
            defaults.write_config(out, context, {**options, "too_long": too_long.value})
            return supervisor

        with closing(HarnessModel(file, start, too_long, tokenizer, answers, folder.progress)) as adapter:
            try:
                results = evaluation.run(adapter)
            except KeyboardInterrupt:
                if not folder.begun:
                    raise
                again = f"orin-run lm-eval --resume --out {shlex.quote(str(out))}"
                raise exits.BrokenOffError(f"{again} goes on") from None
        found = {
            task: predictions(task, samples, results, adapter.prompt) for task, samples in results["samples"].items()
        }
        folder.finish(found, {task: _split(results["configs"][task]) for task in found})
        write_results(results, out)
        if log_items:
            write_harness_items(out)
    if bare := [task for task, of_task in found.items() if not of_task]:
        notes.note(f"{listed(bare)}: no metric is a score of each item from 0 to 1; the numbers are in {RESULTS} only")
    write_report(out)
    for head, *rows in tables(results):
        print_table("", head, rows, text_columns=(0, 2, 4, 5, 7))
    say(f"tokens: {', '.join(f'{name} {n:,}' for name, n in adapter.tokens.items())}")
    say(f"run written to {out}, with {PAGE} and the harness's {RESULTS}")


class _Folder:
    """A run's folder and a meter, from the time at which the model is loaded: what it runs on is known then.

    Args:
        header: of ``run.json``, without the model and what it runs on.
        where: the replicas run.
    """

    def __init__(
        self,
        notes: Notes,
        out: Path,
        header: dict[str, Any],
        file: GGUFFile,
        tokenizer: Tokenizer,
        verdict: Verdict,
        where: Sequence[Place],
        *,
        resume: bool,
    ) -> None:
        self._notes, self._out, self._header, self._where, self._resume = notes, out, header, where, resume
        self._file, self._tokenizer, self._verdict = file, tokenizer, verdict
        self._stack = ExitStack()
        self._writer: RunWriter | None = None
        self._meter: Meter | None = None
        self._workers: list[Supervisor | Replicas] = []

    def begin(self, supervisor: Supervisor | Replicas) -> None:
        """The model is loaded, for the first time or with a longer context."""
        self._workers.append(supervisor)
        if self._writer is not None:
            return
        known = model_header(self._file, self._tokenizer, self._verdict, supervisor)
        self._writer = self._open({**self._header, **known})
        device = supervisor.plan.device
        sensors = find_sensors(cuda=device.cuda, gpus=gpus_here(self._where))
        beyond = any(place.gpus is None for place in self._where)
        unified = device.cuda and device.unified
        meter = Meter(self._out / SAMPLES, sensors, unified=unified, elsewhere=beyond)
        self._meter = self._stack.enter_context(meter)

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return self._writer is not None

    def progress(self, computed: int, answered: int) -> None:
        """So many tokens are computed and requests answered."""
        if self._meter is not None:
            self._meter.update(computed, answered)

    def finish(self, found: dict[str, list[Prediction]], splits: dict[str, str | None]) -> None:
        """Write predictions and report.

        Raises:
            UserError: an earlier part has the answer to another question.
        """
        if self._writer is None:  # an earlier part had asked everything
            model = {"sha256": self._file.digest(), **self._tokenizer.header}
            self._writer = self._open({**self._header, "model": model})
        for prediction in (prediction for of_task in found.values() for prediction in of_task):
            known = self._writer.known.get((prediction.task, prediction.id))
            if known is None:
                self._writer.write(prediction)
            elif (known.target, known.tokens_sha256) != (prediction.target, prediction.tokens_sha256):
                reason = f"{prediction.task} {prediction.id} is another question than in the run to resume"
                raise UserError(reason, "begin another run without --resume")
        sections = {task: {**scores_section(some), "split": splits[task]} for task, some in found.items() if some}
        measured = None if self._meter is None else self._meter.measured()
        restarts, lossy = sum(workers.deaths for workers in self._workers), bool(self._file.quantized)
        report = {"tasks": sections, "restarts": restarts, "warnings": [], "measured": measured, "lossy": lossy}
        self._writer.report(report)

    def _open(self, header: dict[str, Any]) -> RunWriter:
        return self._stack.enter_context(RunWriter(self._out, header, resume=self._resume))

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _options(context: typer.Context, arguments: Sequence[str], file: GGUFFile) -> dict[str, Any]:
    """What ``run.json`` keeps of the command, so that ``--resume`` need not be told it again; paths are absolute."""
    names = ("named_tokenizer", "allow_quantized", "device", "gpus", "replicas", "ray", "log_items")
    found = {name: context.params[name] for name in names}
    if found["named_tokenizer"] and Path(found["named_tokenizer"]).exists():
        found["named_tokenizer"] = str(Path(found["named_tokenizer"]).absolute())
    tasks = (str(Path(name).absolute()) if Path(name).exists() else name for name in context.params["tasks"].split(","))
    return {
        **found,
        "tasks": ",".join(tasks),
        "model": str(file.path.absolute()),
        "arguments": [*_absolute(arguments)],
    }


def _absolute(arguments: Sequence[str]) -> list[str]:
    """``arguments``, with the paths of ``FOLDERS`` absolute."""
    found: list[str] = []
    for word in arguments:
        name, sign, value = word.partition("=")
        if name in FOLDERS and sign:
            found.append(f"{name}={Path(value).absolute()}")
        else:
            found.append(str(Path(word).absolute()) if found and found[-1] in FOLDERS else word)
    return found


def _split(config: dict[str, Any]) -> str | None:
    """Which split a task's configuration asks."""
    return config.get("test_split") or config.get("validation_split")
