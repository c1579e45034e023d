"""Answers as files: CSV or parquet for the table, h5ad for spots with their expression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.errors import ConfigError, OutputExistsError, explain

if TYPE_CHECKING:
    import anndata as ad

TABLES = (".csv", ".parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_answer_path(path: Path, *, overwrite: bool, spots: bool = True) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Parameters
    ----------
    path
        The file.
    overwrite
        Whether it may replace another.
    spots
        Whether the answer is spots, which can also be written as ``.h5ad``.

    Raises
    ------
    ConfigError
        When the ending is none that is written.
    OutputExistsError
        When it exists and is not to be replaced.
    """
    known = (*TABLES, ".h5ad") if spots else TABLES
    if path.suffix not in known:
        raise ConfigError(
            explain("--out", got=path.name, expected=f"a name ending in {' or '.join(known)}")
        )
    if path.exists() and not overwrite:
        raise OutputExistsError(
            explain("output", got=f"{path} exists", remedy="choose another name or --overwrite")
        )


def write_answer(
    path: Path, table: pd.DataFrame, *, anndata: Callable[[], ad.AnnData] | None = None
) -> None:
    """Write an answer in the format of its name's ending, completely or not at all.

    Parameters
    ----------
    path
        ``.csv``, ``.parquet`` or ``.h5ad``.
    table
        The answer.
    anndata
        Makes the spots with their expression, for ``.h5ad``.
    """
    with atomic_path(path) as temporary:
        if path.suffix == ".h5ad" and anndata is not None:
            anndata().write_h5ad(temporary, compression="gzip")
        elif path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            _csv(table).to_csv(temporary, index=False)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain JSON data; images are left out, numbers that are not finite are null."""
    plain = table.drop(columns=keys.THUMBNAIL, errors="ignore").astype(object)
    plain = plain.where(~_not_finite(plain), None)
    return [
        {str(key): _plain(value) for key, value in row.items()}
        for row in plain.to_dict(orient="records")
    ]


def _not_finite(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda value: isinstance(value, float) and not np.isfinite(value))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _csv(table: pd.DataFrame) -> pd.DataFrame:
    """Leave images out, and keep spreadsheets from reading names as formulas."""
    table = table.drop(columns=keys.THUMBNAIL, errors="ignore")
    return table.map(
        lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
    )
