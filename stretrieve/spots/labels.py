"""Labels of regions or cell types that a pathologist gave to spots."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve.errors import InputNotFoundError, SectionError, explain
from stretrieve.spots.section import Section

NO_LABEL: Final = ""

_UNSAID: Final = frozenset({"", "na", "nan", "none", "undetermined", "unknown", "unlabeled"})
_ID_COLUMNS: Final = ("spot_id", "barcode")


def read_labels(path: Path, section: Section) -> npt.NDArray[np.str_]:
    """Return the label ``(n_spots,)`` of each spot of a section; empty where there is none.

    Parameters
    ----------
    path
        Comma- or tab-separated table with a column ``label`` and either ``spot_id`` (or ``barcode``)
        or the array position ``x``, ``y`` (adjusted decimals are rounded). Labels such as
        ``undetermined`` count as none.
    section
        The section that the table belongs to.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    SectionError
        When the table cannot be read or none of its rows belongs to a spot.
    """
    table = _load(path, section.meta.section)
    ids = next((name for name in _ID_COLUMNS if name in table), None)
    if ids is not None:
        keys = table[ids].astype(str)
        spots = [str(spot) for spot in section.spot_ids]
    else:
        keys = _places(table[["x", "y"]].to_numpy(dtype=np.float64))
        spots = list(_places(section.array_xy))
    known = dict(zip(keys, table["label"].fillna("").astype(str), strict=True))
    if not any(spot in known for spot in spots):
        raise SectionError(
            explain(f"labels {path.name}", got="no spot of this section", remedy="check the file")
        )
    found = [known.get(spot, NO_LABEL).strip() for spot in spots]
    return np.array([NO_LABEL if f.lower() in _UNSAID else f for f in found], dtype=np.str_)


def _load(path: Path, section: str) -> pd.DataFrame:
    what = f"labels of section {section!r}"
    if not path.is_file():
        raise InputNotFoundError(explain(what, got=f"no file {path}"))
    try:
        table = pd.read_csv(path, sep=None, engine="python")
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise SectionError(explain(what, got=str(error), expected="a table")) from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    placed = any(name in table for name in _ID_COLUMNS) or {"x", "y"} <= set(table.columns)
    if "label" not in table or not placed:
        raise SectionError(
            explain(
                what,
                got=f"columns {', '.join(table.columns)}",
                expected="label and spot_id, or label, x and y",
            )
        )
    if "x" in table and "y" in table:
        table = table.dropna(subset=["x", "y"])
    return table


def _places(array_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    grid = np.rint(array_xy).astype(np.int64)
    return np.array([f"{x}x{y}" for x, y in grid], dtype=np.str_)
