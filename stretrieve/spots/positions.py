"""Spot position files of every kind, and the short form that a query needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputNotFoundError, SectionError, explain
from stretrieve.spots.delimited import SPOT_NAME, numeric_column, read_table
from stretrieve.spots.raw import SpotTable

_SPACE_RANGER: Final = (
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)


def read_spot_positions(
    path: Path | str,
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
    """Read a positions file for ``query --spots``; spots off the tissue are left out.

    Parameters
    ----------
    path
        An ST selection or alignment table, a CSV with ``spot_id``, ``pixel_x``, ``pixel_y``, or the
        positions of Space Ranger (CSV with or without header, or parquet).

    Returns
    -------
    spot_ids : ndarray
        ``(n_spots,)`` names.
    xy : ndarray
        ``(n_spots, 2)`` centres in level-0 px, (x, y).

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    SectionError
        When it cannot be read, has duplicate names, or no spot under tissue.
    """
    path = Path(path)
    table = _read_apart(path) if is_parquet(path) else read_positions(path)
    keep = table.under_tissue
    if not keep.any():
        raise SectionError(explain(path.name, got="no spot under tissue", expected="one or more"))
    return np.array(table.spot_ids, dtype=np.str_)[keep], table.xy[keep]


def is_parquet(path: Path) -> bool:
    """Say whether positions are in parquet, by the file's name."""
    return path.suffix.lower() == ".parquet"


def _read_apart(path: Path) -> SpotTable:
    from stretrieve.spots.reading import read_table_apart

    if not path.is_file():
        raise InputNotFoundError(explain("spot positions", got=f"no file {path}"))
    return read_table_apart(path)


def read_positions(path: Path) -> SpotTable:
    """Read a positions file of any known kind, told apart by its columns.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    SectionError
        When it is of no known kind or damaged.
    """
    if not path.is_file():
        raise InputNotFoundError(explain("spot positions", got=f"no file {path}"))
    if is_parquet(path):
        from stretrieve.spots.parquet import read_positions_parquet

        return read_positions_parquet(path)
    header, rows = read_table(path)
    if _is_headerless_space_ranger(header):
        rows = [list(header_as_row(path)), *rows]
        header = list(_SPACE_RANGER)
    if "pxl_row_in_fullres" in header:
        table = _space_ranger(path, header, rows)
    elif "spot_id" in header:
        table = _named(path, header, rows)
    elif {"x", "y", "pixel_x", "pixel_y"} <= set(header):
        table = _selection(path, header, rows)
    elif header == ["", "x", "y"] and all(SPOT_NAME.match(row[0]) for row in rows):
        table = _named(path, ["spot_id", "pixel_x", "pixel_y"], rows)
    else:
        raise SectionError(
            explain(
                path.name,
                got=f"columns {', '.join(header)[:160]}",
                expected="x, y, pixel_x, pixel_y; or spot_id, pixel_x, pixel_y; or '<x>x<y>', X, Y; "
                "or Space Ranger's",
            )
        )
    check_unique(path.name, table.spot_ids)
    return table


def check_unique(what: str, names: Sequence[str]) -> None:
    """Refuse empty and duplicate spot names.

    Raises
    ------
    SectionError
        With the first offender.
    """
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise SectionError(
                explain(
                    f"{what}, spot name", got=f"{name[:60]!r} twice" if name else "an empty one"
                )
            )
        seen.add(name)


def header_as_row(path: Path) -> list[str]:
    """Return the first row of a table in its own case (a header that turned out to be data)."""
    from stretrieve.spots.textio import read_lines, unquote

    first = next(iter(read_lines(path)))
    return [unquote(cell) for cell in first.split(max("\t,;", key=first.count))]


def _is_headerless_space_ranger(header: Sequence[str]) -> bool:
    return len(header) == 6 and header[1] in {"0", "1"} and header[2].lstrip("-").isdigit()


def _space_ranger(path: Path, header: list[str], rows: list[list[str]]) -> SpotTable:
    missing = [name for name in _SPACE_RANGER if name not in header]
    if missing:
        raise SectionError(explain(path.name, got=f"no column {missing[0]!r}"))
    cells = {name: numeric_column(path, header, rows, name) for name in _SPACE_RANGER[1:]}
    at = header.index("barcode")
    return SpotTable(
        spot_ids=[row[at] for row in rows],
        xy=np.column_stack([cells["pxl_col_in_fullres"], cells["pxl_row_in_fullres"]]),
        array_xy=np.column_stack([cells["array_col"], cells["array_row"]]),
        under_tissue=cells["in_tissue"] == 1,
    )


def _named(path: Path, header: list[str], rows: list[list[str]]) -> SpotTable:
    ids = [row[header.index("spot_id")] for row in rows]
    xy = np.column_stack([numeric_column(path, header, rows, c) for c in ("pixel_x", "pixel_y")])
    if "array_x" in header and "array_y" in header:
        array = np.column_stack(
            [numeric_column(path, header, rows, c) for c in ("array_x", "array_y")]
        )
    elif all(SPOT_NAME.match(name) for name in ids):
        array = np.array([[float(part) for part in name.split("x")] for name in ids]).reshape(-1, 2)
    else:
        array = np.full((len(ids), 2), np.nan)
    return SpotTable(ids, xy, array, _selected(path, header, rows))


def _selection(path: Path, header: list[str], rows: list[list[str]]) -> SpotTable:
    x, y = header.index("x"), header.index("y")
    xy = np.column_stack([numeric_column(path, header, rows, c) for c in ("pixel_x", "pixel_y")])
    array = np.column_stack([numeric_column(path, header, rows, c) for c in ("x", "y")])
    aliases: tuple[list[str], ...] = ()
    if "new_x" in header and "new_y" in header:
        new_x, new_y = header.index("new_x"), header.index("new_y")
        aliases = ([f"{row[new_x]}x{row[new_y]}" for row in rows],)
    ids = [f"{row[x]}x{row[y]}" for row in rows]
    return SpotTable(ids, xy, array, _selected(path, header, rows), aliases)


def _selected(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    if "selected" not in header:
        return np.ones(len(rows), dtype=bool)
    return np.asarray(numeric_column(path, header, rows, "selected") != 0, dtype=bool)
