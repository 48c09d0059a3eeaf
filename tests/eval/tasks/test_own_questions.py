"""Questions of the user's own: forms of files, prompts, answers, and what is wrong with a row in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from eval.data.question_file import is_question_file
from eval.tasks.base import LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.own import own_task
from eval.tasks.registry import GROUPS, TASKS
from orin_runner.errors import UserError

FISH = {"question": "Which is a fish?", "choices": ["whale", "trout", "newt"], "answer": "B"}
MMLU_FORM = "Which is a fish?\nA. whale\nB. trout\nC. newt\nAnswer:"


def file(folder: Path, *rows: Any, name: str = "mine.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def docs(path: Path, template: Path | None = None, fewshot: Path | None = None, **options: Any) -> list[Doc]:
    return own_task(path, template, fewshot).load(LoadOptions(**options)).docs


def refusal(path: Path, *files: Path | None) -> str:
    with pytest.raises(UserError) as raised:
        docs(path, *files)
    return f"{raised.value.message}; {raised.value.hint}"


class TestForms:
    """The same question in every form of file is the same question."""

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("mine.jsonl", json.dumps(FISH) + "\n"),
            ("mine.json", json.dumps([FISH], indent=1)),
            ("mine.csv", "\ufeffquestion,A,B,C,answer\nWhich is a fish?,whale,trout,newt,B\n"),
            ("mine.csv", 'answer,question,A,B,C,D\r\n1,"Which is a fish?",whale,trout,newt,\r\n'),
        ],
        ids=["lines", "list", "csv", "csv-columns-otherwise"],
    )
    def test_choices(self, tmp_path: Path, name: str, content: str, packed: bool) -> None:
        path = text(tmp_path, name, content)
        if packed:
            path = tmp_path / f"{name}.gz"
            path.write_bytes(gzip.compress(content.encode()))
        (doc,) = docs(path)
        assert (doc.prompt, doc.choices, doc.labels) == (MMLU_FORM, (" A", " B", " C"), ("A", "B", "C"))
        assert (doc.target, doc.mode, doc.single_token) == ("B", "choose", True)

    def test_a_csv_cell_may_have_lines(self, tmp_path: Path) -> None:
        """And the line that is named is the file's, not the row's number."""
        path = text(tmp_path, "x.csv", 'prompt,answer\n"one\ntwo",a\n\n"three\nfour",\n')
        assert "x.csv, line 6: no 'answer'" in refusal(path)
        path = text(tmp_path, "y.csv", 'prompt,answer\n"one\ntwo",a\n')
        assert docs(path)[0].prompt == "one\ntwo"

    def test_texts(self, tmp_path: Path) -> None:
        one, two = docs(
            file(tmp_path, {"prompt": "2+2=", "answer": [" four", "4"]}, {"prompt": "1+1=", "answer": 2, "id": 7})
        )
        assert (one.prompt, one.mode, one.target, one.references) == ("2+2=", "generate", "four", ("4",))
        assert (one.id, two.id, two.target) == ("1", "7", "2")
        assert (one.until, one.max_new_tokens) == (("\n\n",), 256)
        (asked,) = docs(file(tmp_path, {"question": "Who?", "answer": "me"}, name="q.jsonl"))
        assert asked.prompt == "Who?\nAnswer:"

    def test_a_text_is_right_whatever_stands_around_it(self, tmp_path: Path) -> None:
        """White space only; any of the answers counts."""
        task = own_task(file(tmp_path, {"prompt": "2+2=", "answer": ["four", "4"]}))
        (doc,) = task.load(LoadOptions()).docs
        said = {answer: task.score(doc, answer)["exact_match"] for answer in (" four\n", "4", "Four", "four.", "")}
        assert said == {" four\n": 1.0, "4": 1.0, "Four": 0.0, "four.": 0.0, "": 0.0}

    def test_a_prompt_with_choices_stands_as_it_is(self, tmp_path: Path) -> None:
        """The choices' texts follow; --scoring changes that."""
        path = file(tmp_path, {"prompt": "A wren is a", "choices": ["bird", "fish"], "answer": "bird"})
        (doc,) = docs(path)
        assert (doc.prompt, doc.choices, doc.target, doc.single_token) == (
            "A wren is a",
            (" bird", " fish"),
            "A",
            False,
        )
        (doc,) = docs(path, scoring="letters")
        assert (doc.prompt, doc.choices, doc.single_token) == ("A wren is a", (" A", " B"), True)

    def test_scoring_of_a_question_by_text(self, tmp_path: Path) -> None:
        (doc,) = docs(file(tmp_path, FISH), scoring="text")
        assert (doc.prompt, doc.choices) == ("Which is a fish?\nAnswer:", (" whale", " trout", " newt"))

    def test_null_is_absent(self, tmp_path: Path) -> None:
        """As in files that a library has written for rows of several forms."""
        rest = {"prompt": None, "choices": None, "id": None, "group": None}
        (doc,) = docs(file(tmp_path, {**rest, "question": "Who?", "answer": "me"}))
        assert (doc.prompt, doc.id, doc.group, doc.mode) == ("Who?\nAnswer:", "1", "mine", "generate")

    def test_groups_and_ids(self, tmp_path: Path) -> None:
        found = docs(file(tmp_path, {**FISH, "group": "sea"}, {**FISH, "id": "x"}))
        assert [(doc.id, doc.group) for doc in found] == [("1", "sea"), ("x", "mine")]

    def test_a_limit_is_spread(self, tmp_path: Path) -> None:
        assert [doc.id for doc in docs(file(tmp_path, *[FISH] * 6), limit=2)] == ["1", "4"]


@pytest.mark.parametrize(("answer", "right"), [("C", 2), (2, 2), ("2", 2), ("newt", 2), (" newt ", 2), (0, 0)])
def test_an_answer_is_a_letter_a_number_or_a_text(tmp_path: Path, answer: Any, right: int) -> None:
    (doc,) = docs(file(tmp_path, {**FISH, "answer": answer}))
    assert doc.target == "ABC"[right]


@pytest.mark.parametrize(
    ("choices", "answer", "right"),
    [
        (["1", "2", "3"], "1", None),  # the text of the first, the number of the second
        (["B", "A"], "A", None),
        (["0", "1"], "1", 1),  # both say the same
        (["2", "4"], "4", 1),
    ],
)
def test_an_answer_that_may_be_two_is_refused(
    tmp_path: Path, choices: list[str], answer: str, right: int | None
) -> None:
    path = file(tmp_path, {**FISH, "choices": choices, "answer": answer})
    if right is None:
        assert f"mine.jsonl, line 1: the answer '{answer}' is one choice by its text and another" in refusal(path)
    else:
        assert docs(path)[0].target == "ABC"[right]


class TestTemplates:
    def test_the_prompt_is_the_template(self, tmp_path: Path) -> None:
        """Columns, all choices, one choice, doubled braces; the line end of the file does not count."""
        template = text(tmp_path, "t.txt", "{{{year}}} {question} {A}?\n{choices}\nLetter:\n")
        (doc,) = docs(file(tmp_path, {**FISH, "year": 1999}), template)
        assert doc.prompt == "{1999} Which is a fish? whale?\nA. whale\nB. trout\nC. newt\nLetter:"
        assert (doc.choices, doc.single_token) == ((" A", " B", " C"), True)

    def test_without_choices_in_it_the_texts_are_scored(self, tmp_path: Path) -> None:
        (doc,) = docs(file(tmp_path, FISH), text(tmp_path, "t.txt", "Q: {question}\nA:"))
        assert (doc.prompt, doc.choices) == ("Q: Which is a fish?\nA:", (" whale", " trout", " newt"))

    def test_an_end_in_white_space_gets_no_other(self, tmp_path: Path) -> None:
        template = text(tmp_path, "t.txt", "{question}\n###\n\n")
        (doc,) = docs(file(tmp_path, FISH), template, file(tmp_path, FISH, name="few.jsonl"))
        assert doc.choices == ("whale", "trout", "newt")
        assert doc.prompt == "Which is a fish?\n###\ntrout\n\nWhich is a fish?\n###\n"

    def test_any_columns_make_a_text_question(self, tmp_path: Path) -> None:
        (doc,) = docs(file(tmp_path, {"en": "cat", "answer": "Katze"}), text(tmp_path, "t.txt", "{en} ->"))
        assert (doc.prompt, doc.target) == ("cat ->", "Katze")

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("{question", "t.txt: expected '}' before end of string; braces that are meant as such are doubled"),
            ("question", "t.txt has no field"),
            ("{}", "t.txt: {} is not the name of a column"),
            ("{question!r}", "t.txt: {question} is not the name of a column"),
            ("{question:>9}", "t.txt: {question} is not the name of a column"),
            ("{question.__class__}", "mine.jsonl, line 1: no 'question.__class__', which the template has"),
            ("{choices[0]}", "mine.jsonl, line 1: no 'choices[0]', which the template has"),
            ("{year}", "mine.jsonl, line 1: no 'year', which the template has"),
            ("{about}", "mine.jsonl, line 1: 'about' is neither a text nor a number"),
        ],
    )
    def test_mistakes_in_it(self, tmp_path: Path, template: str, message: str) -> None:
        path = file(tmp_path, {**FISH, "about": ["x"]})
        assert message in refusal(path, text(tmp_path, "t.txt", template))


class TestWorkedExamples:
    ONE, TWO = {**FISH, "answer": "A"}, {**FISH, "question": "And?", "answer": "newt"}

    @pytest.mark.parametrize(("shots", "answers"), [(None, ["A", "C"]), (1, ["A"]), (0, [])])
    def test_all_or_the_first_stand_before_each_question(
        self, tmp_path: Path, shots: int | None, answers: list[str]
    ) -> None:
        few = file(tmp_path, self.ONE, self.TWO, name="few.jsonl")
        asked = {"A": MMLU_FORM, "C": MMLU_FORM.replace("Which is a fish?", "And?")}
        for doc in docs(file(tmp_path, FISH, FISH), None, few, shots=shots):
            assert doc.prompt == "".join(f"{asked[answer]} {answer}\n\n" for answer in answers) + MMLU_FORM

    def test_of_texts(self, tmp_path: Path) -> None:
        few = file(tmp_path, {"prompt": "1+1=", "answer": ["2", "two"]}, name="few.jsonl")
        (doc,) = docs(file(tmp_path, {"prompt": "2+2=", "answer": "4"}), None, few)
        assert doc.prompt == "1+1= 2\n\n2+2="

    def test_more_than_there_are(self, tmp_path: Path) -> None:
        few = file(tmp_path, self.ONE, name="few.jsonl")
        with pytest.raises(UserError, match=r"mine\.jsonl has 1 worked examples here, not 2"):
            docs(file(tmp_path, FISH), None, few, shots=2)
        with pytest.raises(UserError, match=r"mine\.jsonl has 0 worked examples here, not 1"):
            docs(file(tmp_path, FISH), shots=1)

    def test_of_another_form(self, tmp_path: Path) -> None:
        """The few-shot file is the one that is named."""
        few = file(tmp_path, {"prompt": "1+1=", "answer": "2"}, name="few.jsonl")
        assert "few.jsonl, line 1: no 'choices'" in refusal(file(tmp_path, FISH), None, few)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": "A", "choices": "A or B"}, "line 2: 'choices' is 'A or B' and should be a valid"),
        (
            {"question": "?", "answer": "A", "choices": ["x", 3]},
            "line 2: 'choices.1' is 3 and should be a valid",
        ),
        ({"question": "?", "answer": "A", "choices": ["x"]}, "line 2: it has fewer than two choices"),
        ({"question": "?", "answer": "A", "choices": ["x", " "]}, "line 2: it has fewer than two choices, or an empty"),
        ({"question": "?", "answer": "A", "A": "x", "C": "y"}, "line 2: it has a choice C and none before it"),
        ({"question": "?", "answer": "D", "choices": ["x", "y"]}, "line 2: the answer 'D' is none of the 2 choices"),
        ({"question": "?", "answer": 2, "choices": ["x", "y"]}, "line 2: the answer '2' is none of the 2 choices"),
        ({"question": "?", "answer": -1, "choices": ["x", "y"]}, "line 2: the answer '-1' is none of the 2 choices"),
        ({"question": "?", "answer": True, "choices": ["x", "y"]}, "line 2: 'answer' is True and should be a valid"),
        ({"question": "?", "choices": ["x", "y"]}, "line 2: no 'answer'; a question has question, choices (a list, or"),
        ({"answer": "A", "choices": ["x", "y"]}, "line 2: no 'question'"),
        ({"question": " ", "answer": "A", "choices": ["x", "y"]}, "line 2: the prompt is empty"),
        ({"question": 5, "answer": "A", "choices": ["x", "y"]}, "line 2: 'question' is 5 and should be a valid string"),
        ({"question": "?", "prompt": "?", "answer": "A", "choices": ["x", "y"]}, "line 2: it has both 'question' and"),
        ({"question": "?", "answer": "A"}, "line 2: no 'choices'"),
        ({**FISH, "id": "1"}, "line 2: a second question is called 1; give each an id of its own"),
        ({**FISH, "group": 1}, "line 2: 'group' is 1 and should be a valid string"),
        ("[1]", "line 2: not a JSON object"),
        ("{", "line 2: not valid JSON"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, row: Any, message: str) -> None:
    second = row if isinstance(row, str) else json.dumps(row)
    path = text(tmp_path, "mine.jsonl", f"{json.dumps(FISH)}\n{second}\n")
    assert f"mine.jsonl, {message}" in refusal(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "?", "answer": ""}, "line 2: 'answer' is empty; a question has prompt, answer (a text)"),
        ({"prompt": "?", "answer": []}, "line 2: 'answer' is empty"),
        ({"prompt": "?", "answer": [" "]}, "line 2: 'answer' is empty"),
        ({"prompt": "?", "answer": None}, "line 2: no 'answer'"),
        ({"prompt": "?", "answer": "x", "choices": ["x", "y"]}, "line 2: it has choices, and the first question"),
        ({"question": "?", "answer": "x"}, "line 2: no 'prompt'"),
    ],
)
def test_a_mistake_in_a_file_of_texts(tmp_path: Path, row: Any, message: str) -> None:
    assert f"mine.jsonl, {message}" in refusal(file(tmp_path, {"prompt": "a", "answer": "b"}, row))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,A,A,answer\nx,a,b,A\n", "x.csv, line 1: the header names a column twice"),
        ("question,,B,answer\nx,a,b,A\n", "x.csv, line 1: the header names a column twice, or one has no name"),
        ("question,A,B,answer\nx,a,b\n", "x.csv, line 2: 3 fields instead of 4; a text with a comma"),
        ("question,A,B,answer\nx, y,a,b,A\n", "x.csv, line 2: 5 fields instead of 4"),
        ("question;A;B;answer\nx;a;b;A\n", "x.csv, line 2: no 'answer'"),
        ('question,A,B,answer\n"x,a,b,A\n', "x.csv, line 3: cannot be read"),
        ("question,A,B,answer\n", "x.csv has no rows"),
        ("", "x.csv has no rows"),
        ("question,A,B,answer\nx\0,a,b,A\n", "x.csv, line 2: has NUL bytes"),
    ],
)
def test_a_damaged_csv(tmp_path: Path, content: str, message: str) -> None:
    assert message in refusal(text(tmp_path, "x.csv", content))


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "mine.txt is no file of questions; its name ends in .jsonl, .json, .csv" in refusal(tmp_path / "mine.txt")
    assert "mine.jsonl does not exist" in refusal(tmp_path / "mine.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert "folder.jsonl is a folder, not a file" in refusal(tmp_path / "folder.jsonl")


def test_a_file_with_a_tasks_name_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is a task whatever lies in the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmlu").touch()
    assert not is_question_file("mmlu")
    assert all(is_question_file(name) for name in ("./mmlu", "mmlu.csv", "folder/mine", "mine.txt"))
    assert not any(is_question_file(name) for name in (*TASKS, *GROUPS))


def test_the_identity_is_of_what_the_files_hold(tmp_path: Path) -> None:
    """Not of their names, nor of how they are packed; each of the three counts."""
    import hashlib

    path, template = file(tmp_path, FISH), text(tmp_path, "t.txt", "{question}")
    packed = tmp_path / "mine.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    expected = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "template_sha256": hashlib.sha256(b"{question}").hexdigest(),
        "fewshot_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert own_task(path, template, path).file.identity == own_task(packed, template, packed).file.identity == expected
    assert own_task(path).file.identity == {**expected, "template_sha256": None, "fewshot_sha256": None}
