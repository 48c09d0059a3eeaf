"""What a run comes to: the sections of ``report.json`` and the page of one run or several."""
