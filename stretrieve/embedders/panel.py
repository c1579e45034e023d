"""The genes that an embedder reads, and how raw counts become its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.errors import GenePanelError, ShapeError, explain
from stretrieve.spots.normalise import log_cp10k
from stretrieve.spots.section import Section
from stretrieve.spots.variable_genes import highly_variable_genes

MIN_COVERAGE: Final = 0.5
PRIOR_SPOTS: Final = 10.0


@dataclass(frozen=True)
class GenePanel:
    """Genes chosen on the training sections, with the statistics that scale them.

    Expression enters as log1p CP10k, centred on its own section: offsets between sections are
    mostly depth and batch. The centre is a weighted mean of the section's mean and the training
    mean, the latter counting as :data:`PRIOR_SPOTS` spots, so that a handful of spots is not
    centred on itself.

    Parameters
    ----------
    names
        ``(n_genes,)`` gene keys.
    mean
        ``(n_genes,)`` mean over training sections of their mean log1p CP10k.
    scale
        ``(n_genes,)`` standard deviation within training sections.
    """

    names: tuple[str, ...]
    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, sections: Sequence[Section], *, n_genes: int) -> GenePanel:
        """Choose the most variable genes that every section measures, and measure them.

        Raises
        ------
        GenePanelError
            When the sections share no gene.
        """
        names = tuple(highly_variable_genes(sections, n_genes))
        means, squares, total = [], np.zeros(len(names)), 0
        for section in sections:
            values = _dense(section.counts, _positions(names, section.gene_names))
            means.append(values.mean(axis=0, dtype=np.float64))
            squares += ((values - means[-1]) ** 2).sum(axis=0)
            total += len(values)
        scale = np.sqrt(squares / max(total, 1))
        scale = np.where(scale > 1e-6, scale, 1.0)
        return cls(names, np.mean(means, axis=0).astype(np.float32), scale.astype(np.float32))

    def __len__(self) -> int:
        return len(self.names)

    def log_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        """Return log1p CP10k ``(n_spots, len(panel))``; NaN in the columns of unmeasured genes.

        Parameters
        ----------
        counts
            ``(n_spots, n_genes)`` raw counts; all their columns make up the library size.
        genes
            ``(n_genes,)`` gene keys of the columns, in any order.

        Raises
        ------
        ShapeError
            When names and columns differ in number.
        GenePanelError
            When less than half of the panel is among ``genes``.
        """
        if counts.shape[1] != len(genes):
            got = f"{counts.shape[1]} columns and {len(genes)} names"
            raise ShapeError(explain("genes of the counts", got=got, expected="as many of both"))
        positions = _positions(self.names, genes)
        covered = float((positions >= 0).mean()) if len(positions) else 0.0
        if covered < MIN_COVERAGE:
            raise GenePanelError(
                explain(
                    "genes of the counts",
                    got=f"{covered:.0%} of the embedder's {len(self.names)} genes",
                    expected=f"at least {MIN_COVERAGE:.0%}",
                    remedy="use the same kind of gene names (Ensembl ids or symbols) and species",
                )
            )
        return _dense(counts, positions)

    def centred(self, counts: sparse.csr_matrix, genes: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return expression ``(n_spots, len(panel))`` of one section, centred and scaled.

        Genes that the section does not measure stay at zero, that is at the mean. Parameters and
        errors as in :meth:`log_expression`.
        """
        values = self.log_expression(counts, genes)
        n_spots = len(values)
        if n_spots == 0:
            return values
        own = values.mean(axis=0)
        centre = (n_spots * own + PRIOR_SPOTS * self.mean) / (n_spots + PRIOR_SPOTS)
        return np.asarray(np.nan_to_num((values - centre) / self.scale), dtype=np.float32)

    def scaled(self, counts: sparse.csr_matrix, genes: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return expression ``(n_spots, len(panel))`` centred and scaled by training statistics.

        Each row depends on its own spot only. Unmeasured genes stay at zero. Parameters and errors
        as in :meth:`log_expression`.
        """
        values = (self.log_expression(counts, genes) - self.mean) / self.scale
        return np.asarray(np.nan_to_num(values), dtype=np.float32)

    def to_arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the statistics as named arrays; names are kept apart, in the configuration."""
        return {"panel.mean": self.mean, "panel.scale": self.scale}

    @classmethod
    def from_arrays(
        cls, names: Sequence[str], arrays: Mapping[str, npt.NDArray[np.float32]]
    ) -> GenePanel:
        """Rebuild a panel from its names and :meth:`to_arrays`."""
        return cls(tuple(names), arrays["panel.mean"], arrays["panel.scale"])


def _positions(names: Sequence[str], genes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the column of each name among ``genes``; −1 where it is missing."""
    where = {gene: i for i, gene in enumerate(genes)}
    return np.array([where.get(name, -1) for name in names], dtype=np.int64)


def _dense(counts: sparse.csr_matrix, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    matrix = sparse.csr_matrix(counts)
    library = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    found = positions >= 0
    values = np.full((matrix.shape[0], len(positions)), np.nan, dtype=np.float32)
    values[:, found] = log_cp10k(matrix[:, positions[found]], library_size=library).toarray()
    return values
