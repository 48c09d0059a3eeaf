"""What numbers of ``report.json`` mean, in the words of ``docs/run-folder.md``; the page has them as tooltips."""

from __future__ import annotations

MEANINGS = {
    "stderr": "standard error of the mean: sample standard deviation / sqrt(items); with several groups the deviations "
    "are those from the group's own mean, pooled: sqrt(sum of their squares / (items - groups) / items); where every "
    "group has one item, those from the mean of all",
    "split": "split of the data set that the items were read from; none where it is one whole",
    "rows": "rows of that split, before --limit",
}
"""By the key of a task's section."""
