"""``--first`` and shares of ``--limit``: the rows that lm-evaluation-harness takes with its ``--limit``."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from eval.tasks.base import LoadOptions, first_of_groups, spread
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task

AMOUNTS = st.one_of(st.integers(1, 50), st.floats(0, 1, exclude_min=True, exclude_max=True))


def docs(groups: list[str]) -> list[Doc]:
    return [Doc(str(i), group, "p", "generate", (), (), "t") for i, group in enumerate(groups)]


@settings(deadline=None)  # the first one loads the harness
@given(st.lists(st.sampled_from("abc"), max_size=40), AMOUNTS)
def test_the_first_of_each_group_are_the_harness_s_of_each_task(groups: list[str], amount: float) -> None:
    """In the order of the data set."""
    from lm_eval.evaluator_utils import get_sample_size

    found = [doc.id for doc in first_of_groups(docs(groups), amount)]
    wanted = []
    for group in set(groups):
        ids = [str(i) for i, name in enumerate(groups) if name == group]
        wanted += ids[: get_sample_size(SimpleNamespace(eval_docs=ids), amount)]
    assert found == sorted(wanted, key=int)


@settings(deadline=None)
@given(st.integers(1, 300), AMOUNTS)
def test_a_share_is_as_many_as_the_harness_asks(n: int, amount: float) -> None:
    """Evenly spread: no gap between two of them is longer than another by more than one."""
    from lm_eval.evaluator_utils import get_sample_size

    found = [int(doc.id) for doc in spread(docs(["a"] * n), amount)]
    assert len(found) == min(n, get_sample_size(SimpleNamespace(eval_docs=range(n)), amount) or n)
    gaps = [b - a for a, b in zip(found, [*found[1:], n], strict=True)]
    assert max(gaps) - min(gaps) <= 1


def test_of_a_task_with_groups() -> None:
    """The exam has two."""
    exam = get_task("exam")
    assert Counter(doc.group for doc in exam.load(LoadOptions(first=3)).docs) == {"text": 3, "letters": 3}
    whole = Counter(doc.group for doc in exam.load(LoadOptions()).docs)
    share = exam.load(LoadOptions(first=0.1))
    assert Counter(doc.group for doc in share.docs) == {name: -(-n // 10) for name, n in whole.items()}
    assert share.rows == whole.total()
