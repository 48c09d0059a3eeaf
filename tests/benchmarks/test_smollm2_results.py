"""``make smollm2`` and the whole result, on a tiny model: what is run, what is said, and every figure of the page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.smollm2.checkpoint import Expanded
from benchmarks.smollm2.page import ALL, FEWER, FOUR_BIT, REFERENCE, write_page
from tests.support.commands import refused
from tests.support.small_data import small_data
from tests.support.smollm2 import TinySmolLM2, run_module

EXPANDED = "weights expanded from a quantized file, not the published ones: Tiny.Q4_1.gguf"
TASKS = ("winogrande", "bbh_direct")
LIMIT, SPREAD, BOUND = 6, 2, 4
ORIGIN = Expanded("Tiny.Q4_1.gguf", "0" * 64, {"Q4_1": 14}, 1000, 10)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> TinySmolLM2:
    return TinySmolLM2.build(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, with as many worked examples of BIG-Bench Hard as the published ones have."""
    folder = small_data(tmp_path_factory.mktemp("data"))
    for path in (folder / "bbh" / "cot-prompts").iterdir():
        head, _, example = path.read_text(encoding="utf-8").partition("\n\nQ: ")
        path.write_text(head + f"\n\nQ: {example}" * 3, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def work(smollm2: TinySmolLM2, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sitting of three tasks."""
    folder = tmp_path_factory.mktemp("work")
    done = sitting(smollm2, data, folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    return folder


def sitting(
    smollm2: TinySmolLM2, data: Path, work: Path, tasks: tuple[str, ...] = TASKS, more: tuple[str, ...] = ()
) -> Any:
    words = ("--gguf", smollm2.gguf, "--data", data, "--work", work, "--tasks", ",".join(tasks))
    bounds = ("--limit", str(LIMIT), "--spread", str(SPREAD), "--text-bound", str(BOUND))
    return run_module("benchmarks.smollm2.whole_result", *words, *bounds, *more)


def section(work: Path, side: str, task: str) -> dict[str, Any]:
    report = json.loads((work / side / task / "report.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = report["tasks"][task]
    return found


def predictions(run: Path) -> dict[str, dict[str, Any]]:
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {item["id"]: item for item in map(json.loads, lines)}


def settings(work: Path, side: str, task: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / side / task / "run.json").read_text(encoding="utf-8"))["settings"]
    return found


def table(page: str, title: str) -> dict[str, dict[str, str]]:
    """The first table under a title: by the first cell (and the third where that stands twice), cells by heading."""
    lines = page.partition(f"## {title}")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, body = rows[0], rows[2:]
    return {
        row[0] if "metric" not in head else f"{row[0]} {row[head.index('metric')]}": dict(zip(head, row, strict=True))
        for row in body
        if len(row) == len(head)
    }


class TestMakeSmolLM2:
    """The tiny file stands in for the package's."""

    def run(self, smollm2: TinySmolLM2, folder: Path, *words: str | Path) -> Any:
        folders = ("--models", folder / "models", "--runs", folder / "runs")
        return run_module("benchmarks.smollm2", "--gguf", smollm2.gguf, "--limit", "3", *folders, *words)

    def test_without_data_the_exam_is_asked_and_that_is_said(self, smollm2: TinySmolLM2, tmp_path: Path) -> None:
        """And that the weights are a quantized file's, before and after; both sides' rates."""
        done = self.run(smollm2, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "only the exam of this repository is asked" in done.stderr
        assert done.stdout.count(EXPANDED) == 2
        assert "0 values altered; compared bit for bit" in done.stdout
        assert re.search(r"^exam +exact_match +3 ", done.stdout, re.MULTILINE)
        assert "the same checkpoint (proof: verified)" in done.stdout
        for side in ("orin-run", "transformers-float32"):
            assert re.search(rf"^{side}: 3 items in \d+\.\d s, [\d,]+ tokens/s computed", done.stdout, re.MULTILINE)
        header = json.loads((tmp_path / "runs" / "orin-run" / "run.json").read_text(encoding="utf-8"))
        assert header["model"]["name"] == "Tiny.Q4_1-expanded.gguf"

    @pytest.mark.slow
    def test_data_at_hand_is_asked(self, smollm2: TinySmolLM2, data: Path, tmp_path: Path) -> None:
        """Those of its own list that are there; an earlier comparison is replaced."""
        (tmp_path / "runs" / "orin-run").mkdir(parents=True)
        (tmp_path / "runs" / "orin-run" / "run.json").write_text("{}", encoding="utf-8")
        done = self.run(smollm2, tmp_path, "--data", data)
        assert done.returncode == 0, done.stderr
        header = json.loads((tmp_path / "runs" / "orin-run" / "run.json").read_text(encoding="utf-8"))
        assert header["settings"]["tasks"] == ["winogrande", "hellaswag"]
        assert header["settings"]["limit"] == 3

    def test_a_folder_without_data_is_refused(self, smollm2: TinySmolLM2, tmp_path: Path) -> None:
        """Before anything is made: the exam does not stand in for data that was meant."""
        done = self.run(smollm2, tmp_path, "--data", tmp_path / "nowhere")
        refused(done, "has no files of arc_easy")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_what_a_program_refuses_ends_it(self, smollm2: TinySmolLM2, data: Path, tmp_path: Path) -> None:
        done = self.run(smollm2, tmp_path, "--data", data, "--tasks", "winogrand")
        refused(done, "unknown task 'winogrand'")
        assert "orin-run reference" not in done.stdout


class TestWholeResult:
    """A sitting: its runs, and that it goes on where it was."""

    def test_each_side_is_asked_what_the_page_says(self, work: Path) -> None:
        """All rows in 16 and 4 bit; of choices as many by transformers, of texts fewer and shorter ones."""
        for task in TASKS:
            limits = {side: settings(work, side, task)["limit"] for side in (ALL, FOUR_BIT, REFERENCE)}
            texts = task == "bbh_direct"
            assert limits == {ALL: LIMIT, FOUR_BIT: LIMIT, REFERENCE: SPREAD if texts else LIMIT}
            assert (work / FEWER / task).exists() == texts
        assert settings(work, FEWER, "bbh_direct")["max_new_tokens"] == BOUND
        assert settings(work, ALL, "bbh_direct")["max_new_tokens"] is None
        header = json.loads((work / FOUR_BIT / "winogrande" / "run.json").read_text(encoding="utf-8"))
        assert header["model"]["lossy"]
        assert "Q4_1" in header["model"]["types"]
        assert header["model"]["tokenizer"] == "huggingface"

    def test_what_has_ended_is_not_run_again(
        self, smollm2: TinySmolLM2, data: Path, work: Path, tmp_path: Path
    ) -> None:
        """A run without a report goes on."""
        copy = tmp_path / "work"
        shutil.copytree(work, copy)
        (copy / FOUR_BIT / "winogrande" / "report.json").unlink()
        (copy / "smollm2.md").unlink()
        done = sitting(smollm2, data, copy)
        assert done.returncode == 0, done.stderr
        commands = [line for line in done.stdout.splitlines() if line.startswith("$")]
        assert len(commands) == 1, commands
        assert "--allow-quantized" in commands[0]
        assert commands[0].endswith("--resume")
        assert section(copy, FOUR_BIT, "winogrande")["items"] == LIMIT
        assert (copy / "smollm2.md").exists()

    def test_a_page_can_be_written_between_any_two_runs(self, work: Path, tmp_path: Path) -> None:
        """By a process with other tasks, or when a sitting goes on: transformers never stands beside other rows."""
        copy = tmp_path / "work"
        shutil.copytree(work, copy)
        commands = (work / "stdout").read_text(encoding="utf-8").splitlines()
        outs = [line.partition(" --out ")[2].split()[0] for line in commands if " --out " in line]
        assert len(outs) == len(TASKS) * 3 + 1
        for out in reversed(outs[1:]):
            shutil.rmtree(copy / Path(out).relative_to(work))
            write_page(copy, ORIGIN, copy / "page.md")

    def test_a_task_without_data_is_refused(self, smollm2: TinySmolLM2, data: Path, work: Path) -> None:
        done = sitting(smollm2, data, work, ("mmlu",))
        refused(done, "has no files of mmlu")


class TestPage:
    """Each figure against the run folder that it is of."""

    @pytest.fixture
    def page(self, work: Path) -> str:
        return (work / "smollm2.md").read_text(encoding="utf-8")

    def test_it_says_where_the_weights_are_from(self, page: str) -> None:
        assert EXPANDED in page
        assert page.splitlines()[0] == "# SmolLM2-135M-Instruct, expanded from a 4-bit file"

    def test_a_remark_is_the_last_of_its_conditions(
        self, page: str, smollm2: TinySmolLM2, data: Path, work: Path, tmp_path: Path
    ) -> None:
        """On one line, whatever its white space; without ``--remark`` the page is the same but for it."""
        copy = tmp_path / "work"
        shutil.copytree(work, copy)
        done = sitting(smollm2, data, copy, more=("--remark", "Six processes at once,\n  on two GPUs."))
        assert done.returncode == 0, done.stderr
        lines = (copy / "smollm2.md").read_text(encoding="utf-8").splitlines()
        at = lines.index("* Six processes at once, on two GPUs.")
        assert lines[at - 1].startswith("* Versions: ")
        assert lines[at + 1] == ""
        assert lines[:at] + lines[at + 1 :] == page.splitlines()

    def test_accuracies_with_standard_errors(self, page: str, work: Path) -> None:
        """Of all metrics of both files."""
        found = table(page, "Accuracy")
        for task in TASKS:
            for side, heading in ((ALL, "16 bit"), (FOUR_BIT, "4 bit")):
                for metric, value in section(work, side, task)["metrics"].items():
                    wanted = f"{100 * value['value']:.2f} ± {100 * value['stderr']:.2f}"
                    assert found[f"{task} {metric}"][heading] == wanted
        assert found["winogrande acc"]["rows"] == "6 of 10 validation"

    def test_tokens_and_times(self, page: str, work: Path) -> None:
        found = table(page, "Tokens and time")
        for task in TASKS:
            tokens = section(work, ALL, task)["tokens"]
            assert found[task]["sent"] == f"{tokens['sent']:,}"
            assert float(found[task]["computed / unique"]) == pytest.approx(
                tokens["computed"] / tokens["unique"], abs=1e-4
            )
            assert found[task]["transformers' items"] == str(section(work, REFERENCE, task)["items"])

    def test_the_cards_figures_stand_beside_what_was_run(self, page: str, work: Path) -> None:
        """And no others."""
        found = table(page, "Beside the model card")
        assert set(found) == {"Winogrande", "BBH (3-shot)"}
        value = section(work, ALL, "bbh_direct")["metrics"]["exact_match"]["value"]
        assert (found["BBH (3-shot)"]["card, %"], found["BBH (3-shot)"]["model"]) == ("28.2", "instruct")
        assert f"bbh_direct exact_match {100 * value:.2f} ±" in found["BBH (3-shot)"]["here, %"]
        assert (found["Winogrande"]["card, %"], found["Winogrande"]["model"]) == ("51.3", "base")

    def test_every_flip_is_classified(self, work: Path, tmp_path: Path) -> None:
        """One that rounding cannot explain is named, with its leads; near-ties are counted."""
        copy = tmp_path / "work"
        shutil.copytree(work, copy)
        ours, theirs = (predictions(copy / side / "winogrande") for side in (ALL, REFERENCE))
        assert ours.keys() == theirs.keys()
        far, near = list(theirs)[:2]
        for key, margin in ((far, 7.25), (near, 0.0)):
            item = theirs[key]
            item["prediction"] = "1" if ours[key]["prediction"] == "2" else "2"
            item["margin"], ours[key]["margin"] = margin, margin
        for side, items in ((ALL, ours), (REFERENCE, theirs)):
            text = "".join(json.dumps(item) + "\n" for item in items.values())
            (copy / side / "winogrande" / "predictions.jsonl").write_text(text, encoding="utf-8")
        write_page(copy, ORIGIN, copy / "page.md")
        page = (copy / "page.md").read_text(encoding="utf-8")
        row = table(page, "Agreement with transformers in float32, item by item")["winogrande"]
        assert (row["flips"], row["near-ties"], row["unexplained"]) == ("2", "1", "1")
        (named,) = [
            line for line in page.splitlines() if "| unexplained |" in line and line.startswith("| winogrande |")
        ]
        assert f"| {far} |" in named
        assert "| 7.25 | 7.25 |" in named
