"""One question, ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orin_runner.model.chat_template import Message

Mode = Literal["choose", "generate"]


@dataclass(frozen=True, slots=True)
class Doc:
    """One question.

    Attributes:
        id: unique within its task.
        group: subject or sub-task, for the per-group table.
        prompt: plain text, or a conversation to be rendered with the model's chat template.
        mode: ``"choose"`` compares the log-probabilities of ``choices``; ``"generate"`` takes the greedy text.
        choices: choose: the continuations, verbatim, leading space included. generate: texts the answer is likely to
            be, for verification; they never change it.
        labels: choose: what each choice is called in the results (a letter, say).
        target: the right label, or the right text.
        single_token: choose: every choice must be one token (answer letters).
        max_new_tokens: generate: bound on the text's length.
        prompts: choose: one prompt per choice, where the choice stands in the prompt and the same text is scored after
            each; ``prompt`` is then not used. Empty otherwise.
        right: choose: labels of all choices that are true, where more than one may be.
        until: generate: texts that end the answer; it is cut before the first of them.
        references: generate: texts that are right as well as ``target``.
        special: whether a plain prompt gets the special tokens that the tokenizer puts around a text (BOS).
    """

    id: str
    group: str
    prompt: str | tuple[Message, ...]
    mode: Mode
    choices: tuple[str, ...]
    labels: tuple[str, ...]
    target: str
    single_token: bool = False
    max_new_tokens: int = 0
    prompts: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    special: bool = True
