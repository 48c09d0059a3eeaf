"""lm-evaluation-harness's tasks, built offline on local rows, and what they ask of a model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

TASKS = Path(lm_eval.__file__).parent / "tasks"

Row = dict[str, Any]


def local_config(yaml: str, splits: Mapping[str, Sequence[Row]], folder: Path) -> dict[str, Any]:
    """The configuration of a task that comes with the harness, reading local files instead of the hub.

    Args:
        yaml: the task's file, relative to the harness's tasks folder.
        splits: rows in the hub's schema; splits that the task names and are missing here are dropped from it.
        folder: empty, receives one file per split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, rows in splits.items():
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[split] = str(path)
    config = copy.deepcopy(load_yaml(TASKS / yaml))
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if config.get(key) not in splits:
            config.pop(key, None)
    kwargs = {"data_files": files, "cache_dir": str(folder / "cache")}
    return {**config, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}


def local_task(yaml: str, splits: Mapping[str, Sequence[Row]], folder: Path, shots: int | None) -> ConfigurableTask:
    """The task itself, with its requests built; ``shots`` is None for the task's own number."""
    task = ConfigurableTask(config=local_config(yaml, splits, folder))
    if shots is not None or task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", shots or 0)
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    return task


def asked(task: ConfigurableTask) -> list[list[tuple[Any, ...]]]:
    """The arguments of each doc's requests: (context, continuation) per choice, or one (context, generation)."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance.args)
    return [found[i] for i in sorted(found)]
