"""What the command adds to a run's report."""

from __future__ import annotations

from typing import Any

import pytest

from orin_runner.cli.result import add_prompt_rate
from orin_runner.console import Notes
from orin_runner.engine.prompt_rate import PromptRate


def test_a_limit_that_was_not_measured_is_not_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupted or dead: the report stays as it was, and it is said."""

    def interrupted() -> PromptRate | None:
        raise KeyboardInterrupt

    for measure in (interrupted, lambda: None):
        report: dict[str, Any] = {"tasks": {"t": {"device": {"answer_tokens": 900, "answer_s": 2.0}}}}
        add_prompt_rate(report, measure, Notes())
        assert report == {"tasks": {"t": {"device": {"answer_tokens": 900, "answer_s": 2.0}}}}
        assert "was not measured" in capsys.readouterr().err
    add_prompt_rate(report, lambda: PromptRate(1500, 3.0, 3), Notes())
    assert report["tasks"]["t"]["share_of_prompt_rate"] == pytest.approx(0.9)
    assert report["prompt_rate"]["tokens_per_s"] == 500
