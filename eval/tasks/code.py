"""What the tasks share whose answers are code: it is right where it and the task's tests run to their end.

Such code is run in a process that is shut off (``eval/code_run.py``), and only where ``--run-code`` allows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from eval.code_run import passes
from eval.tasks.base import Year
from eval.tasks.doc import Doc


class CodeTask(ABC):
    """Base of the tasks.

    Attributes:
        metrics: one, by the harness's name.
    """

    name: str
    metric = "share of programs that pass the tests"
    metrics: tuple[str, ...]
    protocols: tuple[Year, ...] = ()
    splits: tuple[str, ...] = ("test",)

    @abstractmethod
    def program(self, doc: Doc, text: str) -> str:
        """What is run to judge ``text``, its tests (``doc.target``) included."""

    def normalize(self, text: str) -> str:
        return text

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        return dict.fromkeys(self.metrics, float(passes(self.program(doc, text))))


def code_doc(doc_id: str, prompt: str, tests: str, until: tuple[str, ...], max_new_tokens: int) -> Doc:
    """A question whose answer is code."""
    return Doc(
        id=doc_id,
        group="test",
        prompt=prompt,
        mode="generate",
        choices=(),
        labels=(),
        target=tests,
        max_new_tokens=max_new_tokens,
        until=until,
    )
