"""Plain, narrow tables, and how figures are written."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

QUIET = 0.1
"""Share of the machine that others may use before a figure is called disturbed."""


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
    """The least and the greatest of the values; nothing where there is one."""
    if len(values) < 2:
        return ""
    return f"{format(min(values), form)}..{format(max(values), form)}"


def times(number: int) -> str:
    """How often something was measured."""
    return "1 round" if number == 1 else f"{number} rounds, medians"


def with_spread(values: Sequence[float], form: str) -> str:
    """The median, and the least and the greatest value behind it."""
    between = spread(values, form)
    return format(median(values), form) + (f"  ({between})" if between else "")


def disturbance(others: float) -> str:
    """A line about what else kept the machine busy, or nothing where it does not matter."""
    if others <= QUIET:
        return ""
    return f"\n  disturbed: other processes had up to {others:.0%} of the machine; measure again"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bars(values: Sequence[float], width: int = 40) -> str:
    """How the values are distributed: a line for each step between equal ratios."""
    edges = [0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1_024]
    lines = []
    done = 0
    for edge in edges:
        below = sum(value <= edge for value in values)
        if below > done:
            length = max(1, round((below - done) / len(values) * width))
            lines.append(f"  {edge:>6g}  {'#' * length} {below - done}")
        done = below
    if done < len(values):
        lines.append(f"    more  {len(values) - done}")
    return "\n".join(lines)
