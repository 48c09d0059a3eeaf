"""lm-evaluation-harness's own evaluation, with the engine as its model."""

from __future__ import annotations

import io
import json
import logging
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval import evaluator, simple_evaluate
from lm_eval._cli import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.loggers.utils import get_commit_from_path
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable, make_table, setup_logging

from eval.export.harness_run import RESULTS, samples_file
from eval.harness.model import HarnessModel
from orin_runner.errors import RunError, UserError, first_line
from orin_runner.files import write_whole

OURS = "model, batches and memory are the engine's own"
LOGS = "results go to --out"
REFUSED = {
    **dict.fromkeys(("model", "model_args", "batch_size", "max_batch_size", "device", "trust_remote_code"), OURS),
    **dict.fromkeys(("output_path", "wandb_args", "trackio_args", "hf_hub_log_args", "wandb_config_args"), LOGS),
    "show_config": "results.json has the configuration",
    "use_cache": "the run keeps its answers, and --resume goes on with them",
}
"""The harness's options that have no meaning here, and why."""
PASSED = (
    *("tasks", "num_fewshot", "limit", "samples", "check_integrity", "write_out"),
    *("system_instruction", "apply_chat_template", "fewshot_as_multiturn", "gen_kwargs", "predict_only"),
    *("confirm_run_unsafe_code", "metadata"),
)
SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
FURTHER = (
    *("system_instruction", "apply_chat_template", "fewshot_as_multiturn", "gen_kwargs", "predict_only"),
    *("metadata", "seed"),
)
"""Options that change what is asked, and that no setting of ``run.json`` stands for."""
HELP = "lm-eval run --help and lm-eval ls tasks say what there is"
HUB = "run it once where the hub answers, whose cache serves from then on; or name a YAML task that reads local files"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the harness is asked to evaluate.

    Attributes:
        names: of tasks and groups, and YAML files.
    """

    names: Sequence[str]
    _config: EvaluatorConfig
    _manager: TaskManager

    @classmethod
    def of(cls, options: Sequence[str], out: Path) -> Evaluation:
        """What the harness's own command would do.

        Args:
            options: its command-line options (``--tasks``, ``--num_fewshot``, ``--limit`` and so on).
            out: the run's folder.

        Raises:
            UserError: the harness does not know a task, or an option is not its own here.
        """
        setup_logging(logging.WARNING)  # else the harness does it, later
        theirs = logging.getLogger("lm_eval")
        theirs.handlers.clear()  # what it says goes where all libraries' messages go
        theirs.propagate = True
        parsed = _parsed(options)
        for name, instead in REFUSED.items():
            if vars(parsed).get(name):
                raise UserError(f"lm-eval does not take --{name}", instead)
        parsed.output_path = str(out)
        try:
            config = EvaluatorConfig.from_cli(parsed)
            manager = config.process_tasks()
        except Exception as error:  # a task's file is a program: it may name any function, and raise anything
            raise UserError(first_line(error), HELP) from error
        names = [name for word in parsed.tasks for name in word.split(",")]
        if not config.tasks:
            raise UserError(f"--tasks {','.join(names)!r} names no task", HELP)
        return cls(names, config, manager)

    @property
    def settings(self) -> dict[str, Any]:
        """What ``run.json`` says of what is asked."""
        config = self._config
        limit = config.limit
        further = {name: value for name in FURTHER if (value := getattr(config, name)) not in (None, False, {}, [])}
        return {
            "tasks": [Path(name).name if Path(name).exists() else name for name in self.names],
            "shots": config.num_fewshot,
            "chat": bool(config.apply_chat_template),
            "limit": int(limit) if limit is not None and limit >= 1 else limit,
            "documents": _plain(config.samples),
            "lm_eval": _plain(further),
        }

    def run(self, model: HarnessModel) -> dict[str, Any]:
        """The harness's results, with ``samples``.

        Raises:
            UserError: a task cannot be asked.
        """
        # The harness asks git for the commit of the folder, which writes to standard error where there is none.
        evaluator.get_git_commit_hash = lambda: get_commit_from_path(Path.cwd())
        try:
            results: dict[str, Any] = simple_evaluate(
                model,
                task_manager=self._manager,
                log_samples=True,
                **{name: getattr(self._config, name) for name in PASSED},
                **dict(zip(SEEDS, self._config.seed or [None] * len(SEEDS), strict=True)),
                **self._config.cache_requests,
            )
        except ModuleNotFoundError as error:
            raise UserError(
                f"a task needs a package that is not installed ({error})", f"pip install {error.name}"
            ) from error
        except (UserError, RunError):
            raise
        except Exception as error:  # as above, and the harness checks little
            if model.asked:
                raise
            reason = f"cannot ask --tasks {','.join(self.names)}: {type(error).__name__}: {first_line(error)}"
            hint = HUB if isinstance(error, ConnectionError) else HELP
            raise UserError(f"lm-evaluation-harness {reason}", hint) from error
        return results


def _parsed(options: Sequence[str]) -> Namespace:
    parser = HarnessCLI()._parser  # noqa: SLF001 - there is no public way to its options
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            parsed: Namespace = parser.parse_args(["run", *options])
            return parsed
    except SystemExit as ended:
        if not ended.code:  # --help, which argparse has printed
            raise
        reason = " ".join(said.getvalue().rpartition(" error: ")[2].split())
        raise UserError(f"lm-eval: {reason}", HELP) from None


def write_results(results: dict[str, Any], out: Path) -> None:
    """Write ``results.json`` and a ``samples_TASK.jsonl`` for each task, in the harness's form.

    Raises:
        OSError: a file cannot be written; it is named.
    """
    for task, rows in results["samples"].items():
        lines = (json.dumps(row, default=handle_non_serializable, ensure_ascii=False) for row in rows)
        write_whole(samples_file(out, task), "".join(f"{line}\n" for line in lines))
    rest = {name: value for name, value in results.items() if name != "samples"}
    write_whole(out / RESULTS, json.dumps(rest, indent=1, default=handle_non_serializable))


def tables(results: dict[str, Any]) -> list[list[list[str]]]:
    """The harness's own tables of its results, of tasks and of groups: rows of cells, the header first."""
    columns = ("results", "groups") if "groups" in results else ("results",)
    return [_cells(make_table(results, column)) for column in columns]


def _cells(table: str) -> list[list[str]]:
    """The cells of a table in Markdown; blanks before the first one say how deep in its group a task is."""
    head, _, *rows = [line.strip("|").split("|") for line in table.splitlines()]
    cells = [[first.rstrip(), *(cell.strip() for cell in others)] for first, *others in rows]
    return [[name.strip() for name in head], *cells]


def _plain(value: Any) -> Any:
    """``value`` as JSON has it, by the harness's rules."""
    return json.loads(json.dumps(value, default=handle_non_serializable))
