"""``results_TIME.json``: metrics, counts and what is known of the tasks (``EvalResults`` of lm_eval 0.4.13)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.export.names import Leaf, harness_metric
from eval.report.section import metrics_table
from eval.runs.run import Run, quantized_types
from eval.tasks.registry import TASKS
from orin_runner.model.proof import Verdict


def results(run: Run, tasks: Mapping[str, Sequence[Leaf]]) -> dict[str, Any]:
    """All of it but what the names and the time of the files say.

    Args:
        run: that is exported.
        tasks: of ``names.leaves``.
    """
    settings = run.header.get("settings", {})
    metrics: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[str]] = {}
    configs: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, int]] = {}
    shown: list[Leaf] = []
    for name, leaves in tasks.items():
        task = leaves[0].task
        section = run.report.get("tasks", {}).get(task, {})
        if len(leaves) > 1:
            shown.append(Leaf(name, task, task, [p for leaf in leaves for p in leaf.predictions]))
            groups[name] = [leaf.name for leaf in leaves]
        shown += leaves
        for leaf in leaves:
            configs[leaf.name] = _config(leaf, _shots(task, settings), section)
            counts[leaf.name] = _counts(leaf, section, alone=len(leaves) == 1)
    for leaf in shown:
        head = {"name": leaf.name, "alias": leaf.alias, "sample_len": len(leaf.predictions)}
        metrics[leaf.name] = {**head, **_metrics(leaf)}
    shots = {leaf.name: _shots(leaf.task, settings) for leaf in shown}
    return {
        "results": metrics,
        **({"groups": {name: metrics[name] for name in groups}} if groups else {}),
        "group_subtasks": groups,
        "configs": configs,
        "versions": {},
        "n-shot": {name: n for name, n in shots.items() if n is not None},
        "higher_is_better": {leaf.name: dict.fromkeys(leaf.metrics, True) for leaf in shown},
        "n-samples": counts,
        "config": _model(run),
        "system_instruction": None,
        "fewshot_as_multiturn": False,
        "chat_template_sha": run.header.get("model", {}).get("chat_template_sha256") if settings.get("chat") else None,
    }


def _model(run: Run) -> dict[str, Any]:
    """Model and settings, with the digests and the proof that the harness has no names for."""
    model, settings = run.header.get("model", {}), run.header.get("settings", {})
    types = model.get("types", {})
    return {
        "model": run.header.get("engine", ""),
        "model_args": {"path": model.get("name", "")},
        "model_dtype": model.get("dtype") or "+".join(sorted(types, key=lambda name: -types[name])),
        "model_sha256": model.get("sha256"),
        "checkpoint_sha256": model.get("checkpoint_sha256"),
        "tokenizer_sha256": model.get("tokenizer_sha256"),
        **Verdict.of_run(run.header).keys,
        "lossy": bool(quantized_types(run.header)),
        "command": run.header.get("command", ""),
        "limit": settings.get("first"),
        "limit_evenly_spread": settings.get("limit"),
    }


def _metrics(leaf: Leaf) -> dict[str, float | str]:
    """``METRIC,FILTER`` and ``METRIC_stderr,FILTER``; of one item the harness has no error."""
    found: dict[str, float | str] = {}
    for ours, values in metrics_table(leaf.predictions).items():
        metric, kept = harness_metric(leaf.task, ours)
        found[f"{metric},{kept}"] = values["value"]
        found[f"{metric}_stderr,{kept}"] = values["stderr"] if len(leaf.predictions) > 1 else "N/A"
    return found


def _config(leaf: Leaf, shots: int | None, section: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the task in the words of the harness's YAML files."""
    chosen = any(prediction.logprobs is not None for prediction in leaf.predictions)
    return {
        "task": leaf.name,
        "output_type": "multiple_choice" if chosen else "generate_until",
        "test_split": section.get("split"),
        "num_fewshot": shots,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in leaf.metrics],
    }


def _counts(leaf: Leaf, section: Mapping[str, Any], *, alone: bool) -> dict[str, int]:
    """``n-samples``; how many rows a group has is known only where all rows of its task were asked."""
    effective, rows = len(leaf.predictions), section.get("rows")
    if rows is not None and rows == section.get("items"):
        return {"original": rows if alone else effective, "effective": effective}
    return {"original": rows, "effective": effective} if alone and rows is not None else {"effective": effective}


def _shots(task: str, settings: Mapping[str, Any]) -> int | None:
    """Worked examples before each question; None where a run does not say it."""
    asked, known = settings.get("shots"), TASKS.get(task)
    if asked == "phi3":
        return None if known is None else known.phi3_shots
    if asked is not None:
        return int(asked)
    own = settings.get("questions", {}).get(task)
    if own is not None:
        return 0 if own.get("fewshot_sha256") is None else None
    return None if known is None else known.default_shots
