"""Where the files lie that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parent
SUBMISSION = ROOT / "docs" / "submission"

TINY_PHI3 = ROOT / "tests" / "tiny_phi3"
TINY = TINY_PHI3 / "checkpoint"
REFERENCE = TINY_PHI3 / "reference"
