"""Spatial Transcriptomics, 1k and 2k arrays: a count table and a spot table.

Policy: spots are joined by ``"<x>x<y>"``, never by order. Rows that the spot table marks as not
selected are off the tissue and left out. Of the rest, published tables have a few spots on one side
only; up to a tenth of each side is dropped and counted, more is an error. A matrix that covers the
whole array (ST pipeline before the choice of spots) may hold any number of spots off the tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from stretrieve.errors import SectionError, explain
from stretrieve.spots.delimited import read_count_table
from stretrieve.spots.lattice import is_interleaved, st_lattice
from stretrieve.spots.positions import read_positions
from stretrieve.spots.raw import JoinPolicy, RawSection
from stretrieve.spots.row import SheetRow

_SUFFIXES: Final = (".tsv", ".tsv.gz", ".csv", ".csv.gz", ".txt", ".txt.gz")
_SPOTS_1K: Final = 1007
_WHOLE: Final = 0.9


class LegacyStReader:
    """Reader of ``counts`` + ``spots`` tables."""

    isolated = False

    def detect(self, row: SheetRow) -> bool:
        """Say whether the counts are a delimited table."""
        return row.counts.is_file() and row.counts.name.lower().endswith(_SUFFIXES)

    def read(self, row: SheetRow) -> RawSection:
        """Read the count table and the spot table.

        Raises
        ------
        SectionError
            When the sheet names no spot file or either table is damaged.
        """
        if row.spots is None:
            raise SectionError(
                explain(
                    f"section {row.section!r}",
                    got="no spot file",
                    expected="pixel coordinates of the spots",
                    remedy="name the file in the sheet's spots column",
                )
            )
        matrix = read_count_table(row.counts)
        raw = covers_array(matrix.spot_ids)
        spots = read_positions(Path(row.spots))
        return RawSection(
            matrix=matrix,
            spots=spots,
            join=JoinPolicy.TOLERANT_RAW if raw else JoinPolicy.TOLERANT,
            lattice=st_lattice(spots.array_xy),
        )


def covers_array(names: Sequence[str]) -> bool:
    """Say whether spot names cover a whole array (1,007 spots, or twice that interleaved)."""
    at = np.array([[float(part) for part in name.split("x")] for name in names]).reshape(-1, 2)
    size = 2 * _SPOTS_1K if is_interleaved(at) else _SPOTS_1K
    return len(names) >= _WHOLE * size


READER: Final = LegacyStReader()
