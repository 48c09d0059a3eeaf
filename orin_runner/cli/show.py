"""How models, plans, reports and comparisons are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eval.diff import CAUSES, SHOWN_FLIPS
from eval.evaluate import Prepared, Status
from eval.report.section import CHALLENGE_2023, CHALLENGE_2024, CHALLENGE_2024_BARE
from eval.tasks.base import LoadOptions, Task
from orin_runner.console import GIB, print_table
from orin_runner.engine.selftest import SelftestResult
from orin_runner.errors import UserError
from orin_runner.machine.memory_plan import MIB, MemoryPlan
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.worker import Loaded


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
    two = "two contexts of " if plan.n_contexts == 2 else ""
    line = (
        f"memory plan for {plan.device.name}: {plan.total / MIB:,.0f} of {plan.device.available / MIB:,.0f} MiB; "
        f"{two}n_ctx {settings.n_cells}, n_batch {settings.n_batch}, n_ubatch {settings.n_ubatch}, "
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


def status_line(status: Status, seconds: float) -> str:
    """Where a task is after ``seconds``: accuracy so far, rate, and tokens that need not be computed."""
    right = f", {status.right / status.done:.1%} right" if status.done else ""
    rate = f", {(status.done - status.resumed) / seconds:.1f} items/s" if seconds > 0 else ""
    saved = f", {status.saved:.0%} of tokens saved" if status.sent else ""
    return f"{status.done}/{status.items} items{right}{rate}{saved}"


def print_report(report: dict[str, Any], out: Path) -> None:
    """Accuracy, clocks, token counts, memory and energy of a run."""
    sections, rows = report["tasks"], []
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
            for line in challenge_clocks(section):
                print(f"{name}: {line}")
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
                f"{name}: {section['near_ties']} near-ties (margin below {section.get('near_tie', 0.0):.2g}; tree and "
                f"single sequence differ by at most {section['noise']:.2g} in any log-probability)"
            )
        if section.get("share_of_prompt_rate"):
            print(f"{name}: {limit_line(section, report['prompt_rate'])}")
    if report.get("measured"):
        print(measured_line(report["measured"]))
    print(f"run written to {out}")


def limit_line(section: dict[str, Any], rate: dict[str, float]) -> str:
    """What share of the machine's limit a task reached."""
    return f"{section['share_of_prompt_rate']:.0%} of this machine's prompt rate ({rate['tokens_per_s']:,.0f} tokens/s)"


def measured_line(measured: dict[str, Any]) -> str:
    """Peaks of memory, and power, of what was known."""
    names = {"peak_host_mib": "its processes", "peak_gpu_mib": "the GPU"}
    if measured["unified"]:
        names["peak_machine_mib"] = "the whole machine"
    memory = [f"{what} {measured[key]:,.0f} MiB" for key, what in names.items() if measured[key] is not None]
    line = f"highest memory in use: {', '.join(memory)}" if memory else "memory in use: not known"
    if measured["joules"] is None:
        return line
    power = f"power {measured['mean_watts']:,.1f} W on average, {measured['peak_watts']:,.1f} W at most"
    return f"{line}; {power}, {measured['joules']:,.0f} J in {measured['power_seconds']:,.0f} s"


def challenge_clocks(section: dict[str, Any]) -> list[str]:
    """Seconds and seconds per item on the challenges' clocks, as both versions of the 2024 rules and 2023's count."""
    asked = section["items"] - section.get("resumed", 0)
    names = {
        CHALLENGE_2024: "data and inference",
        CHALLENGE_2024_BARE: "without data pre-processing",
        CHALLENGE_2023: "from process start",
    }
    return [
        f"{clock.removesuffix(' without data')} clock, {what}: {section['clocks'][clock]:.3f} s, "
        f"{section['clocks'][clock] / max(1, asked):.4f} s an item"
        for clock, what in names.items()
        if clock in section["clocks"]
    ]


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
        f"(rounding of unrelated sequences {result.rounding:.2g}, allowed {result.allowed:.2g})"
    )
    print("passed" if result.passed else "FAILED: the tree does not give what single sequences give")


def _accuracy(values: dict[str, float]) -> str:
    return f"{values['accuracy']:.2%} ± {values['stderr']:.2%}"


def print_diff(results: Sequence[dict[str, Any]]) -> None:
    """A run beside its references: accuracy and its drop, the flips by cause, the flips themselves."""
    rows, flips = [], []
    for result in results:
        against = f"{result['reference_engine'] or '?'} {result['reference_dtype'] or ''}".strip()
        against += ", window off" if result["reference_window_off"] else ""
        for name, section in result["tasks"].items():
            texts = f"{section['identical_texts']}/{section['texts']}" if section["texts"] else ""
            same = (texts, f"{section['same_token_ids']}/{section['items']}")
            rows.append((f"{name}, {against}", *_accuracies(section), _yes(section["within_max_drop"]), *same))
            flips.append((f"{name}, {against}", *_flip_counts(section)))
            for label in ("within", "beyond"):
                part = section.get(f"{label}_window")
                if part and part["items"] and section["beyond_window"]["items"]:
                    rows.append((f"  {label} the window", *_accuracies(part), "", "", ""))
        if len(result["tasks"]) > 1:
            rows.append((f"all items, {against}", *_accuracies(result["all"]), "", "", ""))
            flips.append((f"all items, {against}", *_flip_counts(result["all"])))
            drop = f"{result['mean_drop']:+.2f}", _interval(result["mean_drop_interval"])
            judged = _yes(result["within_max_drop"])
            rows.append((f"average of {len(result['tasks'])} tasks, {against}", "", "", "", *drop, "", judged, "", ""))
    limit = f"≤ {results[0]['max_drop']:g}"
    numbers = ("items", "run", "reference", "drop", "95 % interval", "agreement", limit)
    print_table("", ("task, reference", *numbers, "same texts", "same token ids"), rows)
    causes = (cause.replace("_", " ") for cause in CAUSES)
    print_table("", ("task, reference", "flips", "lost", "gained", "McNemar p", *causes), flips)
    for result in results:
        for name, section in result["tasks"].items():
            for line in _task_lines(f"{name}, {result['reference']}", section):
                print(line)
        if "shares" in result:
            for name, share in {**result["shares"]["tasks"], "average": result["shares"]["mean"]}.items():
                print(
                    f"{name}, {result['reference']}: the window's share of the drop is {share['window']:+.2f} points, "
                    f"the numerics' {share['numerics']:+.2f} (window off: {result['shares']['window_off']})"
                )
    first = results[0]
    same_checkpoint = {
        True: "the same checkpoint",
        False: "DIFFERENT checkpoints",
        None: "checkpoints that are not known to be the same",
    }[first["same_checkpoint"]]
    altered = "" if first["altered_values"] is None else f"; {first['altered_values']:,} values altered in the GGUF"
    print(f"drop of average accuracy: {first['mean_drop']:+.2f} points; {same_checkpoint}{altered}")


def _accuracies(part: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(part["items"]),
        f"{part['accuracy']:.2%}",
        f"{part['reference_accuracy']:.2%}",
        f"{part['drop_points']:+.2f}",
        _interval(part["drop_interval"]),
        f"{part['agreement']:.2%}",
    )


def _flip_counts(part: dict[str, Any]) -> tuple[str, ...]:
    counts = (part["flips_in_all"], part["lost"], part["gained"])
    return (*map(str, counts), f"{part['mcnemar_p']:.3g}", *(str(part["causes"][cause]) for cause in CAUSES))


def _task_lines(label: str, section: dict[str, Any]) -> list[str]:
    lines = []
    if section["max_logprob_difference"] is not None:
        lines.append(f"{label}: largest log-probability difference of a choice {section['max_logprob_difference']:.2g}")
    if section["flips"]:
        known = section["near_tie"]
        near = "not known, no report.json says it" if known is None else f"a margin below {known:.2g} in either run"
        lines.append(f"{label}: a near tie is {near}")
    for flip in section["flips"][:SHOWN_FLIPS]:
        margin = "" if flip["margin"] is None else f", margin {flip['margin']:.2g}"
        answers = f"{flip['run']!r}, reference {flip['reference']!r}, right {flip['target']!r}"
        lines.append(f"  {flip['id']}: {answers}{margin}: {flip['cause'].replace('_', ' ')}")
    return lines


def _interval(limits: Sequence[float]) -> str:
    return f"{limits[0]:+.2f} to {limits[1]:+.2f}"


def _yes(within: bool) -> str:
    return "yes" if within else "NO"
