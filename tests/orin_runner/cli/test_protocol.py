"""``--protocol 2023`` on the command line: what is printed, recorded, compared and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run
from eval.tasks.hellaswag import WITHOUT_MARKS
from orin_runner.cli.account import task_lines
from tests.support.choice_rows import jsonl, write
from tests.support.commands import orin_run, refused
from tests.support.small_data import hellaswag_rows, small_data

PROTOCOL = ("--protocol", "2023")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, gguf: Path, data: Path) -> Path:
    """HellaSwag as 2023 asked it, with what was printed beside it."""
    out = tmp_path_factory.mktemp("run") / "run"
    done = orin_run("eval", "hellaswag", *PROTOCOL, "--model", gguf, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    (out.parent / "stdout").write_text(done.stdout)
    return out


def test_clock_and_accuracies_are_printed_in_a_line(run: Path) -> None:
    """Of all twelve rows, from the files of the run."""
    section = Run.open(run).report["tasks"]["hellaswag"]
    seconds, metrics = section["clocks"]["challenge 2023"], section["metrics"]
    scores = (f"{name} {metrics[name]['value']:.4f} ± {metrics[name]['stderr']:.4f}" for name in ("acc", "acc_norm"))
    clock = f"challenge 2023 clock, from process start: {seconds:.3f} s, {seconds / 12:.4f} s an item"
    lines = (run.parent / "stdout").read_text().splitlines()
    assert f"hellaswag: {'; '.join([clock, *scores])}" in lines
    assert not [line for line in lines if "challenge 2024" in line]


def test_the_line_by_hand() -> None:
    """The harness's four digits; what the rows lacked stands below."""
    section = {
        "items": 1000,
        "failed": 0,
        "clocks": {"challenge 2023": 372.2, "challenge 2024": 300.0},
        "metrics": {
            "acc_norm": {"value": 0.82634, "stderr": 0.00378},
            "acc": {"value": 0.63336, "stderr": 0.00481},
        },
        "protocol": "2023",
        "lacking": ["these rows lack a thing"],
        "tokens": {},
        "noise": None,
        "near_ties": None,
    }
    clock = "challenge 2023 clock, from process start: 372.200 s, 0.3722 s an item"
    scores = "acc 0.6334 ± 0.0048; acc_norm 0.8263 ± 0.0038"
    assert task_lines(section, None) == [f"{clock}; {scores}", "these rows lack a thing"]


def test_the_run_says_how_it_asked(run: Path, gguf: Path, data: Path) -> None:
    """In settings and report; another part of it has to ask the same way."""
    found = Run.open(run)
    assert found.header["settings"]["protocol"] == "2023"
    assert (found.report["tasks"]["hellaswag"]["protocol"], found.report["tasks"]["hellaswag"]["lacking"]) == (
        "2023",
        [],
    )
    assert found.report["warnings"] == []
    again = ("eval", "hellaswag", "--model", gguf, "--data", data, "--out", run, "--resume")
    done = orin_run(*again)  # the protocol is the run's
    assert (done.returncode, Run.open(run).header) == (0, found.header), done.stderr


def test_runs_of_another_protocol_are_not_compared(run: Path, tiny: Path, data: Path, tmp_path: Path) -> None:
    """The reference takes the option, too, and then agrees."""
    same, other = tmp_path / "same", tmp_path / "other"
    for out, options in ((same, PROTOCOL), (other, ())):
        done = orin_run("reference", "hellaswag", *options, "--model", tiny, "--data", data, "--out", out)
        assert done.returncode == 0, done.stderr
        assert ("challenge 2023 clock" in done.stdout) is bool(options)
    refused(orin_run("diff", run, other), "the runs asked with different --protocol: 2023 and default")
    found = json.loads(orin_run("diff", run, same, "--json").stdout)
    assert found["tasks"]["hellaswag"]["items"] == 12


def test_rows_that_lack_something_say_so(gguf: Path, tmp_path: Path) -> None:
    """Before the run, in its report and with its figures; and what the rules of that year could be held against."""
    rows = [{**row, "ctx": f"{row['ctx_a']} {row['ctx_b']}"} for row in hellaswag_rows()]
    uncut = [{name: row[name] for name in ("activity_label", "ctx", "endings", "label")} for row in rows]
    data = write(tmp_path, {"hellaswag/hellaswag_val.jsonl": jsonl(*uncut)})
    options = ("--model", gguf, "--data", data, "--out", tmp_path / "run", "--prompt-cache", tmp_path / "cache")
    done = orin_run("eval", "hellaswag", *PROTOCOL, *options)
    assert done.returncode == 0, done.stderr
    assert f"hellaswag: {WITHOUT_MARKS}" in done.stderr
    assert f"hellaswag: {WITHOUT_MARKS}" in done.stdout
    report = Run.open(tmp_path / "run").report
    assert report["tasks"]["hellaswag"]["lacking"] == [WITHOUT_MARKS]
    assert report["warnings"] == [
        "hellaswag, against the 2023 rules: the prompt cache computes prefixes before the clock starts"
    ]


UNKNOWN = ("hellaswag", "--protocol", "2024"), "--protocol is 2023, not '2024'"
OTHER_TASK = ("winogrande", *PROTOCOL), "winogrande has no protocol of the 2023 challenge; leave --protocol out"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("eval", *UNKNOWN),
        ("plan", *UNKNOWN),
        ("reference", *UNKNOWN),
        ("eval", *OTHER_TASK),
        ("plan", *OTHER_TASK),
        ("reference", *OTHER_TASK),
        ("eval", ("hellaswag", "--protocol", ""), "--protocol is 2023, not ''"),
        ("eval", ("hellaswag", "winogrande", *PROTOCOL), "winogrande has no protocol of the 2023 challenge"),
        ("eval", ("hellaswag", *PROTOCOL, "--shots", "1"), "; leave --shots out"),
        ("eval", ("hellaswag", *PROTOCOL, "--chat"), "; leave --chat out"),
    ],
)
def test_a_mistake_is_a_line(
    command: str, arguments: tuple[str, ...], message: str, gguf: Path, tiny: Path, data: Path, tmp_path: Path
) -> None:
    """Exit status 2, and nothing is written."""
    model = tiny if command == "reference" else gguf
    out = () if command == "plan" else ("--out", tmp_path / "run")
    refused(orin_run(command, *arguments, "--model", model, "--data", data, *out), message)
    assert not (tmp_path / "run").exists()


def test_a_plan_is_of_the_protocols_prompts(gguf: Path, data: Path) -> None:
    """Of as many requests; what the option changes in them is tested with the task."""
    done = orin_run("plan", "hellaswag", *PROTOCOL, "--model", gguf, "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] == 12
