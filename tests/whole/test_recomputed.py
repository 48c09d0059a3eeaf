"""Every number of a run recomputed from predictions, tokenizer and data files: tokens, accuracies, errors, clocks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.commands import orin_run
from tests.support.paths import ROOT
from tests.support.recomputed import (
    Asked,
    Path_,
    Vocabulary,
    Watched,
    count_distinct,
    error_of_mean,
    every_nth,
    json_lines,
    near_s,
    text_path,
    watched_run,
    wilson_limits,
)
from tests.support.small_data import SUBTASKS, bbh_rows, hellaswag_rows, small_data, winogrande_rows

LETTERS = "ABCD"
EXAM_ITEMS, TEXT_BOUND = 48, 6
STAGES = ("plan", "prefill", "check", "decode")


def exam(vocabulary: Vocabulary) -> list[Asked]:
    found = []
    for row in every_nth(json_lines(ROOT / "eval" / "data" / "exam.jsonl"), EXAM_ITEMS):
        if row["form"] == "text":
            prompt = vocabulary.chat(row["prompt"])
            found.append(Asked(row["id"], "text", (prompt,), (), (), row["answer"]))
        else:
            split = [vocabulary.split(row["prompt"], f" {letter}") for letter in LETTERS]
            tokens = tuple(tokens for _, tokens in split)
            right = LETTERS.index(row["answer"])
            found.append(Asked(row["id"], "letters", (split[0][0],), tokens, tuple(LETTERS), right))
    return found


def hellaswag(vocabulary: Vocabulary) -> list[Asked]:
    found = []
    for i, row in enumerate(hellaswag_rows()):
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        split = [vocabulary.split(context, f" {ending}") for ending in row["endings"]]
        tokens = tuple(tokens for _, tokens in split)
        found.append(Asked(str(i), "", (split[0][0],), tokens, tuple(row["endings"]), row["label"]))
    return found


def winogrande(vocabulary: Vocabulary) -> list[Asked]:
    found = []
    for i, row in enumerate(winogrande_rows()):
        before, after = row["sentence"].split("_")
        split = [vocabulary.split(before + row[name], f" {after.strip()}") for name in ("option1", "option2")]
        prompts, tokens = zip(*split, strict=True)
        found.append(Asked(str(i), "", prompts, tokens, ("1", "2"), int(row["answer"]) - 1))
    return found


def bbh_direct(vocabulary: Vocabulary) -> list[Asked]:
    found = []
    for subtask in SUBTASKS:
        for i, row in enumerate(bbh_rows(subtask)):
            worked = f"Answer about {subtask}.\n\nQ: Which boat belongs to Halim?\nA: Golcloud\n\n"
            prompt = vocabulary.ids(f"{worked}Q: {row['input']}\nA:")
            found.append(Asked(f"{subtask}/{i}", subtask, (prompt,), (), (), row["target"]))
    return found


@dataclass(frozen=True)
class Task:
    """How a task is asked here, and what its texts are at most."""

    asked: Callable[[Vocabulary], list[Asked]]
    options: tuple[str, ...] = ()
    text_bound: int = 0


TASKS = {
    "exam": Task(exam, ("--limit", str(EXAM_ITEMS)), 500),
    "hellaswag": Task(hellaswag),
    "winogrande": Task(winogrande),
    "bbh_direct": Task(bbh_direct, ("--shots", "1", "--max-new-tokens", str(TEXT_BOUND)), TEXT_BOUND),
}
TEXTS = ("exam", "bbh_direct")


class Runs:
    """Runs of the tiny model, each made once."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.model, self.vocabulary = model, Vocabulary(model)
        self._folder, self._data = folder, small_data(folder / "data")
        self._known: dict[tuple[str, ...], Watched] = {}

    def of(self, task: str, *options: str) -> Watched:
        key = (task, *options)
        if key not in self._known:
            data = ("--data", self._data) if task != "exam" else ()
            folder = self._folder / "-".join(key).replace("--", "")
            command = ("eval", task, "--model", self.model, *data, *TASKS[task].options, *options)
            self._known[key] = watched_run(folder, *command)
        return self._known[key]

    def section(self, task: str, *options: str) -> dict[str, Any]:
        found: dict[str, Any] = self.of(task, *options).report["tasks"][task]
        return found

    def answers(self, task: str, *options: str) -> list[tuple[Asked, dict[str, Any]]]:
        """Each question as the data has it, with its line of predictions.jsonl."""
        lines = {line["id"]: line for line in self.of(task, *options).predictions}
        asked = TASKS[task].asked(self.vocabulary)
        assert set(lines) == {question.id for question in asked}
        return [(question, lines[question.id]) for question in asked]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Runs:
    folder = tmp_path_factory.mktemp("recomputed")
    convert(Checkpoint.open(tiny), folder / "tiny.gguf", Options())
    return Runs(folder, folder / "tiny.gguf")


def computed_paths(runs: Runs, task: str) -> tuple[list[Path_], int]:
    """What a tool that shares nothing would compute, one sequence after another.

    Of a text the last token is computed only to see the stop token behind it. Without drafts the steps behind the
    first token tell: they are as many as the tokens computed. Of a text of which a position was decided otherwise
    later they are more, and tell nothing.

    Returns:
        The paths, and of how many of them the last token is missing or not.
    """
    unsure = 0
    plain = {line["id"]: line for line in runs.of(task, "--no-draft").predictions} if task in TEXTS else {}
    paths: list[Path_] = []
    for question, _ in runs.answers(task):
        if question.continuations:
            paths += question.paths()
        else:
            line = plain[question.id]
            again = line["decode_steps"] > line["n_generated"]
            unsure += again
            assert again or line["n_generated"] - line["decode_steps"] in {0, 1}
            paths.append(text_path(question.prompts[0], line["n_generated"] - 1 if again else line["decode_steps"]))
    return paths, unsure


@pytest.mark.parametrize("task", TASKS)
def test_sent_and_unique_tokens(runs: Runs, task: str) -> None:
    """Drafts change neither, and are computed beside the distinct tokens; without any, nothing else is."""
    paths, unsure = computed_paths(runs, task)
    assert unsure <= 3, "of a few positions only"
    sent, unique = sum(map(len, paths)), count_distinct(paths)
    for options in ((), ("--no-draft",)) if task in TEXTS else ((),):
        section = runs.section(task, *options)
        tokens = section["tokens"]
        assert 0 <= tokens["sent"] - sent <= unsure, options
        assert 0 <= tokens["unique"] - unique <= unsure, options
        assert tokens["unique"] < tokens["sent"]
        assert tokens["computed"] == section["device"]["answer_tokens"]
        if (task in TEXTS and not options) or unsure:
            assert tokens["computed"] > tokens["unique"]
        else:
            assert tokens["computed"] == tokens["unique"]


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_counted_as_they_are(runs: Runs, task: str) -> None:
    """Tokens of the prompt, and of the longest sequence."""
    for question, line in runs.answers(task):
        assert line["n_tokens"] == max(map(len, question.prompts))
        longest = max(map(len, question.paths())) if question.continuations else None
        assert line["n_context"] == (longest or line["n_tokens"] + line["n_generated"])
        assert (line["group"] == question.group) or not question.group


def compared(question: Asked, sums: list[float], metric: str) -> list[float]:
    lengths = {
        "acc": [1] * len(sums),
        "acc_norm": [len(text) for text in question.choices],
        "acc_bytes": [len(text.encode()) for text in question.choices],
        "acc_tokens": [len(tokens) for tokens in question.continuations],
    }[metric]
    return [total / n for total, n in zip(sums, lengths, strict=True)]


def worth(task: str, question: Asked, line: dict[str, Any], metric: str) -> float:
    """The item's value under a metric, by what the run has written of its answer."""
    if not question.continuations:
        text = line["text"].lstrip().replace("\n", "") if task == "exam" else line["text"]
        return float(text == question.right)
    values = compared(question, line["logprobs"], "acc" if metric == "exact_match" else metric)
    return float(values.index(max(values)) == question.right)


@pytest.mark.parametrize("task", TASKS)
def test_accuracies_and_standard_errors(runs: Runs, task: str) -> None:
    """Of every metric and group."""
    answers, section = runs.answers(task), runs.section(task)
    assert section["items"] == len(answers)
    names = ["acc", "acc_norm", "acc_bytes", "acc_tokens"] if task == "hellaswag" else [*section["metrics"]]
    assert [*section["metrics"]] == names
    for metric in names:
        groups: dict[str, list[float]] = {}
        for question, line in answers:
            value = worth(task, question, line, metric)
            assert line["scores"][metric] == value, question.id
            groups.setdefault(line["group"], []).append(value)
        values = [value for group in groups.values() for value in group]
        found = section["metrics"][metric]
        assert found["value"] == pytest.approx(sum(values) / len(values))
        assert found["stderr"] == pytest.approx(error_of_mean(list(groups.values())), abs=1e-12)
        if metric == names[0]:
            assert (section["accuracy"], section["stderr"]) == (found["value"], found["stderr"])
            assert set(section["groups"]) == set(groups)
            for name, group in groups.items():
                row = section["groups"][name]
                assert row["items"] == len(group)
                assert row["accuracy"] == pytest.approx(sum(group) / len(group))
                assert row["stderr"] == pytest.approx(error_of_mean([group]), abs=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_margins_and_near_ties(runs: Runs, task: str) -> None:
    """A margin is the lead of the best choice over the next, and moves by the root of both choices' tokens.

    As many as rounding may have turned are counted, by the noise of one token.
    """
    section, counted = runs.section(task), 0
    for question, line in runs.answers(task):
        assert line["margin"] >= 0
        noise, scale = section["noise"]["texts"], 1.0
        if question.continuations:
            ranked = sorted(zip(line["logprobs"], question.continuations, strict=True), key=lambda pair: -pair[0])
            (first, best), (second, next_best) = ranked[:2]
            assert line["margin"] == pytest.approx(first - second, abs=1e-9)
            noise, scale = section["noise"]["scores"], (len(best) + len(next_best)) ** 0.5
        assert noise["near_tie"] > 0
        assert noise["rms"] <= noise["largest"] <= noise["rms"] * noise["compared"] ** 0.5 * (1 + 1e-9)
        counted += line["margin"] < noise["near_tie"] * scale
    assert section["near_ties"] == counted


@pytest.mark.parametrize("options", [(), ("--no-draft",)])
@pytest.mark.parametrize("task", TEXTS)
def test_greedy_figures(runs: Runs, task: str, options: tuple[str, ...]) -> None:
    """Of the texts' own lines; each token but the first is a draft's or takes a step."""
    texts = [line for question, line in runs.answers(task, *options) if not question.continuations]
    found = runs.section(task, *options)["greedy"]
    steps = [line["decode_steps"] for line in texts]
    drafted, tokens = (sum(line[name] for line in texts) for name in ("drafted", "n_generated"))
    assert found["texts"] == len(texts)
    assert found["decode_steps_per_text"] == pytest.approx(sum(steps) / len(texts))
    assert found["drafted_share"] == pytest.approx(drafted / tokens)
    assert all(line["drafted"] <= line["n_generated"] <= TASKS[task].text_bound for line in texts)
    if options:
        assert drafted == 0
    else:
        assert drafted > 0 or task != "exam", "the tiny model follows no draft of the other"
        assert all(line["n_generated"] - 1 <= line["drafted"] + line["decode_steps"] for line in texts)


@pytest.mark.parametrize("task", TEXTS)
def test_drafts_change_no_text(runs: Runs, task: str) -> None:
    """Nor what is made of it."""
    kept = ("prediction", "text", "n_generated", "correct")
    with_drafts, without = (
        [[line[name] for name in kept] for _, line in runs.answers(task, *options)] for options in ((), ("--no-draft",))
    )
    assert with_drafts == without


@pytest.mark.parametrize("task", TASKS)
def test_clocks_and_rates(runs: Runs, task: str) -> None:
    """Stages lie within the inference, that within the process, and the process within its wall time.

    The 2023 clock ends with the last answer, but for the noise, which is measured behind the last score.
    """
    watched, section = runs.of(task), runs.section(task)
    clocks, tokens = section["clocks"], section["tokens"]
    rounding = 1e-4 * len(clocks)
    assert sum(clocks.get(stage, 0.0) for stage in STAGES) <= clocks["inference"] + rounding
    assert clocks["score"] <= clocks["inference"]
    before = sum(clocks[stage] for stage in ("start", "load", "data", "tokenize"))
    assert before + clocks["inference"] <= clocks["challenge 2023"] + rounding
    assert clocks["challenge 2023"] <= watched.wall_s
    measured_later = clocks["check"] if task != "bbh_direct" else 0.0
    assert -near_s() <= clocks["challenge 2023"] - watched.last_answer_s <= near_s() + measured_later
    assert clocks["challenge 2024 without data"] == clocks["inference"]
    assert clocks["challenge 2024"] == pytest.approx(
        clocks["data"] + clocks["tokenize"] + clocks["inference"], abs=rounding
    )
    assert section["items_per_s"] == pytest.approx(
        section["items"] / (clocks["tokenize"] + clocks["inference"]), rel=1e-2
    )
    answering = max(clocks["prefill"] + clocks["decode"], clocks["score"])
    assert section["computed_tokens_per_s"] == pytest.approx(tokens["computed"] / answering, rel=1e-2)
    device = section["device"]
    assert device["seconds"] == pytest.approx(clocks["prefill"] + clocks["decode"], abs=rounding)
    assert device["answer_s"] <= device["seconds"]
    assert device["submit_s"] + device["wait_s"] + device["idle_s"] <= clocks["inference"] + rounding
    (part,) = json.loads((watched.folder / "parts.json").read_text(encoding="utf-8"))
    for name, seconds in part[task]["clocks"].items():
        shown = "challenge 2023" if name == "process" else name
        assert clocks[shown] == pytest.approx(seconds, abs=1e-4), name


@pytest.mark.parametrize("task", TASKS)
def test_what_the_console_prints(runs: Runs, task: str) -> None:
    """The row of the table and the line of what it cost, by hand."""
    section, printed = runs.section(task), runs.of(task).stdout
    whole = re.sub(r"\n +", " ", printed)  # lines that are too long go on behind spaces
    lines = [line.split() for line in whole.splitlines()]
    row = next(words for words in lines if words[:1] == [task])
    items, rows = section["items"], section["rows"]
    accuracy, error = (f"{100 * section[name]:.2f}%" for name in ("accuracy", "stderr"))
    (metric, first), *others = section["metrics"].items()
    assert first["value"] == section["accuracy"]
    more = ", ".join(f"{name} {100 * found['value']:.2f}%" for name, found in others)
    asked = str(items) if rows == items else f"{items} of {rows:,}"
    assert row == [task, *asked.split(), metric, accuracy, "±", error, *more.split()]
    cost = next(words for words in lines if words[1:3] == ["items", "in"])
    seconds = f"{section['clocks']['tokenize'] + section['clocks']['inference']:.1f}"
    rate = f"({section['items_per_s']:.1f}/s);"
    computed, sent = (f"{section['tokens'][name]:,}" for name in ("computed", "sent"))
    said = f"{items} items in {seconds} s {rate} {computed} tokens computed, {sent} without sharing"
    assert cost == said.split()


def test_intervals_of_the_page(runs: Runs, tmp_path: Path) -> None:
    """Wilson's, of each task and group."""
    folders = [runs.of(task).folder for task in TASKS]
    done = orin_run("report", *folders, "--out", tmp_path / "page.html", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)["tasks"]
    for task in TASKS:
        (entry,) = [entry for entry in shown[task] if entry]
        section = runs.section(task)
        for own, name in ((entry, None), *((row, name) for name, row in entry["groups"].items())):
            known = section if name is None else section["groups"][name]
            limits = wilson_limits(known["accuracy"], known["items"])
            assert own["interval"] == pytest.approx(list(limits), abs=1e-9)
        answers = [line for _, line in runs.answers(task)]
        assert sum(entry["margins"]["right"]) == sum(line["correct"] for line in answers)
        assert sum(entry["margins"]["wrong"]) == sum(not line["correct"] for line in answers)
        assert entry["margins"]["below"] == section["near_ties"]
