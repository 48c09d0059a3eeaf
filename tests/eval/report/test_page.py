"""The page of a run: its numbers, its escaping, and what a real browser makes of it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eval.near_ties import NearTies
from eval.report.meanings import MEANINGS
from eval.report.page import calibration, margins, render, view, wilson
from eval.report.section import task_report
from eval.runs.measured import summary
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.samples import SAMPLES, Sample
from eval.runs.writer import RunWriter
from orin_runner.cli.main import app
from orin_runner.cli.result import write_report
from orin_runner.errors import UserError
from orin_runner.machine.nvml import GpuReading
from orin_runner.machine.sensors import Reading
from tests.support import browser
from tests.support.paths import REFERENCE
from tests.support.predictions import noise

EVIL = "<script>console.error('ran')</script><img src=x onerror=alert(1)>\"'&"

in_a_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no Chromium here: apt-get install chromium, and the page is looked at in it"
)


def item(i: int, **changes: Any) -> Prediction:
    """An item with two choices, right in three of four cases."""
    base = Prediction(
        task="t",
        id=f"subject_{i % 3}/{i}",
        group=f"subject_{i % 3}",
        prediction="A" if i % 4 else "B",
        target="A",
        correct=i % 4 > 0,
        logprobs=(-0.1 - i / 100, -2.5),
        text=None,
        margin=2.4 - i / 100,
        margin_scale=1.0,
        n_tokens=10 + i,
        tokens_sha256="0" * 64,
        scores={"acc": float(i % 4 > 0), "acc_norm": 0.0},
    )
    return replace(base, **changes)


def write(directory: Path, items: list[Prediction], *, header: dict[str, Any] | None = None, **report: Any) -> Run:
    """A run of one task with a report as ``orin-run eval`` writes it."""
    clocks = {"start": 0.25, "load": 1.5, "data": 0.5, "tokenize": 0.25, "prefill": 7.25, "score": 0.25}
    section = task_report(items, {"sent": 9000, "unique": 4500, "computed": 4600}, clocks)
    with RunWriter(directory, header or {"engine": "llama.cpp", "model": {"name": "m.gguf"}}) as writer:
        for prediction in items:
            writer.write(prediction)
        writer.report({"tasks": {"t": {**section, "noise": noise(0.03)}} if items else {}, **report})
    return Run.open(directory)


def metered(
    run: Run, seconds: int = 20, *, known: bool = True, unified: bool = False, gpus: tuple[GpuReading, ...] = ()
) -> Run:
    """``run`` with samples of a resumed run; ``known``: GPU memory and power, too; ``gpus``: and of each GPU."""
    gpu, watts = (2800.0, 250.0) if known else (None, None)
    samples = [
        Sample(part, float(t), "t", 90 * t, float(t), t, Reading(400.0 + t, 9000.0 + t, gpu, watts, gpus))
        for part in range(2)
        for t in range(seconds)
    ]
    (run.directory / SAMPLES).write_bytes(b"".join(sample.line() for sample in samples))
    measured = summary(samples, unified=unified, power_source="NVML GPU 0" if known else None)
    report = {**run.report, "measured": measured}
    (run.directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return Run.open(run.directory)


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words += data.replace("\u202f", " ").split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def headings(self) -> str:
        return " | ".join(
            re.findall(r"(?:Calibration|Margins|Further metrics|Failures|Memory plan|Weights)", self.text)
        )


def page_of(*runs: Run) -> Page:
    return Page(render(view(runs)))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilsons(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_calibration_of_known_confidences() -> None:
    """Odds of 3 : 1 are a confidence of 0.75; half of those right is an error of 0.25."""
    known = (math.log(0.6), math.log(0.2))
    items = [item(0, logprobs=known, scores={"acc": float(i)}) for i in range(2)]
    found = calibration([*items, item(1, logprobs=None), item(2, logprobs=known, scores={"mc2": 0.5})])
    assert found is not None
    assert found["items"] == 2
    assert found["ece"] == pytest.approx(0.25)
    assert found["bins"] == [{"from": 0.7, "items": 2, "confidence": pytest.approx(0.75), "accuracy": 0.5}]


def test_calibration_weighs_bins_by_items_and_keeps_certainty() -> None:
    """A confidence of exactly 1 has a bin; errors of 0 (three items) and of 0.5 (one item) make 0.125."""
    sure, torn = (0.0, -math.inf), (-1.0, -1.0)
    items = [item(i, logprobs=sure, scores={"acc": 1.0}) for i in range(3)]
    found = calibration([*items, item(3, logprobs=torn, scores={"acc": 1.0})])
    assert found is not None
    assert [(row["from"], row["items"]) for row in found["bins"]] == [(0.5, 1), (0.9, 3)]
    assert found["ece"] == pytest.approx(0.125)
    assert calibration([item(0, logprobs=None), item(1, logprobs=(math.nan, -1.0))]) is None


def test_margins_count_every_item_once_and_near_ties() -> None:
    """The threshold is shown where it is one for all items."""
    items = [item(i, margin=value, correct=value > 0.5) for i, value in enumerate([0.0, 0.02, 0.6, 12.0])]
    found = margins([*items, item(9, margin=None)], NearTies(0.03))
    assert found is not None
    assert found["near_tie"] == 0.03
    assert (sum(found["right"]), sum(found["wrong"]), found["below"]) == (2, 2, 2)
    assert (found["wrong"][0], found["right"][1], found["right"][-1]) == (2, 1, 1)
    assert margins([item(0, margin=None)], NearTies(0.03)) is None
    wider = margins([*items, item(9, margin=0.1, margin_scale=4.0)], NearTies(0.03))
    assert wider is not None
    assert (wider["near_tie"], wider["below"]) == (None, 3)


def test_the_page_says_what_the_run_measured(tmp_path: Path) -> None:
    """Accuracy, both clocks, rate and tokens of a run whose numbers are known: 9 of 12; 0.5 + 7.5 s; 2.25 s before."""
    run = write(tmp_path / "r", [item(i) for i in range(12)], warnings=["mind the gap"])
    page = page_of(run)
    error = 100 * math.sqrt(12 * 0.75 * 0.25 / (12 - 3) / 12)  # pooled within three groups, each 3 of 4 right
    for said in (
        f"75.00 % ± {error:.2f} s.e.",
        "challenge 2024 8.0 s",
        "challenge 2023 9.8 s",
        "items/s 1.6",
        "tokens sent 9,000 tokens unique 4,500 tokens computed 4,600",
        "acc_norm 0.00 %",
        "mind the gap",
    ):
        assert said in page.text, said
    assert page.headings == "Further metrics | Calibration | Margins | Weights"


def test_the_page_names_split_and_rows(tmp_path: Path) -> None:
    """Of one run and of several, with the document's words as tooltips; where a report has none nothing is said."""
    runs = [write(tmp_path / name, [item(i) for i in range(40)]) for name in ("part", "whole", "old")]
    for run, source in zip(runs, [{"split": "dev", "rows": 3198}, {"split": "test", "rows": 40}], strict=False):
        run.report["tasks"]["t"] |= source
    page = page_of(runs[0])
    assert "40 of 3,198 rows, evenly spread, of the dev split" in page.text
    titles = [attrs["title"] for _, attrs in page.tags if "title" in attrs]
    assert set(titles) == set(MEANINGS.values())
    several = page_of(*runs).text.replace(" .", ".")
    assert "part: 40 of 3,198 rows, evenly spread, of the dev split. whole: all 40 rows of the test split." in several
    assert "old: all" not in several
    assert "rows" not in page_of(runs[2]).text
    shown = view(runs)["tasks"]["t"]
    assert [(entry["split"], entry["rows"]) for entry in shown] == [("dev", 3198), ("test", 40), (None, None)]


def test_sections_without_data_are_absent(tmp_path: Path) -> None:
    items = [item(i, logprobs=None, margin=None, text="x", scores={"em": 1.0}) for i in range(3)]
    page = page_of(write(tmp_path / "r", items, header={"engine": "x"}))
    assert page.headings == ""
    assert "least certain" not in page.text
    assert "The longest prompts" in page.text


def test_the_least_certain_and_the_longest_items_lead(tmp_path: Path) -> None:
    entry = view([write(tmp_path / "r", [item(i) for i in range(30)])])["tasks"]["t"][0]
    assert [row["id"] for row in entry["least_certain"]] == [f"subject_{i % 3}/{i}" for i in range(29, 19, -1)]
    assert [row["n_tokens"] for row in entry["longest"]] == list(range(39, 29, -1))


def test_failures_are_listed_with_their_reasons(tmp_path: Path) -> None:
    lost = [item(i, failed=f"needs {5000 + i} tokens", correct=False, logprobs=None, margin=None) for i in range(60)]
    page = page_of(write(tmp_path / "r", [*lost, item(60)], restarts=2))
    assert "60 of 61 items have no answer and count as wrong" in page.text
    assert "60 items without an answer, the first 50" in page.text
    assert "needs 5049 tokens" in page.text
    assert "needs 5050 tokens" not in page.text
    assert "the engine died and was started again 2 times" in page.text


def test_truncated_prompts_have_a_line_and_skipped_items_no_place(tmp_path: Path) -> None:
    """A killed run, too, which has no section."""
    items = [item(i, truncated=5 * (i % 2)) for i in range(8)]
    items += [item(9, skipped="needs 5000 tokens", scores={}, logprobs=None, margin=None, n_tokens=4999)]
    for name in ("ended", "killed"):
        run = write(tmp_path / name, items)
        run = run if name == "ended" else replace(run, report={})
        shown = view([run])
        entry = shown["tasks"]["t"][0]
        assert (entry["items"], entry["skipped"]) == (8, 1)
        assert (entry["truncated"]["items"], entry["truncated"]["tokens"]) == (4, 20)
        assert "t/9" not in [row["id"] for row in entry["longest"]]
        page = render(shown)
        assert "truncated prompts" in page
        assert "4 of 8 items had prompts longer than the model's context" in page
        assert "1 items have prompts longer than the model" in page
    page = render(view([write(tmp_path / "plain", [item(1)])]))
    assert "truncated" not in page
    assert "skipped" not in page


def test_a_run_without_answers_says_so(tmp_path: Path) -> None:
    """No prediction at all, the report written or not."""
    with RunWriter(tmp_path / "killed", {"engine": "x"}):
        pass
    for run in (write(tmp_path / "r", []), Run.open(tmp_path / "killed")):
        assert "No item has been answered" in page_of(run).text
    assert "the run did not end" in page_of(Run.open(tmp_path / "killed")).text


def test_a_killed_run_shows_what_it_has(tmp_path: Path) -> None:
    """Accuracy of the answers that are there, and no clocks; a report of fewer answers is not believed."""
    run = write(tmp_path / "r", [item(i) for i in range(12)])
    for stale in ({}, {"tasks": {"t": {**run.report["tasks"]["t"], "items": 4, "accuracy": 0.25}}}):
        page = page_of(replace(run, report=stale))
        assert "75.00 %" in page.text
        assert "challenge 2024" not in page.text


def test_everything_from_data_is_escaped(tmp_path: Path) -> None:
    """A prediction, id, group, task, target, reason, warning, header and folder that are HTML stay text."""
    evil = item(1, prediction=EVIL, id=EVIL, group=EVIL, target=EVIL, failed=EVIL, scores={"acc": 1.0, EVIL: 1.0})
    header = {"engine": EVIL, "model": {"name": EVIL, "sha256": EVIL, "types": {EVIL: 1}}, "settings": {EVIL: EVIL}}
    header["memory"] = {"device": {"name": EVIL}, "terms": {EVIL: 5}}
    run = write(tmp_path / "<b>r", [evil, item(2)], header=header, warnings=[EVIL])
    for page in (page_of(run), page_of(run, replace(run, directory=tmp_path / "<script>"))):
        tags = {tag for tag, _ in page.tags}
        assert not tags & {"script", "img", "b>r"}, tags
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert page.text.count("console.error('ran')") >= 12


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """No script, and no address but the empty icon."""
    text = render(view([write(tmp_path / "r", [item(i) for i in range(9)])]))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert [a.get("href") or a.get("src") for _, a in page.tags if "href" in a or "src" in a] == ["data:,"]
    assert not re.search(r"https?:|url\(|@import", text)


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    """Two runs of one task in one table, told apart by as much of their paths as it takes."""
    first = write(tmp_path / "a" / "run", [item(i) for i in range(12)])
    second = write(tmp_path / "b" / "run", [item(i, correct=True, scores={"acc": 1.0}) for i in range(12)])
    page = page_of(first, second)
    assert "t: 2 runs compared" in page.text
    assert "a/run 12 75.00 %" in page.text
    assert "b/run 12 100.00 %" in page.text


def limited(run: Run) -> Run:
    """``run`` with its share of the machine's limit."""
    tasks = {"t": {**run.report["tasks"]["t"], "share_of_prompt_rate": 0.9149}}
    return replace(run, report={**run.report, "tasks": tasks, "prompt_rate": {"tokens_per_s": 1234.4}})


def test_the_share_of_the_machines_limit_is_on_the_first_screen(tmp_path: Path) -> None:
    """Where it was measured; where not, nothing is claimed, alone or side by side."""
    plain = write(tmp_path / "r", [item(i) for i in range(12)])
    assert "prompt rate" not in page_of(plain).text
    assert "prompt rate" not in page_of(plain, plain).text
    page = page_of(limited(plain))
    assert "of this machine's prompt rate (1,234 tokens/s) 91 %" in page.text
    assert page.text.index("prompt rate") < page.text.index("t: accuracy")
    other = write(tmp_path / "other", [item(i) for i in range(12)])
    page = page_of(limited(plain), other)
    assert "items/s of prompt rate tokens sent" in page.text
    assert "r 12 75.00 % ± 14.43 8.0 s 9.8 s 1.6 91 % of 1,234/s 9,000" in page.text
    assert "other 12 75.00 % ± 14.43 8.0 s 9.8 s 1.6 9,000" in page.text


def drawn(page: Page) -> list[str]:
    """What each chart over time shows."""
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    return [label.removesuffix(" over time") for label in labels if label.endswith(" over time")]


def test_a_metered_run_is_drawn_over_time(tmp_path: Path) -> None:
    """Its own numbers: 2 x 19 s at 250 W are 9,500 J. The machine's memory only where it is the GPU's as well."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]))
    page = page_of(run)
    assert drawn(page) == [
        "Tokens computed for the answers",
        "Memory of orin-run's processes",
        "Memory in use on the GPU",
        "Power",
    ]
    for said in (
        "Memory of orin-run's processes: 419 MiB at most",
        "Memory in use on the GPU: 2,800 MiB at most",
        "Power: 250.0 W on average, 250.0 W at most, 9,500 J in 38 s (NVML GPU 0)",
        "At the dashed line the run was resumed.",
        "100 tokens/s",
        "38.0 s",
    ):
        assert said in page.text, said
    assert sum(tag == "polyline" for tag, _ in page.tags) == 8, "four charts of two parts"
    memory = {"device": {"name": "Orin", "cuda": True, "unified": True}, "terms": {}}
    orin = write(tmp_path / "o", [item(i) for i in range(12)], header={"engine": "x", "memory": memory})
    page = page_of(metered(orin, known=False, unified=True))
    assert drawn(page)[1:] == ["Memory of orin-run's processes", "Memory in use on the machine"]
    assert "Memory in use on the machine: 9,019 MiB at most" in page.text
    assert "W on average" not in page.text


TWO_GPUS = (
    GpuReading("0", "H100", 2500.0, 2400.0, 100.0, 80.0, 1700.0, 61.0, ()),
    GpuReading("1", "H200", 2800.0, None, 150.0, 90.0, 1800.0, 71.0, ("thermal",)),
)


def test_several_gpus_are_drawn_apart(tmp_path: Path) -> None:
    """A line and a row for each, with its own colour; the totals are said once."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]), gpus=TWO_GPUS)
    page = page_of(run)
    assert drawn(page)[2:] == [
        "Memory in use on the GPU",
        "Power",
        "Load of the GPU",
        "Clock of the GPU's SMs",
        "Temperature of the GPU",
    ]
    lines = [attributes["class"] for tag, attributes in page.tags if tag == "polyline"]
    assert lines == ["line still r0"] * 4 + 5 * (["line still r0"] * 2 + ["line still r1"] * 2)
    for said in (
        "Memory in use on the GPU: 2,800 MiB at most on one GPU GPU 0 GPU 1",
        "Power: 250.0 W on average, 250.0 W at most, 9,500 J in 38 s (NVML GPU 0) GPU 0 GPU 1",
        "Load of the GPU GPU 0 GPU 1",
        "0: H100 2,500 2,400 100.0 80 % 1,700 MHz 61 °C never",
        "1: H200 2,800 150.0 90 % 1,800 MHz 71 °C thermal 38.0 s",
    ):
        assert said in page.text, said
    one = page_of(metered(write(tmp_path / "one", [item(0)]), gpus=TWO_GPUS[:1]))
    assert "Load of the GPU 80 %" in one.text, "one GPU needs no name in a chart: the axis follows"
    assert "0: H100 2,500 2,400" in one.text


def test_a_total_that_was_known_for_a_moment_is_not_said(tmp_path: Path) -> None:
    """One of two GPUs told its power once: the other's is drawn, and no mean of both is made up."""
    run = metered(write(tmp_path / "r", [item(0)]), known=False)
    samples = [
        Sample(
            0, float(t), "t", 0, 0.0, 0, Reading(watts=9.0 if t == 2 else None, gpus=(GpuReading("0", "a", watts=5.0),))
        )
        for t in range(5)
    ]
    (run.directory / SAMPLES).write_bytes(b"".join(sample.line() for sample in samples))
    page = page_of(replace(Run.open(run.directory), report={}))
    assert drawn(page) == ["Power"]
    assert "on average" not in page.text


def test_runs_with_several_gpus_stand_side_by_side(tmp_path: Path) -> None:
    """Each run has one colour, for all its GPUs."""
    two = metered(write(tmp_path / "two", [item(0)]), gpus=TWO_GPUS)
    old = metered(write(tmp_path / "old", [item(0)]))
    page = page_of(old, two)
    lines = [attributes["class"] for tag, attributes in page.tags if tag == "polyline"]
    assert lines[-4:] == ["line still r1"] * 4, "temperature: of the newer run alone"
    assert re.search(r'<h2><span class="dot r1"[^>]*></span> two: GPUs</h2>', render(view([old, two])))
    assert "two: GPUs" in page.text
    assert "old: GPUs" not in page.text


def test_energy_is_on_the_first_screen(tmp_path: Path) -> None:
    """Of 19 items and 1,710 tokens in each of two parts of 19 s: 250 W are 250 J an item. An older report has none."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]))
    page = page_of(run)
    assert "J an item 250 J per 1,000 tokens 2,778 items per Wh 14.4" in page.text
    assert page.text.index("J an item") < page.text.index("t: accuracy")
    for key in ("energy", "gpus"):
        del run.report["measured"][key]
    page = page_of(run)
    assert "J an item" not in page.text
    assert "9,500 J in 38 s" in page.text


@pytest.mark.parametrize(("unified", "said"), [(False, "2,800 MiB were in use on the GPU"), (True, "9,019 MiB were")])
def test_the_peak_stands_beside_the_plan(tmp_path: Path, unified: bool, said: str) -> None:
    """Of the memory that the plan is for."""
    memory = {"device": {"name": "Orin", "cuda": True, "unified": unified, "available": 1 << 32}, "terms": {}}
    run = write(tmp_path / "r", [item(0)], header={"engine": "x", "memory": {**memory, "total": 3 << 30}})
    assert "3,072 of 4,096 MiB on Orin" in page_of(run).text
    assert f"3,072 of 4,096 MiB on Orin; at most {said}" in page_of(metered(run, unified=unified)).text


def test_a_run_without_samples_is_not_drawn(tmp_path: Path) -> None:
    """Older runs, and those of the reference, alone and beside a metered one."""
    old = write(tmp_path / "old", [item(i) for i in range(12)])
    assert "Over time" not in page_of(old).text
    new = metered(write(tmp_path / "new", [item(i) for i in range(12)]))
    page = page_of(old, new)
    assert len(drawn(page)) == 4
    assert "Power new: 250.0 W on average" in page.text
    assert "old: 2" not in page.text


def test_a_killed_run_is_drawn_from_its_samples(tmp_path: Path) -> None:
    """There is no report to take numbers from."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]))
    page = page_of(replace(run, report={}))
    assert len(drawn(page)) == 4
    assert "9,500 J in 38 s" in page.text


def test_the_command_writes_pages_and_prints_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run: beside it. Several: ./comparison.html. ``--json``: what the page shows."""
    monkeypatch.chdir(tmp_path)
    write(Path("a"), [item(i) for i in range(12)])
    done = CliRunner().invoke(app, ["report", "a"])
    assert done.exit_code == 0, done.output
    assert "75.00%" in done.stdout
    assert "75.00" in Path("a/report.html").read_text(encoding="utf-8")
    references = [str(REFERENCE / dtype) for dtype in ("float32", "bfloat16")]
    done = CliRunner().invoke(app, ["report", "a", *references, "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [run["name"] for run in shown["runs"]] == ["a", "float32", "bfloat16"]
    assert [entry is None for entry in shown["tasks"]["exam"]] == [True, False, False]
    text = Path("comparison.html").read_text(encoding="utf-8")
    for entry in shown["tasks"]["exam"][1:]:
        assert f"{100 * entry['accuracy']:.2f}" in text
    with pytest.raises(UserError, match="does not hold a run"):
        CliRunner().invoke(app, ["report", "nowhere"], catch_exceptions=False)
    with pytest.raises(UserError, match="is a folder"):
        CliRunner().invoke(app, ["report", "a", "--out", "a"], catch_exceptions=False)


@in_a_browser
def test_the_browser_tells_of_errors_and_overflow(tmp_path: Path) -> None:
    """The instrument itself: a page with a failing script, too wide, that fetches something."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('here')</script><p style='width:600px'>x<img src='http://127.0.0.1:9/x.png'>")
    seen = browser.show(bad, tmp_path, 390)
    assert any("here" in line for line in seen.console)
    assert seen.scroll >= 600 > seen.client == 390
    assert seen.loaded


@in_a_browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["single", "two", "failures", "empty", "reference", "metered", "metered two"])
def test_a_browser_shows_it_without_a_word(tmp_path: Path, kind: str, width: int) -> None:
    """No console message, nothing fetched, no horizontal scroll; the picture is not blank."""
    long = "no_space_in_" * 60
    lost = [item(i, failed=long, prediction=EVIL, target=long, id=f"{long}{i}", group=long) for i in range(20)]
    memory = {"device": {"name": "CPU", "available": 1 << 30}, "terms": {"weights": 1 << 28}, "total": 1 << 28}
    header = {"engine": "llama.cpp", "command": long, "model": {"name": "m", "sha256": "0" * 64}, "memory": memory}
    items = [item(i) for i in range(40)]
    runs = {
        "single": lambda: [write(tmp_path / "r", items, header=header)],
        "two": lambda: [write(tmp_path / "r", items, header=header), write(tmp_path / long[:200], items[:30])],
        "failures": lambda: [write(tmp_path / "r", [*lost, *items[20:]], warnings=[long])],
        "empty": lambda: [write(tmp_path / "r", [], header=header)],
        "metered": lambda: [limited(metered(write(tmp_path / "r", items, header=header), 900, gpus=TWO_GPUS))],
        "metered two": lambda: [
            limited(metered(write(tmp_path / "r", items, header=header))),
            metered(write(tmp_path / long[:200], items[:30]), 50, known=False, gpus=TWO_GPUS),
            Run.open(REFERENCE / "float32"),
        ],
        "reference": lambda: [Run.open(REFERENCE / dtype) for dtype in ("float32", "bfloat16")],
    }[kind]()
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(render(view(runs)), encoding="utf-8")
    seen = browser.show(page, tmp_path, width, picture=picture)
    assert seen.console == []
    assert seen.loaded == []
    assert seen.client == width
    assert seen.scroll <= width
    assert picture.stat().st_size > 5000


def test_the_page_lies_beside_the_run(tmp_path: Path) -> None:
    write(tmp_path / "r", [item(0)])
    write_report(tmp_path / "r")
    assert (tmp_path / "r" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
