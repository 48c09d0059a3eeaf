"""What is true of a run as a whole, as tables of facts, and what of it differs between runs that are compared."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from eval.pairs import differences
from eval.report.charts import lines
from eval.runs.items import ITEMS
from eval.runs.measured import summary
from eval.runs.run import PREDICTIONS, REPORT, Run, contradictions, lossy_line
from orin_runner.model.proof import Proof, Verdict

CONVERSION = {
    "file": "name",
    "layout": "architecture",
    "tensors": "types",
    "number format": "dtype",
    "values altered": "altered_values",
    "tokenizer": "tokenizer",
    "tokenizer digest": "tokenizer_sha256",
    "proof": "proof",
    "proof, why no more": "proof_detail",
    "file digest": "sha256",
    "checkpoint digest": "checkpoint_sha256",
    "sliding window": "window",
    "window honoured": "window_honoured",
}
"""Facts of ``model`` of ``run.json``, by what the page calls them."""
OF_ONE_RUN = ("time", "command", "options", "memory", "model", "format", "resumed", "shard", "shards", "replicas")
"""Keys of ``run.json`` that say when and where, or of which other facts are shown; none that tells settings apart."""
PLANNED = {"KV cache": "KV", "compute": "compute", "outputs": "output"}
"""Terms of a plan, by what ``allocated_mib`` calls them."""
MIB = 1 << 20


def describe(run: Run, name: str) -> dict[str, Any]:
    """What is true of a run as a whole, as JSON."""
    header = {key: value for key, value in run.header.items() if key not in {"model", "memory"}}
    model, memory, measured = run.header.get("model", {}), run.header.get("memory"), _measured(run)
    return {
        "name": name,
        "directory": str(run.directory),
        "engine": header.get("engine", ""),
        "model": model.get("name", ""),
        "time": header.get("time", ""),
        "ended": bool(run.report),
        "warnings": [
            *_damage(run),
            *_contradictions(run),
            *filter(None, [lossy_line(run.header)]),
            *run.report.get("warnings", []),
        ],
        "prompt_rate": run.report.get("prompt_rate"),
        "restarts": run.report.get("restarts", 0),
        "conversion": _conversion(model),
        "memory": None if memory is None else _memory(memory, measured),
        "measured": measured,
        "over_time": lines(run.samples, unified=_unified(run)),
        "environment": _flat(header),
        "prompts": _prompts(run),
    }


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings and facts that are not the same in all runs that say them, settings first, with each run's value.

    None stands for what a run does not say, or has not set.
    """
    found = {}
    for part in ("settings", None):
        tables = [_comparable(run, part) for run in runs]
        for name in dict.fromkeys(name for table in tables for name in table):
            said = [table[name] for table in tables if name in table]
            if any(value != said[0] for value in said):
                found[name] = [table.get(name) for table in tables]
    return found


def asked_differently(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """For each run that asked otherwise than the first one, a line: its accuracy is not of the same prompts."""
    found = []
    for run, name in zip(runs[1:], names[1:], strict=True):
        if said := differences(runs[0], run):
            found.append(f"{names[0]} and {name} were not asked the same: {'; '.join(said)}")
    return found


def _comparable(run: Run, part: str | None) -> dict[str, Any]:
    """What ``differing`` compares: the settings, unset ones too, or without a ``part`` all else."""
    if part is not None:
        asked = {name: value for name, value in run.header.get(part, {}).items() if name not in OF_ONE_RUN}
        return {
            name.replace("_", " "): next(iter(_flat({name: value}).values()), None) for name, value in asked.items()
        }
    header = {name: value for name, value in run.header.items() if name not in (*OF_ONE_RUN, "settings")}
    facts = {**_conversion(run.header.get("model", {})), **_flat(header)}
    if "sliding window" not in facts:  # there is nothing to honour
        facts.pop("window honoured", None)
    return facts


def _prompts(run: Run) -> dict[str, Any]:
    """Whether the run holds its prompts, and how it gets them."""
    command = f"orin-run eval --resume --out {shlex.quote(str(run.directory))} --log-items"
    if run.header.get("engine") == "transformers":
        command = "orin-run reference … --log-items"
    return {"logged": (run.directory / ITEMS).exists(), "command": None if "shards" in run.header else command}


def _damage(run: Run) -> list[str]:
    verdict = Verdict.of_run(run.header)
    said = f"the model is damaged, and its answers count for nothing: {verdict.detail}"
    return [said] if verdict.proof is Proof.REFUTED else []


def _contradictions(run: Run) -> list[str]:
    found = contradictions(run.report, run.predictions.values())
    return [
        f"{task}: {REPORT} says an accuracy of {said:.2%}, the answers in {PREDICTIONS} have {own:.2%}: "
        "one of them was changed afterwards"
        for task, (said, own) in found.items()
    ]


def _measured(run: Run) -> dict[str, Any] | None:
    """What a run's samples come to; a killed run has no report, but samples. Older reports know less."""
    measured = run.report.get("measured") or summary(run.samples, unified=_unified(run))
    return measured and {"energy": {}, "gpus": [], **measured}


def _unified(run: Run) -> bool:
    device = run.header.get("memory", {}).get("device", {})
    return bool(device.get("cuda") and device.get("unified"))


def _conversion(model: dict[str, Any]) -> dict[str, Any]:
    found = {label: model[key] for label, key in CONVERSION.items() if model.get(key) is not None}
    if "tensors" in found:
        found["tensors"] = ", ".join(f"{count} {kind}" for kind, count in found["tensors"].items())
    if "checkpoint_sha256" in model and model.get("altered_values") is not None:
        # A GGUF of this project's converter is known by its manifest's digest.
        found = {"manifest digest" if k == "file digest" else k: v for k, v in found.items()}
    return found


def _memory(memory: dict[str, Any], measured: dict[str, Any] | None) -> dict[str, Any]:
    """The plan's terms in MiB, and beside them what was allocated and measured."""
    device, allocated = memory.get("device", {}), memory.get("allocated_mib") or {}
    return {
        "terms": {name: size / MIB for name, size in memory.get("terms", {}).items()},
        "allocated": {name: allocated[key] for name, key in PLANNED.items() if key in allocated},
        "assumed": memory.get("assumed", []),
        "total": memory.get("total", 0) / MIB,
        "available": device.get("available", 0) / MIB,
        "device": device.get("name", ""),
        "settings": memory.get("settings", {}),
        "measured": _peak(measured, cuda=bool(device.get("cuda"))),
    }


def _peak(measured: dict[str, Any] | None, *, cuda: bool) -> dict[str, Any] | None:
    """The most that was in use of the memory that a plan is for: ``mib``, and of whom or where."""
    if not measured:
        return None
    several = len(measured["gpus"]) > 1
    key, where = "host_mib", "by orin-run's processes"
    if measured.get("unified"):
        key, where = "machine_mib", "on the machine"
    elif cuda or measured.get("peak_gpu_mib"):
        key, where = "gpu_mib", "on one GPU" if several else "on the GPU"
    mib = measured.get(f"peak_{key}")
    return {"mib": mib, "where": where} if mib else None


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested objects as one table of ``outer inner: value``; what is not set is left out."""
    if isinstance(value, dict):
        rows: dict[str, Any] = {}
        for key, inner in value.items():
            rows |= _flat(inner, f"{name} {key}".strip().replace("_", " "))
        return rows
    if isinstance(value, list):
        parts = (" ".join(map(str, item.values())) if isinstance(item, dict) else str(item) for item in value)
        return {name: "; ".join(parts)} if value else {}
    return {} if value is None else {name: value}
