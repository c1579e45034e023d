"""A table as it is printed, and how its cells are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MISSING: Final = "–"
MAX_FOLDS: Final = 6
"""More folds than this are shown by their mean and range."""


@dataclass(frozen=True)
class Table:
    """A table as printed.

    Parameters
    ----------
    title
        Heading.
    columns
        Names; the first column is text, the others are numbers.
    rows
        Cells as text.
    note
        What to know when reading it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def number(value: float | None) -> str:
    """Return a number as a cell."""
    return MISSING if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Return a difference as a cell, with its sign."""
    return MISSING if value is None else f"{value:+.3f}".replace("-", "−")


def spread(found: Mapping[str, float]) -> dict[str, float]:
    """Return a few numbers for those of many folds."""
    values = sorted(found.values())
    mean = sum(values) / len(values)
    return {"mean over folds": mean, "lowest": values[0], "highest": values[-1]}


def markdown(table: Table) -> str:
    """Return a table as Markdown with its heading."""
    lines = [f"### {table.title}", ""]
    lines += [table.note, ""] if table.note else []
    lines += [_row(table.columns), _row(["---"] + ["---:"] * (len(table.columns) - 1))]
    lines += [_row(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
