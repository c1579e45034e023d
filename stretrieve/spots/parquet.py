"""Spot positions in parquet, as Visium HD writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import SectionError, explain
from stretrieve.spots.raw import SpotTable

_NUMBERS: Final = (
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)
MAX_ROWS: Final = 50_000_000


def read_parquet_columns(path: Path, columns: tuple[str, ...], *, max_rows: int = MAX_ROWS) -> Any:
    """Read named columns of a parquet file as an Arrow table.

    Raises
    ------
    SectionError
        When the file is not parquet, lacks a column or has more than ``max_rows`` rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise SectionError(
                    explain(path.name, got=f"no column {missing[0]!r}", expected=", ".join(columns))
                )
            if file.metadata.num_rows > max_rows:
                raise SectionError(
                    explain(
                        path.name, got=f"{file.metadata.num_rows} rows", expected=f"≤ {max_rows}"
                    )
                )
            table = file.read(columns=list(columns), use_threads=False)
            table.validate(full=True)
            return table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SectionError(
            explain(path.name, got=str(error)[:160], expected="a readable parquet file")
        ) from error


def numbers(path: Path, table: Any, name: str) -> npt.NDArray[np.float64]:
    """Return one column of an Arrow table as finite float64.

    Raises
    ------
    SectionError
        When it holds something else.
    """
    try:
        values = np.asarray(table.column(name).to_numpy(), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SectionError(
            explain(f"{path.name}, column {name!r}", got=str(error)[:120], expected="numbers")
        ) from error
    if not np.all(np.isfinite(values)):
        raise SectionError(
            explain(f"{path.name}, column {name!r}", got="missing or infinite values")
        )
    return values


def read_positions_parquet(path: Path) -> SpotTable:
    """Read ``tissue_positions.parquet`` of Space Ranger.

    Raises
    ------
    SectionError
        When it is damaged, has other columns, or duplicate barcodes.
    """
    from stretrieve.spots.positions import check_unique

    table = read_parquet_columns(path, ("barcode", *_NUMBERS))
    cells = {name: numbers(path, table, name) for name in _NUMBERS}
    ids = [str(name or "") for name in table.column("barcode").to_pylist()]
    check_unique(path.name, ids)
    return SpotTable(
        spot_ids=ids,
        xy=np.column_stack([cells["pxl_col_in_fullres"], cells["pxl_row_in_fullres"]]),
        array_xy=np.column_stack([cells["array_col"], cells["array_row"]]),
        under_tissue=cells["in_tissue"] == 1,
    )
