"""The mirror of llama.cpp's cells: what it refuses."""

from __future__ import annotations

import pytest

from orin_runner.batching.kv_cells import CellsError, KVCells


def test_cells_refuse_what_cannot_be() -> None:
    """Copying more than there is, copying onto a full sequence, and running out of ids are bugs of ours."""
    cells = KVCells(8, 2, 8)
    a = cells.new_seq()
    cells.extend(a, 0, 4)
    b = cells.new_seq()
    with pytest.raises(CellsError, match="holds 4"):
        cells.copy(a, b, 5)
    with pytest.raises(CellsError, match="not empty"):
        cells.copy(a, b, 1)
    with pytest.raises(CellsError, match="no sequence id"):
        cells.new_seq()
    cells.refs[0] += 1
    with pytest.raises(CellsError, match="reference counts"):
        cells.check_integrity()
