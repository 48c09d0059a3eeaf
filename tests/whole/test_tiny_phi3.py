"""The tiny Phi-3, its exam and its committed reference runs are what the README says they are."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer as HFTokenizer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.diff import diff
from eval.encoding import encode_docs
from eval.evaluate import prepare
from eval.predict import predict
from eval.reference import Reference, evaluate_reference
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from eval.tasks.base import LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.exam import FILE
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from tests.support.commands import orin_run
from tests.support.paths import REFERENCE, TINY_PHI3
from tests.support.runs import run_gguf

sys.path.insert(0, str(TINY_PHI3))
import exam_items
from make_exam import make_exam

WINDOW = 256
Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The exam as committed."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def gguf(folder: Path, tiny: Path, window: str = "exact") -> Path:
    path = folder / f"{window}.gguf"
    convert(Checkpoint.open(tiny), path, Options("auto", allow_rounding=False, window=window))
    return path


def answers(model: Path, docs: list[Doc]) -> list[str]:
    """What the engine answers to ``docs``."""
    tokenizer, task = Tokenizer.from_gguf(GGUFFile.open(model)), get_task("exam")
    questions = encode_docs(docs, tokenizer)
    results, _ = run_gguf(model, [question.request for question in questions])
    return [predict(task, q, r, tokenizer).prediction for q, r in zip(questions, results, strict=True)]


def test_committed_files_have_their_digests_and_are_small(tiny: Path) -> None:
    """At most 8 MB, and exactly the files of SHA256SUMS."""
    sums = dict(line.split()[::-1] for line in (TINY_PHI3 / "SHA256SUMS").read_text().splitlines())
    found = {f"checkpoint/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in tiny.iterdir()}
    assert found == sums
    assert sum(path.stat().st_size for path in tiny.iterdir()) <= 8_000_000


def test_it_is_a_phi3_with_something_to_prove(tiny: Path) -> None:
    """Phi-3's architecture in small, in bfloat16, with weights that do not survive F16."""
    config = json.loads((tiny / "config.json").read_text())
    assert config["architectures"] == ["Phi3ForCausalLM"]
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert (config["max_position_embeddings"], config["sliding_window"]) == (4096, WINDOW)
    weights = load_file(tiny / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.bfloat16"}
    assert sum(int(((w != 0) & (w.abs() < 2.0**-17)).sum()) for w in weights.values()) > 100
    assert any("qkv_proj" in name for name in weights)
    assert any("gate_up_proj" in name for name in weights)


def test_the_exam_is_what_its_script_draws(tiny: Path, rows: list[Row]) -> None:
    """Anyone can make the same exam again."""
    assert make_exam(HFTokenizer.from_file(str(tiny / "tokenizer.json")), seed=1) == rows


def test_a_quarter_is_longer_than_the_window(tiny: Path) -> None:
    """In tokens, as the model reads it."""
    prepared = prepare(get_task("exam"), LoadOptions(), Reference(tiny, "float32").encoder)
    beyond = sum(len(question.request.prompt) > WINDOW for question in prepared.questions)
    assert beyond >= len(prepared.questions) / 4


def known_words() -> set[str]:
    """Every word of the templates, which training and exam share; all others are names, words and numbers."""
    texts = [*exam_items.OPENINGS, *exam_items.FILLERS, exam_items.LATER_LINES_COUNT, exam_items.CHALLENGE_HEADER]
    for relation in exam_items.RELATIONS:
        texts += [relation.name, relation.subject, *relation.verbs, *relation.questions]
    texts.append("passage question choices Answer " + " ".join(exam_items.LETTERS))
    return {word.lower() for word in re.findall(r"\w+", " ".join(texts))}


def test_names_and_values_are_held_out(rows: list[Row]) -> None:
    """No name, word or number of the exam is in the training pool, and training would never draw one of these."""
    known = known_words()
    invented = {word for row in rows for word in re.findall(r"\w+", row["prompt"]) if word.lower() not in known}
    assert len(invented) > 500
    assert [word for word in invented if not exam_items.held_out(word)] == []
    rng = exam_items.random.Random(5)
    trained = {
        exam_items.invent(kind, rng, held=False)
        for kind in ("person", "place", "boat", "word", "number")
        for _ in range(3000)
    }
    assert not trained & invented


def test_wordings_are_held_out(rows: list[Row]) -> None:
    """No fact of the exam is told in a pair of opening and verb that training draws."""
    patterns = []
    for relation in exam_items.RELATIONS:
        for opening in exam_items.OPENINGS:
            for verb in relation.verbs:
                text = exam_items.sentence(relation, "KEY", verb, "VALUE", opening)
                pattern = re.escape(text).replace("KEY", r"\w+").replace("VALUE", r"\w+")
                held = exam_items.held_out(f"{relation.name} {opening}{verb}", 0.35)
                patterns.append((re.compile(pattern), held))
    facts = 0
    for row in rows:
        passage = re.search(r"[Pp]assage: (.*)\n", row["prompt"])
        assert passage
        for line in passage[1].rstrip(".").split(". "):
            told = [held for pattern, held in patterns if pattern.fullmatch(line)]
            facts += bool(told)
            assert told == [] or any(told), line
    assert facts > 3 * len(rows)


def share_right(rows: list[Row], score: Callable[[Row, str], float]) -> float:
    """Expected accuracy of taking a choice with the highest score."""
    total = 0.0
    for row in rows:
        right = row["answer"] if row["form"] == "text" else row["choices"]["ABCD".index(row["answer"])]
        scores = {choice: score(row, choice) for choice in row["choices"]}
        best = [choice for choice in scores if scores[choice] == max(scores.values())]
        total += (right in best) / len(best)
    return total / len(rows)


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(n)), strict=False))


@pytest.mark.parametrize("form", ["text", "letters"])
@pytest.mark.parametrize("guess", ["longest", "first", "last", "overlap 1", "overlap 2", "overlap 3"])
def test_no_short_cut_beats_forty_percent(rows: list[Row], form: str, guess: str) -> None:
    """The longest, first, last or most overlapping choice is hardly better than chance."""

    def score(row: Row, choice: str) -> float:
        if guess in {"first", "last"}:
            return row["choices"].index(choice) * (1 if guess == "last" else -1)
        if guess == "longest":
            return len(choice)
        n = int(guess[-1])
        passage = row["prompt"].split("uestion: ")[0]
        return len(ngrams(choice, n) & ngrams(passage, n))

    assert share_right([row for row in rows if row["form"] == form], score) <= 0.4


def test_without_the_passage_the_model_is_at_chance(tmp_path: Path, tiny: Path, rows: list[Row]) -> None:
    """It reads; it does not know."""
    docs = []
    for row in rows:
        prompt = re.sub(r"assage: .*\n", "assage:\n", row["prompt"])
        text = row["form"] == "text"
        labels = tuple(row["choices"]) if text else ("A", "B", "C", "D")
        docs.append(
            Doc(
                id=row["id"],
                group="",
                prompt=({"role": "user", "content": prompt},) if text else prompt,
                mode="choose",
                choices=labels if text else tuple(f" {letter}" for letter in labels),
                labels=labels,
                target=row["answer"],
            )
        )
    right = [a == row["answer"] for a, row in zip(answers(gguf(tmp_path, tiny), docs), rows, strict=True)]
    assert sum(right) / len(right) < 0.33


def test_some_answers_hang_on_the_window(tmp_path: Path, tiny: Path, rows: list[Row]) -> None:
    """A runtime that ignores the window sees the line that was replaced, and answers otherwise."""
    docs = get_task("exam").load(LoadOptions()).docs
    # A model that sees too much may go on and on: an answer has no more than 24 tokens.
    stale = [replace(doc, max_new_tokens=24) for doc, row in zip(docs, rows, strict=True) if row["stale"]]
    exact, plain = (answers(gguf(tmp_path, tiny, window), stale) for window in ("exact", "off"))
    changed = [a != b for a, b in zip(exact, plain, strict=True)]
    assert sum(changed) >= 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_committed_references_are_this_checkpoints(tmp_path: Path, tiny: Path, dtype: str) -> None:
    """Recomputed with transformers they come out the same; bfloat16 rounds by processor, so near-ties may move."""
    reference = Reference(tiny, dtype, "cpu")
    prepared = prepare(get_task("exam"), LoadOptions(), reference.encoder)
    with RunWriter(tmp_path / "run", reference.header()) as writer:
        evaluate_reference(prepared, reference, writer, {}, 8192, lambda _: None)
    again, committed = Run.open(tmp_path / "run"), Run.open(REFERENCE / dtype)
    found = diff(again, committed)
    assert found["same_checkpoint"] is True
    section = found["tasks"]["exam"]
    assert section["same_token_ids"] == section["items"] == 480
    if dtype == "float32":
        assert section["flips"] == []
        assert section["identical_texts"] == section["texts"]
        assert section["max_logprob_difference"] < 1e-3
    else:
        assert all(min(flip["margin"], flip["reference_margin"]) < 0.5 for flip in section["flips"])


def test_the_exam_on_llama_cpp_loses_nothing(tmp_path: Path, tiny: Path) -> None:
    """What ``make run`` shows: 90 % and more, every greedy text transformers' own, nothing altered."""
    model = gguf(tmp_path, tiny)
    run = tmp_path / "run"
    done = orin_run("eval", "exam", "--model", model, "--out", run)
    assert done.returncode == 0, done.stderr
    opened, reference = Run.open(run), Run.open(REFERENCE / "float32")
    found = diff(opened, reference)
    section = found["tasks"]["exam"]
    assert found["same_checkpoint"] is True
    assert opened.header["model"]["altered_values"] == 0
    assert section["accuracy"] >= 0.9
    assert section["reference_accuracy"] >= 0.9
    assert section["drop_points"] == 0.0
    assert section["identical_texts"] == section["texts"] == 360
    greedy = opened.report["tasks"]["exam"]["greedy"]
    assert greedy["texts"] == 360
    # Texts have 10.9 tokens, the first of which no step takes; how often a draft is cut short depends on the processor.
    assert greedy["decode_steps_per_text"] <= 3
    assert greedy["drafted_share"] >= 0.75
