"""Options of the command line that say how a task is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.tasks.base import LoadOptions
from orin_runner.cli.options import cache_bytes, device_bytes, load_options
from orin_runner.errors import UserError
from orin_runner.machine.devices import KNOWN
from tests.support.commands import orin_run, refused


def test_options_are_read_or_refused(tmp_path: Path) -> None:
    """--shots is a number or phi3, --scoring one of two words, --protocol a year."""
    read = load_options(tmp_path, "3", "phi3", "text", chat=True)
    assert read == LoadOptions(tmp_path, limit=3, shots="phi3", scoring="text", chat=True)
    assert load_options(None, None, "0", None, chat=False) == LoadOptions(shots=0)
    for shots in ("-1", "two", "1.5", "\u00b2"):
        with pytest.raises(UserError, match="--shots is a number or phi3"):
            load_options(None, None, shots, None, chat=False)
    for shots in ("1000000000", "9" * 26, "9" * 5000):
        with pytest.raises(UserError, match="--shots is less than 1,000,000,000, not "):
            load_options(None, None, shots, None, chat=False)
    with pytest.raises(UserError, match="--scoring is letters or text, not 'words'"):
        load_options(None, None, None, "words", chat=False)
    assert load_options(None, None, None, None, chat=False, protocol="2023") == LoadOptions(protocol="2023")
    with pytest.raises(UserError, match="--protocol is 2023, not 'twenty'"):
        load_options(None, None, None, None, chat=False, protocol="twenty")


@pytest.mark.parametrize("option", ["limit", "first"])
def test_a_number_of_questions_or_a_share(option: str) -> None:
    """As lm-evaluation-harness takes its --limit; what it reads in a way that may surprise is refused."""

    def read(text: str) -> float | None:
        given = {"limit": None, "first": None} | {option: text}
        found = load_options(None, given["limit"], None, None, chat=False, first=given["first"])
        assert getattr(found, {"limit": "first", "first": "limit"}[option]) is None
        return getattr(found, option)

    assert (read("7"), read("007"), read("0.1"), read(".5"), read("1e-05")) == (7, 7, 0.1, 0.5, 0.00001)
    assert (type(read("7")), read("1000000000")) == (int, 10**9)
    refused_ones = "0 -1 0.0 -0.5 1.0 1.5 1000000001 nan inf ten 10% \u00b2".split(" ")
    for text in (*refused_ones, "9" * 5000, ""):
        with pytest.raises(UserError, match=f"^--{option} is a number of questions from 1 to 1,000,000,000, or"):
            read(text)


def test_two_ways_to_choose_questions_are_one_too_many() -> None:
    with pytest.raises(UserError, match="--limit and --first both say which questions"):
        load_options(None, "3", None, None, chat=False, first="3")


def test_an_amount_of_memory_has_a_unit() -> None:
    """Neither 0.25 nor 29000 says of what; the line says what to add."""
    assert device_bytes("auto") is None
    assert device_bytes("orin-32gb") == KNOWN["orin-32gb"].available
    assert device_bytes("1MiB") == device_bytes("1048576B") == device_bytes("1024KiB") == 1 << 20
    assert device_bytes("27.5GiB") == device_bytes("27.5G") == 27.5 * (1 << 30)
    assert device_bytes("orin-64gb") == KNOWN["orin-64gb"].available
    for text in ("0.25", "0", "29000", "31000000000"):
        with pytest.raises(UserError) as refusal:
            device_bytes(text)
        assert refusal.value.message == f"--device {text} has no unit"
        assert refusal.value.hint == f"add one such as M, G, MiB or GB: --device {text}M"
    for text in ("-1", "-5GiB", "nan", "inf", "nanGiB", "1e3MiB", "MiB", "", "\u00b2GiB", "0x10MiB", "9" * 400 + "B"):
        with pytest.raises(UserError, match="is neither a device nor an amount of memory") as refusal:
            device_bytes(text)
        assert "29000M" in str(refusal.value.hint)
    with pytest.raises(UserError, match="--device fast is neither a device nor an amount of memory"):
        device_bytes("fast")


@pytest.mark.parametrize("text", ["0B", "0GiB", "0.25MiB", "1048575B", "1000000B"])
def test_less_than_a_mebibyte_is_a_mistake(text: str) -> None:
    """Of the unit, most likely."""
    with pytest.raises(UserError, match=f"^--device {text} is less than 1 MiB;") as refusal:
        device_bytes(text)
    assert "29000M" in str(refusal.value.hint)


def test_the_size_of_the_prompt_cache() -> None:
    """A number alone is of gigabytes, which the option's older name says."""
    assert [cache_bytes(text) for text in ("20", "0", "0.5", "20GB")] == [20 * 10**9, 0, 500_000_000, 20 * 10**9]
    assert [cache_bytes(text) for text in ("8G", "512M", "1KiB")] == [8 << 30, 512 << 20, 1024]
    for text in ("1e308", "-1", "much", "", "nan"):
        with pytest.raises(UserError, match=f"^--prompt-cache-size {text} is no size of a folder; such as 20G or 512M"):
            cache_bytes(text)


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "exam", "--limit"),
        ("plan", "exam", "--limit"),
        ("plan", "exam", "--first"),
        ("eval", "exam", "--max-new-tokens"),
        ("eval", "exam", "--prompt-cache", "cache", "--prompt-cache-size"),
        ("reference", "exam", "--model", "none", "--limit"),
        ("reference", "exam", "--model", "none", "--max-new-tokens"),
        ("reference", "exam", "--model", "none", "--batch-tokens"),
        ("selftest", "--requests"),
        ("selftest", "--seed"),
    ],
    ids=" ".join,
)
def test_numbers_out_of_all_bounds_are_refused(words: tuple[str, ...], tiny_gguf: Path, tmp_path: Path) -> None:
    """Before a file is written: ``run.json`` could not be read again, and Python or numpy would not take them."""
    number = {"--seed": "-1", "--prompt-cache-size": "1e308"}.get(words[-1], "9" * 26)
    model = () if words[0] == "reference" else ("--model", str(tiny_gguf))
    out = () if words[0] in {"plan", "selftest"} else ("--out", str(tmp_path / "run"))
    refused(orin_run(*words, number, *model, *out, cwd=tmp_path), words[-1])
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out
