"""What the page of a run says, and that it stays text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.report.meanings import IN_WORDS, MEANINGS
from eval.report.page import render, view, weight
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from orin_runner.cli.main import app
from orin_runner.cli.result import write_report
from orin_runner.errors import UserError
from tests.support.pages import EVIL, Page, item, limited, log, metered, page_of, whole, write
from tests.support.paths import REFERENCE


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
    assert page.headings == "Weights | Further metrics | Calibration | Margins | Weights", "a link, and sections"


def test_the_page_names_split_and_rows(tmp_path: Path) -> None:
    """Of one run and of several, with the document's words as tooltips; where a report has none nothing is said."""
    runs = [write(tmp_path / name, [item(i) for i in range(40)]) for name in ("part", "whole", "old")]
    for run, source in zip(runs, [{"split": "dev", "rows": 3198}, {"split": "test", "rows": 40}], strict=False):
        run.report["tasks"]["t"] |= source
    page = page_of(runs[0])
    assert "40 of 3,198 rows, evenly spread, of the dev split" in page.text
    titles = [attrs["title"] for _, attrs in page.tags if "title" in attrs]
    assert set(titles) == {*MEANINGS.values(), *IN_WORDS.values()}
    several = page_of(*runs).text.replace(" .", ".")
    assert "part: 40 of 3,198 rows, evenly spread, of the dev split. whole: all 40 rows of the test split." in several
    assert "old: all" not in several
    assert "rows" not in page_of(runs[2]).text
    shown = view(runs)["tasks"]["t"]
    assert [(entry["split"], entry["rows"]) for entry in shown] == [("dev", 3198), ("test", 40), (None, None)]
    runs[0].report["tasks"]["t"] |= {"first": 0.1}
    assert "40 of 3,198 rows, the first of each group, of the dev split" in page_of(runs[0]).text


def test_sections_without_data_are_absent(tmp_path: Path) -> None:
    items = [item(i, logprobs=None, margin=None, text="x", scores={"em": 1.0}) for i in range(3)]
    page = page_of(write(tmp_path / "r", items, header={"engine": "x"}))
    assert page.headings == ""
    assert "least certain" not in page.text
    assert "the longest prompts" in page.text


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
    assert "truncated prompts" not in page
    assert "were skipped" not in page


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
    """A prediction, id, group, task, target, reason, warning, header and folder that are HTML stay text.

    The page's two scripts are its own.
    """
    evil = item(1, prediction=EVIL, id=EVIL, group=EVIL, target=EVIL, failed=EVIL, scores={"acc": 1.0, EVIL: 1.0})
    header = {"engine": EVIL, "model": {"name": EVIL, "sha256": EVIL, "types": {EVIL: 1}}, "settings": {EVIL: EVIL}}
    header["memory"] = {"device": {"name": EVIL}, "terms": {EVIL: 5}}
    run = write(tmp_path / "<b>r", [evil, item(2)], header=header, warnings=[EVIL])
    for page in (page_of(run), page_of(run, replace(run, directory=tmp_path / "<script>"))):
        tags = {tag for tag, _ in page.tags}
        assert not tags & {"script", "img", "b>r"}, tags
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert page.text.count("console.error('ran')") >= 12
    run = log(run, {"prompt": EVIL, "choices": [EVIL], "labels": [EVIL]}, {"prompt": "</script>"})
    page = Page(whole(run))
    assert [attributes.get("id") for tag, attributes in page.tags if tag == "script"] == ["packed", None]
    assert "img" not in {tag for tag, _ in page.tags}


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """No address but the empty icon and places in the page, each of which is there."""
    memory = {"device": {"name": "CPU"}, "terms": {"weights": 1}, "total": 1}
    runs = [
        metered(write(tmp_path / name, [item(i) for i in range(9)], header={"engine": name, "memory": memory}))
        for name in ("r", "s")
    ]
    for compared in (runs[:1], runs):
        text = whole(*compared)
        page = Page(text)
        links = {address for _, a in page.tags for key in ("href", "src") if (address := a.get(key)) is not None}
        places = {f"#{a['id']}" for _, a in page.tags if "id" in a}
        assert links - places == {"data:,"}
        assert {"#items", "#task-1", "#over-time", "#weights", "#memory-0", "#environment"} - links <= {"#weights"}
        assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)


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


def test_the_page_lies_beside_the_run(tmp_path: Path) -> None:
    write(tmp_path / "r", [item(0)])
    write_report(tmp_path / "r")
    assert (tmp_path / "r" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_card_names_the_metric_and_says_what_clocks_and_near_ties_are(tmp_path: Path) -> None:
    """In plain words that are to be read, not only under the mouse."""
    run = write(tmp_path / "r", [item(i) for i in range(12)])
    page = page_of(run)
    assert "t acc 75.00 %" in page.text
    for name in ("challenge 2024", "challenge 2023"):
        assert f"{name} : {IN_WORDS[name]}" in page.text or f"{name}: {IN_WORDS[name]}" in page.text.replace(" :", ":")
    assert f"near-tie is {IN_WORDS['near-tie']}" in page.text
    assert "challenge" not in page_of(replace(run, report={})).text, "nothing is explained that is not there"


def test_few_items_look_weaker_than_many(tmp_path: Path) -> None:
    """Marks are as opaque as their 95 % interval is narrow, in the table and in the calibration."""
    items = [item(i, group="many") for i in range(60)] + [item(i + 100, group="few") for i in range(2)]
    text = render(view([write(tmp_path / "r", items)]))
    lanes = [float(found) for found in re.findall(r'<g class="r0" opacity="([\d.]+)">', text)]
    everything, many, few = lanes[:3]
    assert everything >= many > 0.7
    assert few < 0.4
    assert weight((0.0, 1.0)) == "0.20"
    assert weight((0.5, 0.75)) == "0.75"
    bins = view([write(tmp_path / "s", items)])["tasks"]["t"][0]["calibration"]["bins"]
    assert text.count("95 % interval ") >= len(bins)


def test_the_page_says_how_to_get_its_prompts(tmp_path: Path) -> None:
    """For a run of eval, of the reference, and one that was merged; nothing where they are there."""
    commands = {
        "llama.cpp": f"orin-run eval --resume --out {tmp_path}/eval --log-items",
        "transformers": "orin-run reference … --log-items",
    }
    for name, engine in (("eval", "llama.cpp"), ("reference", "transformers")):
        run = write(tmp_path / name, [item(0)], header={"engine": engine})
        assert commands[engine] in page_of(run).text
        assert "written down" not in page_of(log(run, {"prompt": "x"})).text
    merged = write(tmp_path / "merged", [item(0)], header={"engine": "llama.cpp", "shards": []})
    assert "a merged run keeps none" in page_of(merged).text
