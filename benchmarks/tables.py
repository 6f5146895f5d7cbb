"""Plain, narrow tables, and how figures are written."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Columns as wide as their widest cell; the first to the left, the rest to the right."""

    def __init__(self, *heads: str) -> None:
        self._rows: list[tuple[str, ...]] = [heads]

    def row(self, *cells: str) -> None:
        """Add a row; cells that are left out stay empty."""
        self._rows.append(cells + ("",) * (len(self._rows[0]) - len(cells)))

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        return "\n".join(
            "  "
            + "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in self._rows
        )


def spread(values: Sequence[float], form: str) -> str:
    """The least and the greatest of the values."""
    return f"{format(min(values), form)}..{format(max(values), form)}"
