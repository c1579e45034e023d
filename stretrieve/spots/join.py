"""Counts and positions brought together by name, never by order."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import SectionError, explain
from stretrieve.spots.positions import check_unique
from stretrieve.spots.raw import JoinPolicy, RawMatrix, SpotTable

_TOLERANCE: Final = 0.1
_REMEDY: Final = "check that counts and spots are of the same section"


def join_spots(
    what: str, matrix: RawMatrix, spots: SpotTable, policy: JoinPolicy
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[str, ...]]:
    """Match the rows of a matrix with the spots under tissue.

    Returns
    -------
    matrix_rows : ndarray
        ``(n_joined,)`` rows of the matrix, in the matrix's own order.
    spot_rows : ndarray
        ``(n_joined,)`` rows of the table for them.
    repairs : tuple of str
        What was left out, with counts.

    Raises
    ------
    SectionError
        When names are duplicated, or more spots are without a partner than ``policy`` allows.
    """
    check_unique(f"counts of {what}", matrix.spot_ids)
    names = _best_names(matrix.spot_ids, spots)
    where = {name: at for at, name in enumerate(names)}
    found = np.array([where.get(name, -1) for name in matrix.spot_ids], dtype=np.int64)
    known = found >= 0
    on_tissue = known.copy()
    on_tissue[known] = spots.under_tissue[found[known]]
    matrix_rows = np.flatnonzero(on_tissue)
    spot_rows = found[matrix_rows]
    n_tissue = int(spots.under_tissue.sum())
    lost_spots = n_tissue - len(spot_rows)
    unknown = int((~known).sum())
    off_tissue = int((known & ~on_tissue).sum())
    _check_policy(
        what, policy, lost=lost_spots, unknown=unknown, off=off_tissue, joined=len(spot_rows)
    )
    account = (
        (lost_spots, "spots under tissue without counts left out"),
        (unknown, "spots of the counts without a position left out"),
        (off_tissue, "spots off the tissue or image left out"),
    )
    return matrix_rows, spot_rows, tuple(f"{n} {text}" for n, text in account if n)


def _best_names(wanted: list[str], spots: SpotTable) -> list[str]:
    targets = set(wanted)
    choices = [spots.spot_ids, *(names for names in spots.aliases if len(set(names)) == len(names))]
    return max(choices, key=lambda names: len(targets.intersection(names)))


def _check_policy(
    what: str, policy: JoinPolicy, *, lost: int, unknown: int, off: int, joined: int
) -> None:
    if policy is JoinPolicy.TOLERANT:
        limit = _TOLERANCE * (joined + max(lost, unknown))
        bad = joined == 0 or lost > limit or unknown > limit
    elif policy is JoinPolicy.TOLERANT_RAW:
        bad = joined == 0 or lost > _TOLERANCE * (joined + lost)
    elif policy is JoinPolicy.MATRIX_IS_RAW:
        bad = joined == 0 or lost > 0
    else:
        bad = joined == 0 or lost + unknown + off > 0
    if bad:
        raise SectionError(
            explain(
                f"counts and spots of {what} do not match",
                got=f"{joined} in both, {lost} under tissue without counts, {unknown} with counts but "
                f"no position, {off} with counts off the tissue",
                remedy=_REMEDY,
            )
        )
