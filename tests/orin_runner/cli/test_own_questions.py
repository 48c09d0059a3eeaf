"""A file of questions where a task is named: as docs/usage.md shows it, and the runs of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from eval.runs.run import Run
from eval.tasks.base import LoadOptions
from eval.tasks.own import own_task
from tests.support.commands import orin_run, refused
from tests.support.paths import ROOT, TINY

FISH = {"question": "Which is a fish?", "choices": ["whale", "trout"], "answer": "B"}
SECTION = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8").partition("\n## Your own questions\n")[2]
SECTION = SECTION.partition("\n## ")[0]


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """The files of the section, in a folder."""
    found = re.findall(r"^`([\w.]+)`:\n\n```\n(.*?)```", SECTION, re.MULTILINE | re.DOTALL)
    assert len(found) == 5
    for name, content in found:
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def test_the_documented_commands_run(documented: Path, tiny_gguf: Path) -> None:
    """Each that needs no data; every question of every file is answered."""
    commands = [line for line in re.findall(r"^orin-run .*$", SECTION, re.MULTILINE) if "FOLDER" not in line]
    assert len(commands) == 3
    items = []
    for i, line in enumerate(commands):
        out = documented / f"run{i}"
        done = orin_run(*shlex.split(line)[1:], "--model", tiny_gguf, "--out", out, cwd=documented)
        assert done.returncode == 0, done.stderr
        run = Run.open(out)
        assert all(prediction.failed is None for prediction in run.predictions.values())
        items.append({name: section["items"] for name, section in run.report["tasks"].items()})
    assert items == [
        {"my_questions.jsonl": 3},
        {"my_questions.jsonl": 3, "letters.csv": 2, "texts.jsonl": 2},
        {"my_questions.jsonl": 3},
    ]


def test_the_documented_prompt_is_the_prompt(documented: Path) -> None:
    task = own_task(*(documented / name for name in ("my_questions.jsonl", "template.txt", "examples.jsonl")))
    prompt = task.load(LoadOptions()).docs[0].prompt
    assert f"The prompt of the first question is then:\n\n```\n{prompt}\n```\n" in SECTION


def mine(folder: Path, *rows: object, name: str = "mine.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def test_a_run_knows_its_files_again(tmp_path: Path, tiny_gguf: Path) -> None:
    """Another question file, template or few-shot file is refused by --resume and diff; another place is not."""
    path, few = mine(tmp_path, FISH, FISH), mine(tmp_path, FISH, name="few.jsonl")
    template = tmp_path / "t.txt"
    template.write_text("{question}\n{choices}\nAnswer:")
    files = ("--template", template, "--fewshot", few)
    command = ("eval", path, "--model", tiny_gguf)
    run = tmp_path / "run"
    done = orin_run(*command, *files, "--out", run)
    assert done.returncode == 0, done.stderr
    (tmp_path / "moved").mkdir()
    moved = mine(tmp_path / "moved", FISH, FISH)
    done = orin_run("eval", moved, "--model", tiny_gguf, *files, "--out", run, "--resume")
    assert "holds all 2 answers" in done.stderr, done.stderr
    for changed, content, what in (
        (path, json.dumps(FISH) * 1 + "\n" + json.dumps({**FISH, "note": "new"}) + "\n", "questions"),
        (template, "{question} \n{choices}\nAnswer:", "--template"),
        (few, json.dumps({**FISH, "answer": "A"}) + "\n", "--fewshot"),
    ):
        before = changed.read_text()
        changed.write_text(content)
        refused(orin_run(*command, *files, "--out", run, "--resume"), "holds a run with questions mine.jsonl: ")
        other = tmp_path / f"other-{changed.name}"
        assert orin_run(*command, *files, "--out", other).returncode == 0
        refused(orin_run("diff", other, run), f"the runs asked with different {what} of mine.jsonl: ")
        changed.write_text(before)


def test_plan_and_reference_take_it(tmp_path: Path, tiny_gguf: Path) -> None:
    """And the reference's answers are compared with the runner's, prompt by prompt."""
    path = mine(tmp_path, FISH, {**FISH, "question": "Which swims?"})
    few = mine(tmp_path, FISH, name="few.jsonl")
    done = orin_run("plan", path, "--fewshot", few, "--model", tiny_gguf, "--json")
    assert (done.returncode, json.loads(done.stdout)["requests"]) == (0, 2)
    for command, model in (("eval", tiny_gguf), ("reference", TINY)):
        done = orin_run(command, path, "--fewshot", few, "--model", model, "--out", tmp_path / command)
        assert done.returncode == 0, done.stderr
    found = json.loads(orin_run("diff", tmp_path / "eval", tmp_path / "reference", "--json").stdout)
    section = found["tasks"]["mine.jsonl"]
    assert (section["items"], section["same_token_ids"]) == (2, 2)


class TestMistakes:
    """One line, exit status 2, nothing written."""

    def test_in_a_row(self, tmp_path: Path, tiny_gguf: Path) -> None:
        path = mine(tmp_path, FISH, {**FISH, "answer": "C"})
        done = orin_run("eval", path, "--model", tiny_gguf, "--out", tmp_path / "run")
        refused(done, f"{path}, line 2: the answer 'C' is none of the 2 choices; a question has question, choices")
        assert not (tmp_path / "run").exists()

    def test_two_files_of_one_name(self, tmp_path: Path, tiny_gguf: Path) -> None:
        (tmp_path / "other").mkdir()
        paths = mine(tmp_path, FISH), mine(tmp_path / "other", FISH)
        refused(orin_run("eval", *paths, "--model", tiny_gguf), "two files of questions have the same name")

    @pytest.mark.parametrize("option", ["--template", "--fewshot"])
    def test_files_for_tasks_that_are_none(self, tmp_path: Path, tiny_gguf: Path, option: str) -> None:
        done = orin_run("eval", "exam", option, mine(tmp_path, FISH), "--model", tiny_gguf, cwd=tmp_path)
        refused(done, f"{option} is for questions of your own")

    @pytest.mark.parametrize("name", ["nowhere.jsonl", "./nowhere.csv", "exam.json"])
    def test_a_file_that_is_not_there(self, tmp_path: Path, tiny_gguf: Path, name: str) -> None:
        done = orin_run("eval", name, "--model", tiny_gguf, cwd=tmp_path)
        refused(done, f"{Path(name)} does not exist; name one that does; orin-run tasks lists")

    def test_letters_that_are_more_than_the_alphabet(self, tmp_path: Path, tiny_gguf: Path) -> None:
        path = mine(tmp_path, {**FISH, "choices": [f"fish {i}" for i in range(27)], "answer": 26})
        done = orin_run("eval", path, "--model", tiny_gguf, "--out", tmp_path / "run")
        refused(done, "mine.jsonl: a question has more choices than there are letters; --scoring text")
        command = ("eval", path, "--model", tiny_gguf, "--scoring", "text", "--out", tmp_path / "run")
        done = orin_run(*command)
        assert done.returncode == 0, done.stderr
        (item,) = Run.open(tmp_path / "run").predictions.values()
        assert item.target == "27"
