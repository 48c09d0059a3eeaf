"""What numbers of ``report.json`` mean: in the words of ``docs/run-folder.md``, as tooltips, and in plain ones."""

from __future__ import annotations

MEANINGS = {
    "stderr": "standard error of the mean: sample standard deviation / sqrt(items); with several groups the deviations "
    "are those from the group's own mean, pooled: sqrt(sum of their squares / (items - groups) / items); where every "
    "group has one item, those from the mean of all",
    "split": "split of the data set that the items were read from; none where it is one whole",
    "rows": "rows of that split, before --limit or --first",
}
"""By the key of a task's section."""

IN_WORDS = {
    "challenge 2024": "seconds from reading the questions to the last answer; loading the model is not counted",
    "challenge 2023": "seconds from the start of the program to the last answer; loading the model is counted",
    "near-tie": "an answer whose lead over the runner-up is so small that rounding alone may have decided it",
}
"""A plain sentence for each clock and count that its name does not explain."""
