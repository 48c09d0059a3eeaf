"""How models, plans, reports and comparisons are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eval.diff import SHOWN_FLIPS
from eval.evaluate import Prepared
from eval.run import Run
from eval.tasks.base import LoadOptions, Task
from orin_runner import llama
from orin_runner.console import GIB, print_table
from orin_runner.errors import UserError
from orin_runner.gguf_file import GGUFFile
from orin_runner.memory import MIB, MemoryPlan
from orin_runner.selftest import SelftestResult
from orin_runner.worker import Loaded


def model_line(file: GGUFFile) -> str:
    """Layout, types and proof of a GGUF in one line."""
    sizes = sorted(file.tensor_types.items(), key=lambda item: -item[1][1])
    types = " + ".join(f"{size / GIB:.2f} GiB {name}" for name, (_, size) in sizes)
    altered = file.altered_values
    proof = "unknown origin" if altered is None else f"{altered:,} values altered"
    window = f", window {file.window}" if file.window else ""
    return f"{file.architecture}{window}, {types}, {proof}"


def window_warning(item: Prepared, file: GGUFFile) -> str | None:
    """What a dropped sliding window means for a task's prompts; None where it means nothing."""
    window = file.dropped_window
    if window is None:
        return None
    beyond = sum(question.n_tokens > window for question in item.questions)
    if not beyond:
        return None
    return (
        f"{beyond} of {len(item.questions)} {item.task.name} prompts are longer than the model's {window}-token "
        f"sliding window, which this file's layout drops: their answers are not the model's. "
        f"Convert with --window exact"
    )


def offload_lines(loaded: Loaded, file: GGUFFile, f16_compute: str | None) -> list[str]:
    """Where the layers are, and what the F16 products are computed in.

    Args:
        f16_compute: value of ``GGML_CUDA_CUBLAS_COMPUTE_TYPE``, None where it is not set.
    """
    gpus = [device for device in loaded.devices if device.is_gpu]
    if not gpus:
        return [f"llama.cpp {llama.version()} was built without a GPU backend: computing on the CPU"]
    line = f"{loaded.gpu_layers} of {loaded.n_layers} layers on {gpus[0].name} ({gpus[0].description})"
    if loaded.gpu_layers < loaded.n_layers:
        line += f": THE OTHER {loaded.n_layers - loaded.gpu_layers} RUN ON THE CPU"
    lines = [line]
    if "F16" in file.tensor_types:
        kind = {None: "F16", "auto": "F16", "f16": "F16", "f32": "F32", "bf16": "BF16"}.get(f16_compute, f16_compute)
        lines.append(f"F16 products accumulate in {kind} (GGML_CUDA_CUBLAS_COMPUTE_TYPE={f16_compute or 'auto'})")
    return lines


def plan_lines(plan: MemoryPlan) -> list[str]:
    """One line: does it fit, with what settings; one more where it does not."""
    settings = plan.settings
    line = (
        f"memory plan for {plan.device.name}: {plan.total / MIB:,.0f} of {plan.device.available / MIB:,.0f} MiB; "
        f"n_ctx {settings.n_cells}, n_batch {settings.n_batch}, n_ubatch {settings.n_ubatch}, "
        f"{settings.n_seq} sequences, {settings.n_outputs} outputs; longest request {plan.longest} tokens"
    )
    return [line] if plan.fits else [line, f"does not fit: {plan.advice}"]


def print_plan(plan: MemoryPlan) -> None:
    """The whole plan as a table."""
    rows = []
    for name, size in plan.terms.items():
        where = "unified" if plan.device.unified else "device" if name in plan.on_device else "host"
        rows.append((name + (" (assumed)" if name in plan.assumed else ""), f"{size / MIB:,.0f}", where))
    rows.append(("total", f"{plan.total / MIB:,.0f}", ""))
    rows.append((f"available ({plan.device.note})", f"{plan.device.available / MIB:,.0f}", ""))
    rows.append(("remaining", f"{plan.remaining / MIB:,.0f}", ""))
    print_table(f"{plan.device.name}", ("term", "MiB", "memory"), rows)
    if plan.formula:
        print(f"the device is not here, so nothing is simulated: {plan.formula}")
    for line in plan_lines(plan):
        print(line)


def print_report(sections: dict[str, Any], out: Path) -> None:
    """Accuracy, clocks and token counts of a run."""
    rows = []
    for name, section in sections.items():
        for group, values in section["groups"].items():
            if len(section["groups"]) > 1:
                rows.append((f"  {group}", f"{values['items']:.0f}", _accuracy(values), "", "", "", "", ""))
        tokens, clocks = section["tokens"], section["clocks"]
        rows.append(
            (
                name,
                str(section["items"]),
                _accuracy(section),
                f"{clocks['challenge 2024']:.1f}",
                f"{section['items_per_s']:.1f}",
                f"{tokens['sent']:,}",
                f"{tokens['unique']:,}",
                f"{tokens['computed']:,}",
            )
        )
    header = ("task", "items", "accuracy ± s.e.", "seconds", "items/s", "tokens sent", "unique", "computed")
    print_table("", header, rows)
    for name, section in sections.items():
        if section["failed"]:
            print(f"{name}: {section['failed']} items were not answered and count as wrong; see predictions.jsonl")
        greedy = section.get("greedy")
        if greedy:
            print(
                f"{name}: {greedy['without_decoding']} of {greedy['texts']} greedy texts needed no decode step; "
                f"{greedy['decode_steps_per_text']:.2f} steps a text, "
                f"{greedy['drafted_share']:.1%} of tokens were verified drafts"
            )
        if section.get("resumed"):
            print(f"{name}: {section['resumed']} items were answered before; clocks and tokens are those of the others")
        if section.get("unanswered"):
            print(f"{name}: interrupted with {section['unanswered']} items unanswered; accuracy is of the others")
        if section["tokens"].get("restored"):
            print(f"{name}: {section['tokens']['restored']:,} tokens came from the prompt cache of an earlier run")
        if section["noise"]:
            print(
                f"{name}: {section['near_ties']} near-ties (margin below three times the noise: tree and single "
                f"sequence differ by at most {section['noise']:.2g} in any log-probability)"
            )
    print(f"run written to {out}")


def task_row(task: Task, data: Path | None) -> dict[str, Any]:
    """What ``orin-run tasks`` says of a task; ``rows`` is None where its files are not in ``data``."""
    rows = None
    if data is not None:
        with suppress(UserError):
            rows = len(task.load(LoadOptions(data)))
    names = ("name", "title", "default_shots", "phi3_shots", "metrics", "metric", "licence", "source")
    return {"rows": rows, **{name: getattr(task, name) for name in names}}


def print_tasks(rows: Sequence[dict[str, Any]]) -> None:
    """The registry of tasks."""
    header = ("task", "rows", "shots", "Phi-3's", "metrics", "licence", "source")
    cells = [
        (
            row["name"],
            "" if row["rows"] is None else f"{row['rows']:,}",
            str(row["default_shots"]),
            "" if row["phi3_shots"] is None else str(row["phi3_shots"]),
            ", ".join(row["metrics"]),
            row["licence"],
            row["source"],
        )
        for row in rows
    ]
    print_table("", header, cells, text_columns=(0, 4, 5, 6))


def print_selftest(result: SelftestResult) -> None:
    """How far the tree is from single sequences, and how far it may be."""
    window = f", window {result.window}" if result.window else ""
    print(
        f"{result.requests} random requests of up to {result.longest} tokens{window}: {result.unique:,} unique tokens, "
        f"{result.computed:,} computed"
    )
    print(
        f"largest difference of any log-probability, tree against single sequence: {result.difference:.2g} "
        f"(rounding of single sequences {result.rounding:.2g}, allowed {result.allowed:.2g})"
    )
    print("passed" if result.passed else "FAILED: the tree does not give what single sequences give")


def _accuracy(values: dict[str, float]) -> str:
    return f"{values['accuracy']:.2%} ± {values['stderr']:.2%}"


def print_diff(run: Run, found: Sequence[tuple[Run, dict[str, Any]]]) -> None:
    """A run beside its references."""
    rows = []
    for reference_run, result in found:
        model = reference_run.header.get("model", {})
        against = f"{reference_run.header.get('engine', '?')} {model.get('dtype', '')}".strip()
        for name, section in result["tasks"].items():
            parts = [(f"{name}, {against}", section)]
            for label in ("within", "beyond"):
                part = section.get(f"{label}_window")
                if part and part["items"] and section["beyond_window"]["items"]:
                    parts.append((f"  {label} the window", part))
            for label, part in parts:
                row = [
                    label,
                    str(part["items"]),
                    f"{part['accuracy']:.2%}",
                    f"{part['reference_accuracy']:.2%}",
                    f"{part['drop_points']:+.2f}",
                    f"{part['agreement']:.2%}",
                ]
                if part is section:
                    row.append(f"{section['identical_texts']}/{section['texts']}" if section["texts"] else "")
                    row.append(f"{section['same_token_ids']}/{section['items']}")
                rows.append(row)
    header = ("task, reference", "items", "run", "reference", "drop", "agreement", "same texts", "same token ids")
    print_table("", header, rows)
    for reference_run, result in found:
        for name, section in result["tasks"].items():
            if section["max_logprob_difference"] is not None:
                print(
                    f"{name}, {reference_run.directory}: largest log-probability difference of a choice "
                    f"{section['max_logprob_difference']:.2g}"
                )
            for flip in section["flips"][:SHOWN_FLIPS]:
                margin = "" if flip["margin"] is None else f", margin {flip['margin']:.2g}"
                answers = f"{flip['run']!r}, reference {flip['reference']!r}, right {flip['target']!r}"
                print(f"  {flip['id']}: {answers}{margin}")
    first = found[0][1]
    altered = run.header.get("model", {}).get("altered_values")
    same = {
        True: "the same checkpoint",
        False: "DIFFERENT checkpoints",
        None: "checkpoints that are not known to be the same",
    }
    print(f"drop of average accuracy: {first['mean_drop']:+.2f} points; {same[first['same_checkpoint']]}", end="")
    print("" if altered is None else f"; {altered:,} values altered in the GGUF")
