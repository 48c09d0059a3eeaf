"""The forms that data sets are published in: the authors' archives and copies of the hub's repositories give the same.

Rows are written by hand after the data sets' cards, archives and loading scripts.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from eval.tasks.base import LoadOptions
from eval.tasks.bbh import SUBTASKS
from eval.tasks.doc import Doc
from eval.tasks.mmlu import SUBJECTS
from eval.tasks.registry import TASKS, get_task
from orin_runner.errors import UserError
from tests.support import hub_rows
from tests.support.choice_rows import GOLDEN, jsonl, listed, write
from tests.support.harness_cases import DROP, GSM8K
from tests.support.hub_rows import Row
from tests.support.phi3_rows import AGIEVAL, AGIEVAL_SUBTASKS, HUMANEVAL, MBPP, MMLU_PRO, TRIVIAQA
from tests.support.published import FILES, SHOTS


def load(task: str, data: Path, shots: int | None = None) -> list[Doc]:
    return get_task(task).load(LoadOptions(data, shots=SHOTS.get(task) if shots is None else shots)).docs


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)


def test_every_public_task_has_its_published_files_here() -> None:
    """A task cannot be added without them; the direct form of BBH has the files of the other."""
    assert set(FILES) == set(TASKS) - {"exam", "bbh_direct"}


@pytest.mark.parametrize("task", FILES)
def test_windows_files_give_the_same_questions(task: str, tmp_path: Path) -> None:
    """A byte order mark, CRLF, and an empty last line, as editors and spreadsheets leave them."""
    plain = load(task, write(tmp_path / "plain", FILES[task]))
    for name, text in FILES[task].items():
        path = tmp_path / "windows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xef\xbb\xbf" + f"{text}\n".replace("\n", "\r\n").encode())
    assert load(task, tmp_path / "windows") == plain


@pytest.mark.parametrize("task", FILES)
def test_gzipped_files_give_the_same_questions(task: str, tmp_path: Path) -> None:
    """Every published file may have .gz behind its name, label files and worked examples too."""
    plain = load(task, write(tmp_path / "plain", FILES[task]))
    for name, text in FILES[task].items():
        path = tmp_path / "packed" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    assert load(task, tmp_path / "packed") == plain


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("mmlu", "mmlu/", "data/"),  # data.tar
        ("mmlu", "mmlu/", "mmlu/data/"),
        ("winogrande", "winogrande/", "winogrande/winogrande_1.1/"),
        ("openbookqa", "openbookqa/", "openbookqa/OpenBookQA-V1-Sep2018/Data/Main/"),
        ("arc_easy", "arc_easy/", "arc_easy/ARC-V1-Feb2018-2/ARC-Easy/"),
        ("arc_challenge", "arc_challenge/", "ARC-V1-Feb2018-2/ARC-Challenge/"),
        ("piqa", "piqa/valid", "physicaliqa-train-dev/dev"),
        ("piqa", "piqa/", "piqa/data/"),
        ("siqa", "siqa/", "siqa/socialiqa-train-dev/"),
        ("hellaswag", "hellaswag/", "hellaswag/data/"),
        ("truthfulqa_mc2", "truthfulqa/", "truthfulqa_mc2/"),
        ("truthfulqa_mc1", "truthfulqa/", "truthfulqa_mc1/"),
        ("medqa", "medqa/", "medqa/data_clean/questions/US/4_options/"),
        ("medqa", "medqa/", "MedQA/questions/US/4_options/"),
        ("agieval", "agieval/", "AGIEval/data/v1/"),
        ("agieval", "agieval/", "data/v1/"),  # --data is the clone
        ("humaneval", "humaneval/", "human-eval/data/"),  # a clone
        ("mbpp", "mbpp/", "google-research/mbpp/"),
        ("gsm8k_cot", "gsm8k/", "grade-school-math/grade_school_math/data/"),
        ("anli", "anli/", "anli/anli_v1.0/"),
        ("bbh", "bbh/", "BIG-Bench-Hard/"),  # a clone
        ("bbh", "bbh/", ""),  # --data is the clone
        ("drop", "drop/", "drop_dataset/"),
        ("gsm8k", "gsm8k/", "grade-school-math/grade_school_math/data/"),
        ("challenge", "cechallenge2024/", ""),
    ],
)
def test_archives_and_clones_as_they_unpack(task: str, old: str, new: str, tmp_path: Path) -> None:
    """Beside the other data sets or in the task's own folder."""
    kept = load(task, write(tmp_path / "kept", FILES[task]))
    moved = {(new + name[len(old) :] if name.startswith(old) else name): text for name, text in FILES[task].items()}
    assert not set(moved) & {name for name in FILES[task] if name.startswith(old)}
    assert load(task, write(tmp_path / "unpacked", moved)) == kept


@pytest.mark.parametrize("task", [task for task in FILES if task != "challenge"])
def test_data_may_name_the_tasks_own_folder(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published files or a copy of the hub's repository, also as the current folder."""
    files = FILES[task]
    kept = load(task, write(tmp_path / "kept", files))
    own = tmp_path / "kept" / next(iter(files)).split("/")[0]
    assert load(task, own) == kept
    monkeypatch.chdir(own)
    assert load(task, Path()) == kept


ONE = "-00000-of-00001.parquet"
COPIES: list[tuple[str, str, Callable[..., Row]]] = [
    ("commonsense_qa", f"tau/commonsense_qa/data/validation{ONE}", hub_rows.commonsense_qa),
    ("winogrande", f"winogrande/winogrande_xl/validation{ONE}", hub_rows.winogrande),
    ("winogrande", "winogrande/validation.jsonl", hub_rows.winogrande),
    ("boolq", f"super_glue/boolq/validation{ONE}", hub_rows.boolq),
    ("openbookqa", f"openbookqa/main/test{ONE}", hub_rows.openbookqa),
    ("hellaswag", f"Rowan/hellaswag/data/validation{ONE}", hub_rows.hellaswag),
    ("arc_easy", f"ai2_arc/ARC-Easy/test{ONE}", hub_rows.arc),
    ("arc_challenge", f"allenai/ai2_arc/ARC-Challenge/test{ONE}", hub_rows.arc),
    ("piqa", "piqa/plain_text/validation/0000.parquet", hub_rows.piqa),
    ("piqa", "piqa/validation.json", hub_rows.piqa),
    ("siqa", f"siqa/data/validation{ONE}", hub_rows.siqa),
    ("anli", f"facebook/anli/plain_text/test_r1{ONE}", hub_rows.anli),
    ("medqa", "GBaker/MedQA-USMLE-4-options-hf/test.json", hub_rows.medqa),
    ("medqa", f"medqa/data/test{ONE}", hub_rows.medqa),
]


@pytest.mark.parametrize(("task", "name", "convert"), COPIES, ids=[copy[1] for copy in COPIES])
def test_copies_of_the_hubs_repositories(task: str, name: str, convert: Callable[..., Row], tmp_path: Path) -> None:
    """Parquet, or the rows as ``datasets`` exports them, give the questions of the published file, shots too."""
    golden = GOLDEN[task]
    files = golden.files | dict([golden.train])
    for file, text in files.items():
        label = files.get(file.replace(".jsonl", "-labels.lst"))
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        rows = [convert(row, label) if label else convert(row) for row in rows]
        target = re.sub("validation|test", "train", name) if re.search("[Tt]rain|-Dev", file) else name
        target = re.sub("_r1", f"_r{file[6]}", target)  # anli/R1/...
        if target.endswith(".parquet") and rows:
            write_parquet(tmp_path / target, rows)
        elif rows:
            write(tmp_path, {target: json.dumps(rows) if target.endswith(".json") else jsonl(*rows)})
    kept = write(tmp_path / "kept", files)
    for shots in (0, 1):
        assert load(task, tmp_path, shots) == load(task, kept, shots)


def test_truthfulqa_and_generating_tasks_copied_from_the_hub(tmp_path: Path) -> None:
    """The same questions with the same names, targets and accepted answers."""
    rows = [hub_rows.truthfulqa(row) for row in json.loads(FILES["truthfulqa_mc2"]["truthfulqa/mc_task.json"])]
    write_parquet(tmp_path / "truthful_qa" / "multiple_choice" / f"validation{ONE}", rows)
    write_parquet(tmp_path / "EleutherAI" / "drop" / "default" / "validation" / "0000.parquet", hub_rows.drop(DROP))
    for split, rows in (("test", GSM8K[:3]), ("train", GSM8K[3:])):
        write_parquet(tmp_path / "gsm8k" / "main" / f"{split}{ONE}", rows)
    rows = [hub_rows.truthfulqa(row) for row in json.loads(FILES["truthfulqa_mc1"]["truthfulqa/mc_task.json"])]
    write_parquet(tmp_path / "mc1" / "truthfulqa" / "multiple_choice" / f"validation{ONE}", rows)
    for split, rows in (("validation", TRIVIAQA[:3]), ("train", TRIVIAQA[3:])):
        write_parquet(tmp_path / "mandarjoshi" / "trivia_qa" / "rc.nocontext" / f"{split}{ONE}", rows)
    for split, rows in MMLU_PRO.items():
        write_parquet(tmp_path / "MMLU-Pro" / "data" / f"{split}{ONE}", rows)
    for subtask in AGIEVAL_SUBTASKS:
        folder = ("hails", f"agieval-{subtask}") if "sat" in subtask else (f"agieval-{subtask}",)
        rows = [hub_rows.agieval(row) for row in AGIEVAL["math" if subtask == "math" else "choices"]]
        write_parquet(tmp_path.joinpath(*folder, "data", f"test{ONE}"), rows)
    write_parquet(tmp_path / "openai_humaneval" / "openai_humaneval" / f"test{ONE}", HUMANEVAL)
    write_parquet(tmp_path / "mbpp" / "full" / f"test{ONE}", MBPP[2:5])
    texts = ("drop", "gsm8k", "gsm8k_cot", "triviaqa", "mmlu_pro", "agieval", "humaneval", "mbpp")
    for task in ("truthfulqa_mc2", *texts):
        assert load(task, tmp_path) == load(task, write(tmp_path / "kept", FILES[task]))
    assert load("triviaqa", tmp_path, 3) == load("triviaqa", tmp_path / "kept", 3)
    kept = load("truthfulqa_mc1", write(tmp_path / "kept mc1", FILES["truthfulqa_mc1"]))
    assert load("truthfulqa_mc1", tmp_path / "mc1") == kept


@pytest.mark.parametrize("together", [False, True], ids=["a folder per subject", "all"])
def test_mmlu_copied_from_the_hub(together: bool, tmp_path: Path) -> None:
    """By subject or in one file, with the answers as numbers."""
    rows = [
        {"question": "In 1, what?", "choices": ["w", "x", 'y "z"', "é"], "answer": 1},
        {"question": "And?", "choices": list("1234"), "answer": 3},
    ]
    for split in ("dev", "test"):
        for subject in SUBJECTS:
            named = [{**row, "subject": subject} for row in rows]
            if not together:
                write_parquet(tmp_path / "mmlu" / subject / f"{split}{ONE}", named)
        if together:
            every = [{**row, "subject": subject} for row in rows for subject in SUBJECTS]
            write_parquet(tmp_path / "cais" / "mmlu" / "all" / f"{split}{ONE}", every)
    assert load("mmlu", tmp_path) == load("mmlu", write(tmp_path / "kept", FILES["mmlu"]))
    write_parquet(tmp_path / "mmlu" / "anatomy" / f"test{ONE}", [{**rows[0], "answer": -1, "subject": "anatomy"}])
    if not together:
        with pytest.raises(UserError, match=r"anatomy.*row 0: 'answer' is -1 and should be 0, 1, 2 or 3"):
            load("mmlu", tmp_path)


def test_bbh_copied_from_the_hub_keeps_the_published_worked_examples(tmp_path: Path) -> None:
    """The hub has none: without the published prompts their file is asked for."""
    for subtask in SUBTASKS:
        write_parquet(tmp_path / "bbh" / subtask / f"test{ONE}", [{"input": "Is 7 odd?", "target": "é"}])
    with pytest.raises(UserError, match=r"bbh/cot-prompts/boolean_expressions.txt does not exist"):
        load("bbh", tmp_path)
    write(tmp_path, {name: text for name, text in FILES["bbh"].items() if "cot-prompts" in name})
    assert load("bbh", tmp_path) == load("bbh", write(tmp_path / "kept", FILES["bbh"]))


def test_shards_are_read_in_order_and_all_of_them(tmp_path: Path) -> None:
    """A part that was not downloaded is an error, not a smaller benchmark."""
    rows = [
        {"sentence": f"{n} beat Eve, so _ won.", "option1": str(n), "option2": "Eve", "answer": "1"} for n in range(4)
    ]
    folder = tmp_path / "winogrande" / "winogrande_xl"
    for part in (1, 0):
        write_parquet(folder / f"validation-0000{part}-of-00002.parquet", rows[2 * part : 2 * part + 2])
    assert [doc.prompts[0] for doc in load("winogrande", tmp_path)] == [f"{n} beat Eve, so {n}" for n in range(4)]
    (folder / "validation-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"winogrande_xl does not hold all parts of validation-00001-of-00002.parquet"):
        load("winogrande", tmp_path)


def test_a_shard_beside_another_file_is_refused(tmp_path: Path) -> None:
    """In the folder that the hub's own conversion makes, too."""
    row = {"sentence": "Al beat Eve, so _ won.", "option1": "Al", "option2": "Eve", "answer": "1"}
    for name in ("a.parquet", "validation-00000-of-00001.parquet"):
        write_parquet(tmp_path / "winogrande" / "winogrande_xl" / "validation" / name, [row])
    with pytest.raises(UserError, match="does not hold all parts of"):
        load("winogrande", tmp_path)


def test_what_datasets_exports(tmp_path: Path) -> None:
    """``Dataset.to_json`` writes JSON lines, whatever the file is called."""
    row = {"sentence": "Al beat Eve, so _ won.", "option1": "Al", "option2": "Eve", "answer": "1"}
    folder = tmp_path / "winogrande" / "winogrande_xl"
    folder.mkdir(parents=True)
    datasets.Dataset.from_list([row, {**row, "option1": "Bo"}]).to_json(folder / "validation.json")
    assert [doc.prompts[0] for doc in load("winogrande", tmp_path)] == ["Al beat Eve, so Al", "Al beat Eve, so Bo"]


def test_mmlu_rows_of_all_subjects_say_theirs(tmp_path: Path) -> None:
    """Without that each row would count once for every subject."""
    row = {"question": "In 1, what?", "choices": ["w", "x", "y", "z"], "answer": 1}
    for split in ("dev", "test"):
        write_parquet(tmp_path / "cais" / "mmlu" / "all" / f"{split}{ONE}", [row])
    with pytest.raises(UserError, match="no 'subject', in a file of all subjects"):
        load("mmlu", tmp_path)


def test_rows_whose_labels_are_their_own(tmp_path: Path) -> None:
    """The older Social IQa says which letter is right; choices may be a list of objects; answers may be numbers."""
    row = {"context": "Al fell.", "question": "How is Al?", "answerA": "glad", "answerB": "red", "answerC": "hurt"}
    write(tmp_path, {"siqa/socialIQa_v1.4_dev.jsonl": jsonl({**row, "correct": "C"})})
    assert load("siqa", tmp_path) == load("siqa", write(tmp_path / "kept", GOLDEN["siqa"].files))
    write(tmp_path, {"siqa/socialIQa_v1.4_dev.jsonl": jsonl({**row, "correct": ""})})
    with pytest.raises(UserError, match="line 1: 'correct' is '' and should be 'A', 'B' or 'C'"):
        load("siqa", tmp_path)
    arc = listed("Which is hot?", ["ice", "fire"], "B")["question"]
    write(
        tmp_path, {"arc_easy/test.jsonl": jsonl({"question": arc["stem"], "choices": arc["choices"], "answerKey": "B"})}
    )
    assert load("arc_easy", tmp_path)[0].choices == (" ice", " fire")
    row = {"sentence": "Ann beat Eve, so _ won.", "option1": "Ann", "option2": "Eve", "answer": 2}
    write(tmp_path, {"winogrande/validation.jsonl": jsonl(row)})
    assert load("winogrande", tmp_path)[0].target == "2"
    # google/boolq: true and false, and no title.
    write(tmp_path, {"google/boolq/data/validation.jsonl": jsonl({"question": "q", "answer": True, "passage": "p"})})
    (doc,) = load("boolq", tmp_path)
    assert (doc.prompt, doc.target) == ("p\nQuestion: q?\nAnswer:", "yes")


@pytest.mark.parametrize(
    ("task", "name", "row", "message"),
    [
        # Test splits whose labels are kept back, as the hub has them.
        ("hellaswag", "hellaswag/validation.jsonl", {"label": ""}, "the label is '', not a number"),
        ("boolq", "boolq/validation.jsonl", {"label": -1}, "the right answer is not one of the 2 choices"),
        ("anli", "anli/test_r1.jsonl", {"label": -1}, "the right answer is not one of the 3 choices"),
        ("piqa", "piqa/validation.jsonl", {"label": -1}, "the right answer is not one of the 2 choices"),
        ("winogrande", "winogrande/dev.jsonl", {"answer": ""}, "'answer' is '' and should be '1', '2', 1 or 2"),
        ("commonsense_qa", "commonsense_qa/dev_rand_split.jsonl", {"answerKey": ""}, "the answer is '', not one of"),
        ("gsm8k", "gsm8k/test.jsonl", {"answer": None}, "'answer' is None and should be a valid string"),
    ],
)
def test_rows_without_a_label_are_refused(
    task: str, name: str, row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """By file and line, not scored as wrong."""
    bare = {
        "hellaswag": {"activity_label": "A", "ctx_a": "b", "ctx_b": "c", "endings": list("abcd")},
        "boolq": {"question": "q", "passage": "p"},
        "anli": {"premise": "p", "hypothesis": "h"},
        "piqa": {"goal": "g", "sol1": "a", "sol2": "b"},
        "winogrande": {"sentence": "_", "option1": "a", "option2": "b"},
        "commonsense_qa": listed("q", "abcde", "A"),
        "gsm8k": {"question": "q"},
    }
    write(tmp_path, {"gsm8k/train.jsonl": jsonl(*GSM8K), name: jsonl({**bare[task], **row})})
    with pytest.raises(UserError, match=f"{name}, line 1: {message}"):
        load(task, tmp_path)


def test_drop_rows_that_lost_their_spans_are_refused(tmp_path: Path) -> None:
    """``ucinlp/drop`` has one flat list for all annotators; a score from it would be another one."""
    row = {"section_id": "s", "passage": "p", "question": "q", "answers_spans": {"spans": ["a"], "types": ["span"]}}
    write_parquet(tmp_path / "drop" / "data" / f"validation{ONE}", [row])
    with pytest.raises(UserError, match=r"row 0: 'answers_spans' does not say .*; take drop_dataset_dev.json"):
        load("drop", tmp_path)


def test_what_is_not_there_is_named_with_every_form(tmp_path: Path) -> None:
    """And a file that Git LFS left as a pointer is no parquet file."""
    with pytest.raises(UserError) as error:
        load("piqa", tmp_path)
    line = str(error.value)
    assert line.count("\n") == 0
    for part in ("piqa/valid.jsonl does not exist", "physicaliqa-train-dev/dev.jsonl", "a copy of baber/piqa"):
        assert part in line
    path = tmp_path / "gsm8k" / "main" / f"train{ONE}"
    path.parent.mkdir(parents=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(UserError, match=f"train{ONE} is not a whole parquet file"):
        load("gsm8k", tmp_path)
