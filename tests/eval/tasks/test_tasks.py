"""Tasks: the prompts they write, and what they say of malformed data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.tasks.base import LoadOptions
from eval.tasks.mmlu import SUBJECTS
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from orin_runner.model.candidates import choices_in

CONTENT = "\nRead.\n\nquestion: Gas can fill any container, and liquid\nchoices: ['is standard', \"isn't\", 'uses']\n"


@pytest.fixture
def mmlu(tmp_path: Path) -> Path:
    """Two questions and two worked examples per subject, in the published layout."""
    for split, count in (("dev", 2), ("test", 2)):
        folder = tmp_path / "mmlu" / split
        folder.mkdir(parents=True)
        for subject in SUBJECTS:
            rows = "".join(f'" {split} {i}?\nsecond, line ",w{i},x,y,z,{"ABCD"[i]}\r\n' for i in range(count))
            (folder / f"{subject}_{split}.csv").write_text(rows, newline="")
    return tmp_path


def test_mmlu_prompt_to_the_letter(mmlu: Path) -> None:
    """Intro, stripped questions, choices as they are, a space before the letter, a blank line between shots."""
    docs = get_task("mmlu").load(LoadOptions(mmlu, shots=1)).docs
    assert len(docs) == 2 * 57
    assert docs[2].group == "anatomy"
    assert docs[2].prompt == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "dev 0?\nsecond, line\nA. w0\nB. x\nC. y\nD. z\nAnswer: A\n\n"
        "test 0?\nsecond, line\nA. w0\nB. x\nC. y\nD. z\nAnswer:"
    )
    assert docs[2].choices == (" A", " B", " C", " D")
    assert [doc.target for doc in docs[:2]] == ["A", "B"]


def test_limit_spreads_over_all_subjects(mmlu: Path) -> None:
    """57 of 114 questions are one of each subject."""
    found = get_task("mmlu").load(LoadOptions(mmlu, limit=57, shots=0))
    docs = found.docs
    assert (found.split, found.rows) == ("test", 2 * 57)
    assert [doc.group for doc in docs] == list(SUBJECTS)


def test_mmlu_names_the_malformed_line(mmlu: Path) -> None:
    """Too few fields, and an answer that is no letter."""
    path = mmlu / "mmlu" / "test" / "anatomy_test.csv"
    path.write_text("a,b,c,d,e,A\na,b,c,d,A\n")
    with pytest.raises(UserError, match=r"anatomy_test.csv, line 2: 5 fields instead of 6"):
        get_task("mmlu").load(LoadOptions(mmlu, shots=0))
    path.write_text("a,b,c,d,e,E\n")
    with pytest.raises(UserError, match=r"anatomy_test.csv, line 1: the answer is 'E'"):
        get_task("mmlu").load(LoadOptions(mmlu, shots=0))


def test_mmlu_has_two_shots_here_not_five(mmlu: Path) -> None:
    """More shots than worked examples."""
    with pytest.raises(UserError, match="mmlu has 2 worked examples for abstract_algebra, not 5"):
        get_task("mmlu").load(LoadOptions(mmlu))


def test_mmlu_from_the_hub(mmlu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's columns give the same questions as the files; the revision is pinned."""
    import datasets

    asked = []

    def load(repository: str, config: str, *, split: str, revision: str) -> list[dict[str, object]]:
        asked.append((repository, revision, split))
        rows = [(f"{split} {i}?\nsecond, line", [f"w{i}", "x", "y", "z"], i) for i in range(2)]
        return [{"question": f" {q} ", "choices": c, "answer": a, "subject": config} for q, c, a in rows]

    monkeypatch.setattr(datasets, "load_dataset", load)
    hub = get_task("mmlu").load(LoadOptions(shots=2)).docs
    files = get_task("mmlu").load(LoadOptions(mmlu, shots=2)).docs
    assert hub == files
    assert {(repository, len(revision)) for repository, revision, _ in asked} == {("cais/mmlu", 40)}


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --data as the way out."""
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nlong explanation")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"cannot load cais/mmlu from the hub: Couldn't reach the Hub; .*--data DIR"):
        get_task("mmlu").load(LoadOptions())


def test_challenge_rows(tmp_path: Path) -> None:
    """The organisers' form: the conversation as it is, the choices read out of it, 500 tokens at most."""
    path = tmp_path / "data.jsonl"
    row = {"message": [{"role": "user", "content": CONTENT}], "answer": "uses"}
    path.write_text(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    docs = get_task("challenge").load(LoadOptions(path)).docs
    assert [doc.id for doc in docs] == ["data/1", "data/3"]
    assert docs[0].prompt == ({"role": "user", "content": CONTENT},)
    assert docs[0].choices == ("is standard", "isn't", "uses")
    assert docs[0].max_new_tokens == 500
    assert get_task("challenge").normalize(" \n uses\n it ") == "uses it "


def test_choices_of_a_prompt() -> None:
    """The longest published sample lists True and False without quotes; a broken list is no list."""
    assert choices_in("passage: choices: ['no']\nquestion: q\nchoices: [True, False]\n") == ("True", "False")
    assert choices_in("choices: ['a', \n") == ()
    assert choices_in("choices: [a, b]\n") == ()
    assert choices_in("no list") == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: not a JSON object"),
        ('{"message": []}', "line 2: no 'answer'"),
        ('{"message": [], "answer": "x"}', "line 2: 'message' is empty"),
        (
            '{"message": [{"role": "user", "content": "x"}], "answer": 3}',
            "line 2: 'answer' is 3 and",
        ),
    ],
)
def test_challenge_names_the_malformed_line(tmp_path: Path, line: str, message: str) -> None:
    """Each with file and line number."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"message": [{"role": "user", "content": "x"}], "answer": "y"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        get_task("challenge").load(LoadOptions(path))


def test_missing_data_names_the_option(tmp_path: Path) -> None:
    """What is missing, and that --data names the folder."""
    with pytest.raises(UserError, match=r"abstract_algebra_dev.csv does not exist; --data names"):
        get_task("mmlu").load(LoadOptions(tmp_path))
    with pytest.raises(UserError, match="challenge's data is not on the hub"):
        get_task("challenge").load(LoadOptions())


def test_unknown_tasks_suggest_the_nearest_name() -> None:
    """Or list all of them."""
    with pytest.raises(UserError, match=r"unknown task 'mmlo'; did you mean 'mmlu'\?"):
        get_task("mmlo")
    with pytest.raises(UserError, match="orin-run tasks lists all"):
        get_task("zzzzz")
