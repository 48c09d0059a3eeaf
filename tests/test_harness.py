"""Our tasks ask what lm-evaluation-harness's ask, and the engine as its model answers what its ``hf`` model answers."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from harness import asked, local_config, local_task
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.harness import HarnessModel, evaluate_with_harness, greedy_arguments
from eval.tasks import get_task
from eval.tasks.base import LETTERS, LoadOptions
from eval.tasks.mmlu import SUBJECTS
from orin_runner.cli import _start
from orin_runner.errors import UserError
from orin_runner.gguf_file import GGUFFile

NEAR_TIE = 0.02
"""Log-probability by which a BF16 GGUF with a F16 cache may differ from transformers in float32."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> GGUFFile:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return GGUFFile.open(out)


@pytest.fixture
def ours(gguf: GGUFFile) -> Iterator[HarnessModel]:
    model = HarnessModel(gguf, lambda requests: _start(gguf, requests, None))
    yield model
    model.close()


@pytest.fixture(scope="module")
def theirs(tiny: Path) -> HFLM:
    return HFLM(pretrained=str(tiny), device="cpu", dtype="float32", batch_size=8)


def mmlu_rows(data: Path, subject: str, split: str) -> list[dict[str, Any]]:
    with (data / "mmlu" / split / f"{subject}_{split}.csv").open(newline="", encoding="utf-8") as file:
        return [
            {"question": question, "subject": subject, "choices": choices, "answer": LETTERS.index(answer)}
            for question, *choices, answer in csv.reader(file)
        ]


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def test_mmlu_asks_what_the_harness_asks(tmp_path: Path, orin_data: Path) -> None:
    """5-shot prompts, continuations and targets of the first and last questions of every subject."""
    docs: dict[str, list[Any]] = {}
    for doc in get_task("mmlu").load(LoadOptions(orin_data)):
        docs.setdefault(doc.group, []).append(doc)
    for subject in SUBJECTS:
        rows = mmlu_rows(orin_data, subject, "test")
        assert len(docs[subject]) == len(rows)
        splits = {"test": [*rows[:2], *rows[-2:]], "dev": mmlu_rows(orin_data, subject, "dev")}
        task = local_task(f"mmlu/default/mmlu_{subject}.yaml", splits, tmp_path / subject, 5)
        ends = [*docs[subject][:2], *docs[subject][-2:]]
        assert asked(task) == [[(doc.prompt, choice) for choice in doc.choices] for doc in ends]
        assert [LETTERS[task.doc_to_target(row)] for row in task.eval_docs] == [doc.target for doc in ends]


PAIRS = [
    ("The market opens", " at nine."),
    ("The market opens ", "at nine."),
    ("Question: who?\nAnswer:", " B"),
    ("", "An empty context"),
    ("line\n\n", "after blank lines"),
    ("Die Straße heißt", " Königsallee – 北京"),
]


def test_log_likelihoods_are_those_of_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """White space at the context's end, no context, several bytes per character, one too long for the context."""
    pairs = [*PAIRS, ("one two three four five " * 1200, "six seven")]
    requests = instances("loglikelihood", pairs)
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    found = ours.loglikelihood(requests)
    assert np.array([x for x, _ in found]) == pytest.approx(np.array([x for x, _ in expected]), abs=NEAR_TIE, rel=2e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_tokens_are_those_of_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """Where context and continuation are split, token by token."""
    for (context, continuation), (before, after) in zip(PAIRS, ours._pairs(PAIRS), strict=True):
        if context:
            assert (before.tolist(), after.tolist()) == tuple(theirs._encode_pair(context, continuation))
    chat = theirs.apply_chat_template([{"role": "user", "content": "Who?"}])
    assert ours._encode([chat])[0].tolist() == theirs.tok_encode(chat)


def test_rolling_log_likelihoods_are_those_of_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """A short text, and one of three contexts' length; windows overlap by one token."""
    ours.max_length = theirs._max_length = 128
    try:
        requests = instances("loglikelihood_rolling", [("A short text.",), ("The clerk reads the list again. " * 40,)])
        expected = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    finally:
        theirs._max_length = None
    assert len(ours._encode([requests[1].args[0]])[0]) > 2 * 128
    assert ours.loglikelihood_rolling(requests) == pytest.approx(expected, rel=2e-3)


def test_a_longer_list_gets_a_longer_context(ours: HarnessModel, theirs: HFLM) -> None:
    """The runner is planned for the first list and started anew for the second."""
    for text in ("short", "a longer one " * 100):
        requests = instances("loglikelihood", [(text, " end")])
        ((found, _),) = ours.loglikelihood(requests)
        ((expected, _),) = theirs.loglikelihood(requests, disable_tqdm=True)
        assert found == pytest.approx(expected, abs=NEAR_TIE, rel=2e-3)
        first = ours._runner
    assert ours.loglikelihood(requests)
    assert ours._runner is first


def test_too_long_requests_are_said(ours: HarnessModel, caplog: pytest.LogCaptureFixture) -> None:
    """A context that loses its beginning is warned of; a continuation that cannot fit is refused."""
    ours.max_length = 16
    log = logging.getLogger("lm_eval.orin_run")
    log.addHandler(caplog.handler)
    try:
        ours.loglikelihood(instances("loglikelihood", [("word " * 40, " end"), ("word", " end")]))
    finally:
        log.removeHandler(caplog.handler)
    assert "1 of 2 requests are longer than the model's 16 tokens" in caplog.text
    with pytest.raises(UserError, match="a continuation has"):
        ours.loglikelihood(instances("loglikelihood", [("word", " end" * 40)]))
    with pytest.raises(UserError, match="max_gen_toks=16 leaves no room"):
        ours.generate_until(instances("generate_until", [("word", {"max_gen_toks": 16})]))


def test_texts_are_those_of_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """Chats, stop strings, and a text that max_gen_toks ends."""
    chats = [[{"role": "user", "content": text}] for text in ("Who is the oldest?", "choices: ['a red hat', 'a pen']")]
    prompts = [theirs.apply_chat_template(chat) for chat in chats]
    assert [ours.apply_chat_template(chat) for chat in chats] == prompts
    arguments = [
        *[(prompt, {"until": [], "max_gen_toks": 24}) for prompt in prompts],
        *[(prompt, {"until": ["e", "<|end|>"], "max_gen_toks": 24, "do_sample": False}) for prompt in prompts],
        ("The market opens", {"until": "\n\n", "max_gen_toks": 5}),
    ]
    requests = instances("generate_until", arguments)
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_a_begun_answer_is_continued_as_with_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """gen_prefix with a chat template: the last message stays open."""
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The best answer is"}]
    expected = theirs.apply_chat_template(chat, add_generation_prompt=False)
    assert ours.apply_chat_template(chat, add_generation_prompt=False) == expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"do_sample": True}, "do_sample=True"),
        ({"temperature": 0.7}, "do_sample=True"),
        ({"num_beams": 4}, "num_beams=4"),
        ({"do_sample": False, "repetition_penalty": 1.3}, "repetition_penalty=1.3"),
    ],
)
def test_only_greedy_generation_is_taken(arguments: dict[str, Any], named: str) -> None:
    """Sampling, beams and penalties are refused by name."""
    with pytest.raises(UserError, match=named):
        greedy_arguments(arguments)


def test_sampling_arguments_without_sampling_are_harmless() -> None:
    """``do_sample: false`` decides, as in transformers."""
    assert greedy_arguments({"do_sample": False, "temperature": 0.0, "top_p": 0.9, "until": "."}) == (["."], 256)


@pytest.mark.slow
def test_a_harness_task_gives_our_own_tasks_answers(tmp_path: Path, orin_data: Path, gguf: GGUFFile) -> None:
    """MMLU's subject as the harness's task on local rows, from the command line's options to its results."""


def test_options_that_are_the_engines_are_refused(ours: HarnessModel, tmp_path: Path) -> None:
    """Nothing the engine decides is silently ignored; unknown tasks are one line."""
    for option in ("--model_args", "--batch_size", "--output_path"):
        with pytest.raises(UserError, match=option):
            evaluate_with_harness(["--tasks", "x", option, "a=1" if option == "--model_args" else "1"], ours, tmp_path)
    with pytest.raises(UserError, match="Tasks not found: no_such_task"):
        evaluate_with_harness(["--tasks", "no_such_task"], ours, tmp_path / "out")
