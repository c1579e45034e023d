"""Count matrices in delimited text, either way round, and the spot tables that go with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.spots.raw import RawMatrix
from stretrieve.spots.textio import read_lines, unquote

SPOT_NAME: Final = re.compile(r"^-?\d+(?:\.\d+)?x-?\d+(?:\.\d+)?$")
_BLOCK: Final = 64
_MAX_SPOTS: Final = 5_000_000
_MAX_GENES: Final = 200_000


def read_count_table(path: Path) -> RawMatrix:
    """Read a dense matrix of counts whose spots are named ``"<x>x<y>"``.

    Spots may be the rows (her2st, ST pipeline) or the columns (many R packages); the header may or may
    not have a cell over the row names; names may be quoted; the file may be gzipped.

    Raises
    ------
    SectionError
        When the file is no such table.
    """
    lines = read_lines(path)
    header = next(lines, "")
    delimiter = max("\t,;", key=header.count)
    columns = [unquote(cell) for cell in header.split(delimiter)]
    names: list[str] = []
    blocks: list[sparse.csr_matrix] = []
    rows: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        name, _, rest = line.partition(delimiter)
        names.append(unquote(name))
        rows.append(rest)
        if len(rows) == _BLOCK:
            blocks.append(_parse(path, rows, delimiter, first=len(names) - len(rows)))
            rows = []
        _check_size(path, len(names), len(columns))
    if rows:
        blocks.append(_parse(path, rows, delimiter, first=len(names) - len(rows)))
    if not blocks:
        raise SectionError(explain(path.name, got="no rows", expected="a table of counts"))
    values = _stack(path, blocks)
    if len(columns) == values.shape[1] + 1:
        columns = columns[1:]
    return _orient(path, values, names, columns)


def _parse(path: Path, rows: Sequence[str], delimiter: str, *, first: int) -> sparse.csr_matrix:
    try:
        dense = np.loadtxt(
            rows, delimiter=delimiter, dtype=np.float64, comments=None, ndmin=2, quotechar='"'
        )
    except (ValueError, OverflowError) as error:
        raise SectionError(
            explain(
                f"{path.name}, data rows {first + 1} to {first + len(rows)}",
                got=str(error)[:160],
                expected="the same number of counts in every row",
            )
        ) from error
    return sparse.csr_matrix(dense)


def _stack(path: Path, blocks: Sequence[sparse.csr_matrix]) -> sparse.csr_matrix:
    widths = sorted({block.shape[1] for block in blocks})
    if len(widths) > 1:
        raise SectionError(
            explain(path.name, got=f"rows of {widths} values", expected="rows of one length")
        )
    return sparse.csr_matrix(sparse.vstack(blocks, format="csr"))


def _check_size(path: Path, n_rows: int, n_columns: int) -> None:
    if max(n_rows, n_columns) > _MAX_SPOTS or min(n_rows, n_columns) > _MAX_GENES:
        raise SectionError(explain(path.name, got=f"{n_rows} x {n_columns} cells", expected="less"))


def _orient(
    path: Path, values: sparse.csr_matrix, rows: list[str], columns: list[str]
) -> RawMatrix:
    if len(columns) != values.shape[1]:
        raise SectionError(
            explain(
                path.name,
                got=f"{len(columns)} names in the header and {values.shape[1]} values a row",
                expected="one name a column",
            )
        )
    if "" in rows or "" in columns:
        raise SectionError(explain(path.name, got="a row or column without a name"))
    if _share_of_spot_names(rows) >= 0.9:
        spots, genes = rows, columns
    elif _share_of_spot_names(columns) >= 0.9:
        spots, genes = columns, rows
        values = sparse.csr_matrix(values.T)
    else:
        raise SectionError(
            explain(
                path.name,
                got=f"rows named {rows[0][:40]!r}, columns named {columns[0][:40]!r}",
                expected="spots named '<x>x<y>' along one side",
            )
        )
    strange = next((name for name in spots if not SPOT_NAME.match(name)), None)
    if strange is not None:
        raise SectionError(
            explain(f"{path.name}, spot name", got=repr(strange[:60]), expected="'<x>x<y>'")
        )
    return RawMatrix(values, spots, genes, [""] * len(genes))


def _share_of_spot_names(names: Sequence[str]) -> float:
    return sum(bool(SPOT_NAME.match(name)) for name in names) / max(len(names), 1)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read a small delimited table: header in lower case, then rows of cells.

    Raises
    ------
    SectionError
        When it is empty or a row has more or fewer cells than the first.
    """
    lines = [line for line in read_lines(path, max_bytes=2 << 30) if line.strip()]
    if not lines:
        raise SectionError(explain(path.name, got="an empty file", expected="spot positions"))
    delimiter = max("\t,;", key=lines[0].count)
    rows = [[unquote(cell) for cell in line.split(delimiter)] for line in lines]
    width = len(rows[0])
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise SectionError(
                explain(f"{path.name}, line {number}", got=f"{len(row)} cells", expected=width)
            )
    return [cell.lower() for cell in rows[0]], rows[1:]


def numeric_column(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], name: str
) -> npt.NDArray[np.float64]:
    """Return one column of a table as ``(n_rows,)`` finite float64.

    Raises
    ------
    SectionError
        When it is not there or holds something that is not a finite number.
    """
    if name not in header:
        raise SectionError(
            explain(path.name, got=f"no column {name!r}", expected=", ".join(header)[:200])
        )
    at = list(header).index(name)
    values = np.empty(len(rows))
    for number, row in enumerate(rows):
        try:
            values[number] = float(row[at])
        except ValueError:
            values[number] = np.nan
        if not np.isfinite(values[number]):
            raise SectionError(
                explain(
                    f"{path.name}, data row {number + 1}, column {name!r}",
                    got=repr(row[at][:40]),
                    expected="a finite number",
                )
            )
    return values
