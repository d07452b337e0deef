"""
Plain tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dcm_ws.cli.terminal import harmless


def columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """
    The lines of a table, aligned with spaces: numbers to the right, everything else to the left, escaped.

    @param head: the names of the columns.
    """
    cells = [tuple(harmless(str(cell)) for cell in row) for row in (head, *rows)]
    numeric = [bool(rows) and all(isinstance(row[at], int) for row in rows) for at in range(len(head))]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    for row in cells:
        parts = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        yield "  ".join(parts).rstrip()
