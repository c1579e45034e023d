"""What a reader hands over: the parts of a section as they were found, not yet trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.spots.lattice import Lattice
from stretrieve.units import PixelSize


class JoinPolicy(StrEnum):
    """How counts and positions are brought together."""

    STRICT = "strict"
    """Every barcode under tissue has counts and the reverse, or it is an error."""
    MATRIX_IS_RAW = "matrix_is_raw"
    """The matrix also holds barcodes off the tissue; every barcode under tissue has counts."""
    TOLERANT = "tolerant"
    """Up to a tenth of each side may be without a partner; each is dropped and counted."""
    TOLERANT_RAW = "tolerant_raw"
    """The matrix holds the whole array; up to a tenth of the spots may be without counts."""


@dataclass(frozen=True)
class RawMatrix:
    """A count matrix as read.

    Parameters
    ----------
    values
        ``(n_spots, n_genes)`` CSR of any numeric type; not checked.
    spot_ids
        ``n_spots`` names.
    gene_ids, gene_symbols
        ``n_genes`` names each; empty where the file does not have them.
    """

    values: sparse.csr_matrix
    spot_ids: list[str]
    gene_ids: list[str]
    gene_symbols: list[str]

    def __post_init__(self) -> None:
        shape = (len(self.spot_ids), len(self.gene_ids))
        if self.values.shape != shape or len(self.gene_symbols) != shape[1]:
            raise SectionError(
                explain(
                    "count matrix",
                    got=f"{self.values.shape[0]} x {self.values.shape[1]} values",
                    expected=f"{shape[0]} spots x {shape[1]} genes as named",
                )
            )


@dataclass(frozen=True)
class SpotTable:
    """Where spots lie, as read.

    Parameters
    ----------
    spot_ids
        ``n_spots`` names.
    xy
        ``(n_spots, 2)`` centres in level-0 px, (x, y).
    array_xy
        ``(n_spots, 2)`` array coordinates, (column, row).
    under_tissue
        ``(n_spots,)`` which spots count.
    aliases
        Other names under which the same spots may occur in a matrix, ``n_spots`` each.
    """

    spot_ids: list[str]
    xy: npt.NDArray[np.float64]
    array_xy: npt.NDArray[np.float64]
    under_tissue: npt.NDArray[np.bool_]
    aliases: tuple[list[str], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.spot_ids)
        if any(len(part) != n for part in (self.xy, self.array_xy, self.under_tissue)):
            raise SectionError(explain("spot positions", got="columns of different lengths"))

    def __len__(self) -> int:
        return len(self.spot_ids)


@dataclass(frozen=True)
class RawSection:
    """All parts of a section as a reader found them.

    Parameters
    ----------
    matrix
        The counts.
    spots
        The positions.
    join
        How the two are brought together.
    lattice
        Layout of the array, when the size of a pixel can be derived from it.
    pixel_size
        Size of a level-0 pixel when the files state it.
    image
        An image that the reader found; the sheet's own image goes first.
    repairs
        What the reader itself had to mend.
    known
        Fields of :class:`~stretrieve.spots.section.SectionMeta` that the files state; they fill what
        the sheet leaves open.
    """

    matrix: RawMatrix
    spots: SpotTable
    join: JoinPolicy = JoinPolicy.STRICT
    lattice: Lattice | None = None
    pixel_size: PixelSize | None = None
    image: Path | None = None
    repairs: tuple[str, ...] = field(default=())
    known: Mapping[str, str] = field(default_factory=dict)
