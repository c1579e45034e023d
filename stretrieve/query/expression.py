"""Measured expression as a query needs it: log1p CP10k, optionally freed of section offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve.query.impute import Imputed, WeightMatrix, impute
from stretrieve.query.pool import Mask, Pool, Positions, gene_columns, stored_rows
from stretrieve.query.settings import Centring

_SPOTS_PER_BLOCK = 4096

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SectionProfiles:
    """Mean log1p CP10k profile of each section.

    Parameters
    ----------
    means
        ``(n_sections, n_genes)``; 0 where the section did not measure the gene.
    measured
        ``(n_sections, n_genes)``.
    """

    means: Matrix
    measured: Mask

    def overall(self, sections: Positions) -> Matrix:
        """Return the mean ``(n_genes,)`` of some sections' means, over those that measured a gene."""
        total = self.means[sections].sum(axis=0)
        return np.asarray(total / np.maximum(self.measured[sections].sum(axis=0), 1))


def section_profiles(pool: Pool) -> SectionProfiles:
    """Return the mean profile of each section of a pool."""
    index, measured = pool.section_index, pool.measured
    means = np.zeros(measured.shape)
    for section in range(len(measured)):
        members = np.flatnonzero(index == section)
        for start in range(0, len(members), _SPOTS_PER_BLOCK):
            part = pool.log_expression(members[start : start + _SPOTS_PER_BLOCK])
            means[section] += np.asarray(part.sum(axis=0, dtype=np.float64)).ravel()
        means[section] /= max(len(members), 1)
    return SectionProfiles(np.where(measured, means, 0.0), measured)


class ExpressionSource:
    """Reads and averages values of measured spots.

    Parameters
    ----------
    pool
        The spots.
    centring
        Whether section offsets are removed. With :attr:`Centring.SECTION` a value is
        ``x - mean of its section + mean over sections``, still in log1p CP10k.
    allowed
        ``(n_spots,)`` spots in use; the mean over sections is taken over theirs, so that a section
        which is left out has no influence.
    profiles
        :func:`section_profiles` of the pool, where they are known already.
    """

    def __init__(
        self,
        pool: Pool,
        centring: Centring,
        *,
        allowed: Mask,
        profiles: SectionProfiles | None = None,
    ) -> None:
        self._pool = pool
        self._offsets: Matrix | None = None
        if centring is not Centring.NONE:
            profiles = profiles or section_profiles(pool)
            used = np.unique(pool.section_index[allowed])
            self._offsets = profiles.means - profiles.overall(used)

    def values(self, positions: Positions, genes: Sequence[str]) -> tuple[Matrix, Mask]:
        """Return values and the mask of what was measured, both ``(n_positions, n_genes)``."""
        columns = gene_columns(self._pool, genes)
        sections = self._pool.section_index[positions]
        values = self._pool.log_expression(positions, genes).toarray().astype(np.float64)
        if self._offsets is not None:
            values -= self._offsets[:, columns][sections]
        return values, self._pool.measured[:, columns][sections]

    def average(self, matrix: WeightMatrix, genes: Sequence[str]) -> Imputed:
        """Average the values of the spots in use."""
        columns = gene_columns(self._pool, genes)
        return impute(
            matrix.matrix,
            stored_rows(self._pool, matrix.used, genes),
            measured=self._pool.measured[:, columns],
            offsets=None if self._offsets is None else self._offsets[:, columns],
            groups=self._pool.section_index[matrix.used],
        )
