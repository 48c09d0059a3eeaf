"""Multiple choice: letters, whole choices and chat, choices as tokens, and scores from given log-probabilities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from eval.encoding import encode_docs
from eval.evaluate import prepare
from eval.predict import predict
from eval.runs.prediction import Prediction
from eval.tasks.base import LoadOptions, in_chat
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from orin_runner.model.chat_template import Message
from orin_runner.requests import Scored, ScoreRequest, Tokens
from tests.support.choice_rows import GOLDEN, choice_doc, jsonl, write


class Words:
    """Tokens are words with the spaces in front of them; spaces at the end are a token of their own."""

    stop = frozenset({0})
    prefix = 0
    has_chat_template = True

    def __init__(self) -> None:
        self.words: list[str] = ["<s>"]

    def chats(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        return [f"<s> user: {messages[0]['content']} bot:" for messages in conversations]

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        return [np.array([0] * special + [self._id(w) for w in re.findall(r" *[^ ]+| +$", t)], np.int32) for t in texts]

    def decode(self, tokens: Tokens) -> str:
        return "".join(self.words[i] for i in tokens)

    def _id(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)


def request_of(doc: Doc, words: Words) -> ScoreRequest:
    request = encode_docs([doc], words)[0].request
    assert isinstance(request, ScoreRequest)
    return request


def test_a_space_at_a_prompts_end_belongs_to_the_choice() -> None:
    """lm-evaluation-harness's ``_encode_pair``: "so  " + "it" is "so" and "  it"."""
    words = Words()
    request = request_of(choice_doc("so  ", ("it", "he is")), words)
    assert words.decode(request.prompt) == "<s>so"
    assert [words.decode(c) for c in request.continuations] == ["  it", "  he is"]
    assert request.n_scored == (1, 2)
    own = request_of(choice_doc("", ("won",) * 2, prompts=("so Ann ", "so Eve ")), words)
    assert [words.decode(c) for c in own.continuations] == [" Ann won", " Eve won"]
    assert own.n_scored == (1, 1)


def test_a_choice_that_joins_the_prompts_last_word_is_split_by_count() -> None:
    """ "so" + "it is" is "soit is" of two words, the prompt alone is one: the second word is the choice's."""
    words = Words()
    request = request_of(choice_doc("so", ("it is", " he")), words)
    assert [words.decode(c) for c in request.continuations] == [" is", " he"]
    with pytest.raises(UserError, match="the choice 'it' has no token of its own"):
        encode_docs([choice_doc("so", ("it", " he"))], words)


def test_one_prompt_per_choice_shares_what_they_have_in_common() -> None:
    """Common start as the prompt, the rest in the continuations, of which the last tokens are scored."""
    words = Words()
    doc = choice_doc("", (" won it.",) * 2, prompts=("so big Ann", "so Eve"))
    question = encode_docs([doc], words)[0]
    request = question.request
    assert isinstance(request, ScoreRequest)
    assert words.decode(request.prompt) == "<s>so"
    assert [words.decode(c) for c in request.continuations] == [" big Ann won it.", " Eve won it."]
    assert request.n_scored == (2, 2)
    assert question.n_tokens == 4
    other = encode_docs([choice_doc("", (" won it.",) * 2, prompts=("so big Ann", "so Eva"))], words)[0]
    assert other.digest != question.digest


def scored(task: str, doc: Doc, logprobs: Sequence[Sequence[float]]) -> Prediction:
    words = Words()
    question = encode_docs([doc], words)[0]
    result = Scored(tuple(np.array(values) for values in logprobs), (False,) * len(logprobs))
    return predict(get_task(task), question, result, words)


def test_hellaswag_by_sum_characters_bytes_and_tokens() -> None:
    """Each measure has its own winner; the space in front of a choice is not counted.

    Sums -4, -5, -6, -8; characters 2, 5, 4, 7; bytes 2, 5, 8, 7; tokens 1, 2, 2, 4. Per character: -2, -1, -1.5, -8/7;
    per byte: -2, -1, -0.75, -8/7; per token: -4, -2.5, -3, -2.
    """
    doc = choice_doc("x", (" ab", " a cde", " \u00e9\u00e9\u00e9\u00e9", " a b c d"), target="B")
    found = scored("hellaswag", doc, [[-4.0], [-2.0, -3.0], [-3.0, -3.0], [-2.0, -2.0, -2.0, -2.0]])
    assert found.prediction == "A"
    assert found.logprobs == (-4.0, -5.0, -6.0, -8.0)
    assert found.margin == 1.0
    assert found.scores == {"acc": 0.0, "acc_norm": 1.0, "acc_bytes": 0.0, "acc_tokens": 0.0}
    winners = {"A": "acc", "B": "acc_norm", "C": "acc_bytes", "D": "acc_tokens"}
    for target, metric in winners.items():
        again = scored(
            "hellaswag",
            choice_doc("x", doc.choices, target=target),
            [[-4.0], [-5.0, 0.0], [-6.0, 0.0], [-8.0, 0, 0, 0]],
        )
        assert [name for name, value in again.scores.items() if value] == [metric]
        assert again.correct == (metric == "acc")


@pytest.mark.parametrize("chat", [False, True])
def test_a_prepared_task_knows_its_split_and_rows(tmp_path: Path, *, chat: bool) -> None:
    """In the model's chat template, too."""
    data = write(tmp_path, {"piqa/dev.jsonl": jsonl(*[{"goal": "g", "sol1": "a x", "sol2": "b y", "label": 1}] * 5)})
    found = prepare(get_task("piqa"), LoadOptions(data, limit=2, chat=chat), Words())
    assert len(found.questions) == 2
    assert found.source == {"split": "validation", "rows": 5}


@pytest.mark.parametrize("target", ["A", "B", "C"])
def test_of_tied_choices_the_first_is_taken(target: str) -> None:
    """As numpy's argmax in the harness: by sums, characters, bytes and tokens, B before C; the margin is 0."""
    doc = choice_doc("x", (" ab", " cd", " ef"), target=target)
    found = scored("hellaswag", doc, [[-3.0], [-2.0], [-2.0]])
    assert (found.prediction, found.margin) == ("B", 0.0)
    assert found.correct == (target == "B")
    assert found.scores == dict.fromkeys(("acc", "acc_norm", "acc_bytes", "acc_tokens"), float(target == "B"))
    all_alike = scored("hellaswag", doc, [[-2.0], [-2.0], [-2.0]])
    assert (all_alike.prediction, all_alike.correct) == ("A", target == "A")


def test_truthfulqa_is_the_true_answers_share() -> None:
    """Probabilities 0.1, 0.2, 0.1 of which the last two are true: 0.75; tiny ones do not vanish."""
    doc = choice_doc("x", (" a", " b", " c"), target="B", right=("B", "C"))
    found = scored("truthfulqa_mc2", doc, [np.log([p]).tolist() for p in (0.1, 0.2, 0.1)])
    assert found.scores == {"mc2": pytest.approx(0.75)}
    assert found.score == pytest.approx(0.75)
    assert found.correct
    far = scored("truthfulqa_mc2", doc, [[-2000.0], [-2000.0 + float(np.log(0.25))], [-2000.0 + float(np.log(0.25))]])
    assert far.scores["mc2"] == pytest.approx(1 / 3)
    assert not far.correct


def test_winogrande_takes_the_option_before_the_likelier_rest() -> None:
    """The same words, after two contexts."""
    doc = choice_doc("", (" won it.",) * 2, prompts=("so Ann", "so Eve"), target="B")
    assert scored("winogrande", doc, [[-1.0, -1.0], [-0.5, -1.0]]).correct


def test_letters_whole_choices_and_chat(tmp_path: Path) -> None:
    """One row in each way: the other way's prompt, and one message with nothing before the answer."""
    data = write(tmp_path, {**GOLDEN["openbookqa"].files, **GOLDEN["commonsense_qa"].files, **GOLDEN["piqa"].files})
    letters = get_task("openbookqa").load(LoadOptions(data, scoring="letters")).docs[0]
    assert letters.prompt == "Frogs eat\nA. flies\nB. cars\nC. stones\nD. sand\nAnswer:"
    assert (letters.choices, letters.target, letters.single_token) == ((" A", " B", " C", " D"), "A", True)
    whole = get_task("commonsense_qa").load(LoadOptions(data, scoring="text")).docs[0]
    assert whole.prompt == "Question: Where do crabs sleep?\nAnswer:"
    assert (whole.choices, whole.target, whole.single_token) == ((" sea", " a  bed", " sky", " x", " y"), "B", False)
    chat = in_chat(get_task("piqa").load(LoadOptions(data)).docs[0])
    assert chat.prompt == ({"role": "user", "content": "Question: Open a jar\nAnswer:"},)
    assert chat.choices == ("Hit it.", "Turn the lid.")


def test_ways_a_task_does_not_have_are_refused(tmp_path: Path) -> None:
    """With what to do instead."""
    data = write(tmp_path, {**GOLDEN["winogrande"].files, **GOLDEN["truthfulqa_mc2"].files})
    for name in ("winogrande", "truthfulqa_mc2"):
        with pytest.raises(UserError, match="omit --scoring"):
            get_task(name).load(LoadOptions(data, scoring="letters"))
    with pytest.raises(UserError, match="omit --chat"):
        in_chat(get_task("winogrande").load(LoadOptions(data)).docs[0])
    with pytest.raises(UserError, match="omit --shots"):
        get_task("truthfulqa_mc2").load(LoadOptions(data, shots="phi3"))
    with pytest.raises(UserError, match="exam is scored in one way only"):
        prepare(get_task("exam"), LoadOptions(scoring="text"), Words())


def test_a_choice_without_characters_is_never_chosen_by_length() -> None:
    """HellaSwag's marks may leave nothing of an ending."""
    found = scored("hellaswag", choice_doc("x", (" ", " a"), target="A"), [[-1.0], [-9.0]])
    assert found.scores == {"acc": 1.0, "acc_norm": 0.0, "acc_bytes": 0.0, "acc_tokens": 1.0}
