"""The page of the whole result, out of its run folders: no figure on it is typed but the model card's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.smollm2.checkpoint import PACKAGE, Expanded
from benchmarks.smollm2.commands import finished
from eval.diff import diff
from eval.pairs import CAUSES
from eval.runs.run import Run
from eval.tasks.registry import TASKS
from orin_runner.files import write_whole

ALL, FEWER, FOUR_BIT, REFERENCE = "16-bit", "16-bit-spread", "4-bit", "float32"
"""Folders of the sides."""
NEAR_TIE = "near_tie"


@dataclass(frozen=True, slots=True)
class Published:
    """A figure of the model card (huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), in percent.

    Attributes:
        name: as the card has it.
        tasks: what is nearest to it here.
        why: what is asked otherwise.
        base: whether it is the base model's, which the card has no figure of the instruct model for.
    """

    name: str
    value: float
    tasks: tuple[str, ...]
    why: str
    base: bool = False


OTHER_WEIGHTS = "the base model's: other weights"
NO_TEXT_COUNTS = (
    "the card does not say how an answer is taken from a text; lm-evaluation-harness's bbh_fewshot, which bbh_direct "
    "follows, takes ' (A)' for another text than '(A)', and a byte-level tokenizer's texts begin with that space"
)
CARD = (
    Published("HellaSwag", 40.9, ("hellaswag",), "lighteval's prompt"),
    Published("ARC (Average)", 37.3, ("arc_easy", "arc_challenge"), "average of ARC-Easy and ARC-Challenge"),
    Published("PIQA", 66.3, ("piqa",), "lighteval's prompt"),
    Published("MMLU (cloze)", 29.3, ("mmlu",), "no examples, scores the answers' texts; here 5 examples, letters"),
    Published("BBH (3-shot)", 28.2, ("bbh", "bbh_direct"), NO_TEXT_COUNTS),
    Published("GSM8K (5-shot)", 1.4, ("gsm8k",), "lighteval's prompt"),
    Published("CommonsenseQA", 33.9, ("commonsense_qa",), OTHER_WEIGHTS, base=True),
    Published("Winogrande", 51.3, ("winogrande",), OTHER_WEIGHTS, base=True),
    Published("OpenBookQA", 34.6, ("openbookqa",), OTHER_WEIGHTS, base=True),
)


@dataclass(frozen=True, slots=True)
class Sides:
    """The runs of one task.

    Attributes:
        run: all rows in 16 bit.
        four_bit: the same rows by the quantized file.
        reference: transformers.
        same: 16 bit on the reference's rows.
    """

    task: str
    run: Run
    four_bit: Run | None
    reference: Run | None
    same: Run

    @classmethod
    def of(cls, work: Path, task: str) -> Sides:
        four_bit, reference, fewer = (_opened(work / side / task) for side in (FOUR_BIT, REFERENCE, FEWER))
        run = Run.open(work / ALL / task)
        return cls(task, run, four_bit, reference, fewer or run)

    def section(self, run: Run | None = None) -> dict[str, Any]:
        found: dict[str, Any] = (run or self.run).report["tasks"][self.task]
        return found


def write_page(work: Path, origin: Expanded, out: Path, remark: str | None = None) -> None:
    """Write the page of all tasks in ``work`` whose 16-bit run has ended.

    Args:
        work: holds a folder for each side, and in these one for each task.
        origin: of the weights.
        out: the page.
        remark: one more condition of the measurement, on a line of its own.
    """
    found = [Sides.of(work, task) for task in TASKS if finished(work / ALL / task)]
    head = _head(found, origin, remark)
    parts = (head, _accuracy(found), _card(found), _agreement(found), _time(found), _four_bit(found))
    write_whole(out, "\n".join(line for part in parts for line in part))


def _opened(folder: Path) -> Run | None:
    return Run.open(folder) if finished(folder) else None


def _head(found: Sequence[Sides], origin: Expanded, remark: str | None) -> list[str]:
    header = found[0].run.header
    machines: dict[str, list[str]] = {}
    for sides in found:
        machines.setdefault(_machine(sides.run.header), []).append(sides.task)
    versions = dict(header["versions"])
    for sides in found:
        versions |= {} if sides.reference is None else sides.reference.header["versions"]
    proofs = sorted({sides.run.header["model"]["proof"] for sides in found})
    return [
        "# SmolLM2-135M-Instruct, expanded from a 4-bit file",
        "",
        "Written by `python -m benchmarks.smollm2.whole_result` from its run folders; do not edit.",
        "",
        f"* Origin: {origin.line}. The file is the one in the PyPI package `{PACKAGE}`.",
        f"* Model: `{header['model']['name']}`; {header['model']['altered_values']} values altered by the conversion.",
        f"* Proof: {', '.join(proofs)}.",
        *(
            f"* Machine{'' if len(machines) == 1 else ' of ' + ', '.join(tasks)}: {machine}."
            for machine, tasks in machines.items()
        ),
        f"* Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        *([] if remark is None else [f"* {' '.join(remark.split())}"]),
        "",
    ]


def _machine(header: dict[str, Any]) -> str:
    devices = ", ".join(device["description"] for device in header["device"])
    return f"{devices}; {header['machine']}; {header['time'][:10]}"


def _accuracy(found: Sequence[Sides]) -> list[str]:
    rows = []
    for sides in found:
        section = sides.section()
        for metric, value in section["metrics"].items():
            other = None if sides.four_bit is None else sides.section(sides.four_bit)["metrics"][metric]
            rows.append((sides.task, _rows(section), metric, _percent(value), _percent(other)))
    return [
        "## Accuracy",
        "",
        "Percent ± standard error. The 4-bit side is the file itself, through `--allow-quantized`.",
        "",
        *_table(("task", "rows", "metric", "16 bit", "4 bit"), rows, 3),
    ]


def _card(found: Sequence[Sides]) -> list[str]:
    by_name = {sides.task: sides for sides in found}
    rows = []
    for published in CARD:
        here = [
            f"{task} {name} {_percent(value)}"
            for task in published.tasks
            if task in by_name
            for name, value in by_name[task].section()["metrics"].items()
            if name not in {"acc_bytes", "acc_tokens"}
        ]
        if here:
            model = "base" if published.base else "instruct"
            rows.append((published.name, model, f"{published.value}", "; ".join(here), published.why))
    return [
        "## Beside the model card",
        "",
        "The card's figures were measured with lighteval on the published weights, without examples unless it says so.",
        "Here the weights come from a 4-bit file, and the prompts are those of docs/tasks.md. The card does not say",
        "whether its accuracies are divided by the answers' lengths. Its IFEval and MT-Bench have no task here.",
        "",
        *_table(("card", "model", "card, %", "here, %", "asked otherwise"), rows, 2, 1),
    ]


def _agreement(found: Sequence[Sides]) -> list[str]:
    rows, flips = [], []
    items = turned = near = 0
    for sides in found:
        if sides.reference is None:
            continue
        section = diff(sides.same, sides.reference)["tasks"][sides.task]
        theirs, causes = sides.section(sides.reference), section["causes"]
        other = {cause: n for cause, n in causes.items() if n and cause not in {NEAR_TIE, "unexplained"}}
        texts = f"{section['identical_texts']}/{section['texts']}" if section["texts"] else ""
        largest = section["max_logprob_difference"]
        rows.append(
            (
                sides.task,
                _rows(theirs),
                _percent(_first(sides.section(sides.same))),
                _percent(_first(theirs)),
                f"{100 * section['agreement']:.2f} %",
                str(section["flips_in_all"]),
                str(causes[NEAR_TIE]),
                str(causes["unexplained"]),
                ", ".join(f"{n} {cause.replace('_', ' ')}" for cause, n in other.items()),
                f"{section['same_token_ids']}/{section['items']}",
                texts,
                "" if largest is None else f"{largest:.2g}",
            )
        )
        items, turned, near = (
            items + section["items"],
            turned + section["flips_in_all"],
            near + causes[NEAR_TIE],
        )
        flips += [
            (sides.task, flip["id"], *(_code(flip[key]) for key in ("run", "reference", "target")), *_margins(flip))
            for flip in section["flips"]
            if flip["cause"] != NEAR_TIE
        ]
    names = ("task", "rows", "16 bit", "float32", "agreement", "flips", "near-ties", "unexplained", "other causes")
    heads = ("task", "item", "16 bit", "float32", "right", "lead", "lead there", "noise of both", "cause")
    spread = [sides.task for sides in found if sides.same is not sides.run]
    return [
        "## Agreement with transformers in float32, item by item",
        "",
        f"{items:,} items, {turned:,} flips: {near:,} near-ties, {turned - near:,} others. A flip is another answer,",
        "right or wrong. It is a near-tie where the leads of both answers together are less than the measured noise.",
        f"Its cause is the first of these: {', '.join(CAUSES).replace('_', ' ')}.",
        *(
            [f"Of {', '.join(spread)} fewer rows, evenly spread, or shorter texts, the same on both sides."]
            * bool(spread)
        ),
        "",
        *_table((*names, "same token ids", "same texts", "largest difference of a log-probability"), rows, 2),
        *(["Flips that are no near-ties:", "", *_table(heads, flips, 5, 1)] if flips else []),
    ]


def _time(found: Sequence[Sides]) -> list[str]:
    rows = []
    for sides in found:
        section, tokens = sides.section(), sides.section()["tokens"]
        theirs = None if sides.reference is None else sides.section(sides.reference)
        rows.append(
            (
                sides.task,
                f"{section['items']:,}",
                *(f"{tokens[key]:,}" for key in ("sent", "unique", "computed")),
                f"{tokens['computed'] / tokens['unique']:.4f}",
                f"{section['clocks']['challenge 2024']:.1f}",
                f"{section['items_per_s']:.1f}",
                f"{section['computed_tokens_per_s']:,.0f}",
                "" if theirs is None else f"{theirs['items']:,}",
                "" if theirs is None else f"{theirs['clocks']['challenge 2024']:.1f}",
                "" if theirs is None else f"{theirs['items_per_s']:.1f}",
            )
        )
    ours = ("items", "sent", "unique", "computed", "computed / unique", "seconds", "items/s", "tokens/s")
    return [
        "## Tokens and time",
        "",
        "`sent`: what a tool without sharing computes. Seconds are from the first row read to the last score, without",
        "loading the model; tokens/s are computed ones. transformers in float32 on the same machine stands beside as",
        "what the comparison took, not as a race: its type is another one.",
        "",
        *_table(("task", *ours, "transformers' items", "seconds", "items/s"), rows, 1),
    ]


def _four_bit(found: Sequence[Sides]) -> list[str]:
    rows = []
    for sides in found:
        if sides.four_bit is None:
            continue
        section = diff(sides.four_bit, sides.run)["tasks"][sides.task]
        low, high = section["drop_interval"]
        rows.append(
            (
                sides.task,
                str(section["metric"]),
                f"{100 * section['reference_accuracy']:.2f}",
                f"{100 * section['accuracy']:.2f}",
                f"{section['drop_points']:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                f"{100 * section['agreement']:.2f} %",
            )
        )
    return [
        "## The 4-bit file against its expansion",
        "",
        "The same weights but for the rounding to bfloat16. llama.cpp rounds the activations that it multiplies with",
        "quantized weights to 8 bits.",
        "",
        *_table(("task", "metric", "16 bit", "4 bit", "drop, points", "95 % interval", "agreement"), rows, 2),
    ]


def _first(section: dict[str, Any]) -> dict[str, float]:
    """What the task is judged by."""
    return {"value": section["accuracy"], "stderr": section["stderr"]}


def _percent(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{100 * value['value']:.2f} ± {100 * value['stderr']:.2f}"


def _rows(section: dict[str, Any]) -> str:
    """How many of how many rows, and of which split."""
    items, rows, split = section["items"] + section.get("skipped", 0), section["rows"], section["split"] or ""
    return f"{f'all {rows:,}' if items == rows else f'{items:,} of {rows:,}'} {split}".strip()


def _margins(flip: dict[str, Any]) -> tuple[str, ...]:
    numbers = (flip[key] for key in ("margin", "reference_margin", NEAR_TIE))
    return (*("" if number is None else f"{number:.3g}" for number in numbers), flip["cause"].replace("_", " "))


def _code(text: object) -> str:
    """Of an answer what fits into a cell."""
    shown = " ".join(str(text).replace("`", "'").replace("|", "/").split())
    return f"`{shown[:40]}{'…' if len(shown) > 40 else ''}`"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], n_text: int, n_last: int = 0) -> list[str]:
    """Lines of a table and an empty one; the first ``n_text`` columns and the last ``n_last`` hold text."""
    right = len(header) - n_text - n_last
    rule = ["---"] * n_text + ["---:"] * right + ["---"] * n_last
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)] + [""]
