"""The Hugging Face reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.encoding import encode_docs
from eval.reference import Reference
from orin_runner.requests import Scored
from tests.support.choice_rows import choice_doc


def test_the_reference_scores_the_last_tokens_only(tiny: Path) -> None:
    """Contexts in the continuations give what they give in prompts of their own."""
    reference = Reference(tiny, "float32", "cpu")
    doc = choice_doc("", (" opens late today.",) * 2, prompts=("The market in the north", "The old shop"))
    whole = [choice_doc(prompt, (doc.choices[0],) * 2) for prompt in doc.prompts]
    requests = [question.request for question in encode_docs([doc, *whole], reference.encoder)]
    results = dict(reference.run(requests, 4096))
    both, *apart = (results[i] for i in range(3))
    assert isinstance(both, Scored)
    for i, one in enumerate(apart):
        assert isinstance(one, Scored)
        assert both.logprobs[i] == pytest.approx(one.logprobs[0], abs=1e-4)
