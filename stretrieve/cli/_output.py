"""Results on stdout: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA_VERSION = 1


def emit_json(data: Mapping[str, Any]) -> None:
    """Write one JSON object with a schema version."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **data}, ensure_ascii=False, default=str)
    sys.stdout.write(text + "\n")


def emit_text(text: str) -> None:
    """Write text as it is."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def emit_table(
    rows: Sequence[Sequence[object]], *, columns: Sequence[str], title: str = ""
) -> None:
    """Write a table; numbers are right-aligned and shortened to four digits."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def emit_pairs(pairs: Mapping[str, object], *, title: str = "") -> None:
    """Write names and values, one a line."""
    emit_table(list(pairs.items()), columns=("", ""), title=title)


def _text(cell: object) -> str:
    from rich.markup import escape

    if isinstance(cell, float):
        return f"{cell:.4g}"
    return escape(str(cell))
