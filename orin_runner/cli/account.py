"""The account of a run: in words, what its scores rest on, how long they took, and what of the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.report.page import ENERGY, digits
from eval.report.section import CHALLENGE_2023, CHALLENGE_2024, CHALLENGE_2024_BARE
from eval.tasks.registry import TASKS
from orin_runner.machine.sensors import COUNTERS

CLOCKS = {
    CHALLENGE_2024: "data and inference",
    CHALLENGE_2024_BARE: "without data pre-processing",
    CHALLENGE_2023: "from process start",
}
"""The challenges' clocks, as both versions of the 2024 rules and 2023's count, and what each counts."""
GPU_WORDS = (
    ("peak_mib", ",.0f", "MiB at most"),
    ("mean_watts", ",.1f", "W"),
    ("mean_load", ".0f", "% load"),
    ("mean_sm_mhz", ",.0f", "MHz on average"),
    ("max_celsius", ".0f", "°C at most"),
)
"""Of a GPU in ``measured``: what a line says of it, with how many digits, in which words."""


def task_lines(section: dict[str, Any], rate: dict[str, float] | None) -> list[str]:
    """What a task's row does not say.

    Which rows were asked, what was truncated, skipped or failed, its clocks, its greedy texts, its near-ties.

    Args:
        section: of ``report.json``.
        rate: the run's ``prompt_rate``, if it was measured.
    """
    lines = [rows_line(section)] if section.get("rows") else []
    lines += reservations(section)
    if greedy := section.get("greedy"):
        lines += challenge_clocks(section)
        lines.append(
            f"{greedy['texts']} greedy texts: {greedy['decode_steps_per_text']:.2f} decode steps a text, "
            f"{greedy['drafted_share']:.1%} of tokens were verified drafts"
        )
    if section.get("protocol"):
        lines += protocol_lines(section)
    if section.get("resumed"):
        of_whom = "of all parts of the run"
        if section.get("without_record"):
            of_whom = f"without those of {section['without_record']} items, of which no record was left"
        lines.append(f"{section['resumed']} items were answered before; clocks and tokens are {of_whom}")
    if section["tokens"].get("restored"):
        lines.append(f"{section['tokens']['restored']:,} tokens came from the prompt cache of an earlier run")
    if section.get("replicas"):
        shares = (f"{each['name']} {each['items']:,} items in {each['ended_s']:.1f} s" for each in section["replicas"])
        lines.append(f"replicas: {', '.join(shares)}")
    return [*lines, *noise_lines(section), *rate_lines(section, rate)]


def notable_lines(name: str, section: dict[str, Any], rate: dict[str, float] | None) -> list[str]:
    """Those of the lines of the task ``name`` without which its score is misread, or that were asked for."""
    usual = TASKS[name].splits[:1] if name in TASKS else ()
    another = usual and section.get("rows") and section["split"] not in usual
    return [*([rows_line(section)] if another else []), *reservations(section), *rate_lines(section, rate)]


def reservations(section: dict[str, Any]) -> list[str]:
    """Items whose answers are not what the score would make one believe."""
    lines = []
    if truncated := section.get("truncated"):
        lines.append(
            f"{truncated['items']:,} items had their prompts truncated, by {truncated['tokens']:,} tokens in all: of "
            f"these {accuracy(truncated)}"
        )
    if section.get("skipped"):
        lines.append(f"{section['skipped']:,} items were skipped and are in no accuracy; see predictions.jsonl")
    if section["failed"]:
        lines.append(f"{section['failed']} items were not answered and count as wrong; see predictions.jsonl")
    if section.get("unanswered"):
        lines.append(f"interrupted with {section['unanswered']} items unanswered; accuracy is of the others")
    return lines


def rate_lines(section: dict[str, Any], rate: dict[str, float] | None) -> list[str]:
    """The share of the machine's prompt rate, where that was measured."""
    if not rate or not section.get("share_of_prompt_rate"):
        return []
    share = section["share_of_prompt_rate"]
    return [f"{share:.0%} of this machine's prompt rate ({rate['tokens_per_s']:,.0f} tokens/s)"]


def noise_lines(section: dict[str, Any]) -> list[str]:
    """How many answers rounding may have turned, and the sample of its size that this rests on."""
    noise = section["noise"] or {}
    words = {"scores": ("scored token", "scored tokens"), "texts": ("row of a text", "rows of texts")}
    samples = [
        f"{found['compared']} {words[kind][found['compared'] != 1]} computed again alone moved by "
        f"{found['rms']:.2g} nats (root mean square), at most {found['largest']:.2g}"
        for kind, found in noise.items()
        if found
    ]
    count = section["near_ties"]
    if count is None:
        return ["near-ties are not known: the noise of some answers was not measured"] if noise else []
    return [f"{count} near-{'tie' if count == 1 else 'ties'}: {'; '.join(samples)}"] if samples else []


def rows_line(section: dict[str, Any]) -> str:
    """Which rows of the data set a task's items are, those that an interruption left out among them."""
    asked = section["items"] + section.get("skipped", 0) + section.get("unanswered", 0)
    rows = section["rows"]
    which = "the first of each group" if section.get("first") else "evenly spread"
    share = f"all {rows:,} rows" if asked == rows else f"{asked:,} of {rows:,} rows, {which},"
    return f"{share} of the {section['split']} split" if section["split"] else share.removesuffix(",")


def energy_line(energy: dict[str, float | None]) -> str:
    """What a task's answers took, as far as it is known."""
    return ", ".join(f"{digits(value)} {words}" for key, words in ENERGY.items() if (value := energy[key]))


def gpu_lines(measured: dict[str, Any]) -> list[str]:
    """A line for each GPU: what is known of it, and what slowed it down."""
    lines = []
    for gpu in measured.get("gpus", []):
        said = [f"{gpu[key]:{digits}} {words}" for key, digits, words in GPU_WORDS if gpu[key] is not None]
        said += [f"slowed down for {seconds:,.0f} s ({why})" for why, seconds in (gpu["throttled_s"] or {}).items()]
        lines.append(f"GPU {gpu['id']} ({gpu['name']}): {', '.join(said) or 'nothing is known'}")
    return lines


def measured_line(measured: dict[str, Any]) -> str:
    """Peaks of memory, and power, of what was known."""
    several = len(measured.get("gpus", [])) > 1
    memory = [
        f"{'the fullest GPU' if several and counter.name == 'gpu_mib' else counter.holder} {peak:,.0f} {counter.unit}"
        for counter in COUNTERS
        if counter.holder and (measured["unified"] or not counter.if_unified)
        if (peak := measured.get(f"peak_{counter.name}")) is not None
    ]
    line = f"highest memory in use: {', '.join(memory)}" if memory else "memory in use: not known"
    if measured["joules"] is None:
        return line
    power = f"power {measured['mean_watts']:,.1f} W on average, {measured['peak_watts']:,.1f} W at most"
    return f"{line}; {power}, {measured['joules']:,.0f} J in {measured['power_seconds']:,.0f} s"


def protocol_lines(section: dict[str, Any]) -> list[str]:
    """The 2023 challenge's figures, its clock and both accuracies, and what the rows lacked of its protocol."""
    found = ((name, section["metrics"].get(name)) for name in ("acc", "acc_norm"))
    scores = (f"{name} {value['value']:.4f} ± {value['stderr']:.4f}" for name, value in found if value)
    return ["; ".join([*challenge_clocks(section, [CHALLENGE_2023]), *scores]), *section.get("lacking", [])]


def challenge_clocks(section: dict[str, Any], names: Iterable[str] = tuple(CLOCKS)) -> list[str]:
    """Seconds and seconds per item on the challenges' clocks.

    Args:
        section: of ``report.json``.
        names: keys of ``CLOCKS``.
    """
    asked = timed(section)
    return [
        f"{clock.removesuffix(' without data')} clock, {CLOCKS[clock]}: {section['clocks'][clock]:.3f} s, "
        f"{section['clocks'][clock] / max(1, asked):.4f} s an item"
        for clock in names
        if clock in section["clocks"]
    ]


def timed(section: dict[str, Any]) -> int:
    """Of how many items a task's clocks and tokens are."""
    return int(section["items"] - section.get("without_record", 0))


def accuracy(values: dict[str, float]) -> str:
    """Accuracy and standard error in percent."""
    return f"{values['accuracy']:.2%} ± {values['stderr']:.2%}"
