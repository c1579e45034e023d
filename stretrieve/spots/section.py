"""The one validated form of a measured section."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve.errors import SectionError, explain
from stretrieve.units import PixelSize


@dataclass(frozen=True, slots=True)
class SectionMeta:
    """What is known about a section beside its measurements.

    Parameters
    ----------
    section
        Name, unique within a reference.
    patient
        Donor. Sections whose patient is unknown share the dataset's name as patient.
    organ, species, platform, disease
        Free text, lower case; empty when unknown.
    """

    section: str
    patient: str
    organ: str = ""
    species: str = ""
    platform: str = ""
    disease: str = ""


@dataclass(frozen=True)
class Section:
    """One measured tissue section.

    Parameters
    ----------
    meta
        Names and context.
    counts
        ``(n_spots, n_genes)`` raw counts, CSR, int32, no stored zeros.
    genes
        ``(n_genes, …)`` table: index = unique gene key (Ensembl id without version where known, else
        the symbol), columns ``gene_id`` and ``gene_symbol`` (empty where unknown).
    spot_ids
        ``(n_spots,)`` unique barcodes or array coordinates.
    xy
        ``(n_spots, 2)`` spot centres in level-0 px, (x, y).
    array_xy
        ``(n_spots, 2)`` position on the array grid, (column, row).
    pixel_size
        Size of a level-0 pixel and its source.
    image
        The H&E image; ``None`` for expression-only sections.
    repairs
        Human-readable account of everything that was repaired while reading, with counts.
    """

    meta: SectionMeta
    counts: sparse.csr_matrix
    genes: pd.DataFrame
    spot_ids: npt.NDArray[np.str_]
    xy: npt.NDArray[np.float64]
    array_xy: npt.NDArray[np.float64]
    pixel_size: PixelSize
    image: Path | None = None
    repairs: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n_spots, n_genes = self.counts.shape
        got = {
            "spot_ids": len(self.spot_ids),
            "xy": len(self.xy),
            "array_xy": len(self.array_xy),
        }
        if any(n != n_spots for n in got.values()) or len(self.genes) != n_genes:
            raise SectionError(
                explain(
                    f"section {self.meta.section!r}",
                    got=f"{got}, {len(self.genes)} genes",
                    expected=f"{n_spots} spots and {n_genes} genes as in the counts",
                )
            )

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.counts.shape[1])

    @property
    def gene_names(self) -> list[str]:
        """The unique gene keys, in column order."""
        return [str(name) for name in self.genes.index]

    @property
    def xy_um(self) -> npt.NDArray[np.float64]:
        """``(n_spots, 2)`` spot centres in microns."""
        return self.pixel_size.to_um(self.xy)

    @property
    def library_size(self) -> npt.NDArray[np.int64]:
        """``(n_spots,)`` total counts of each spot over all genes."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.int64).ravel()
