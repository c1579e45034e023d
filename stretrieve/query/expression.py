"""Reference expression as a query needs it: log1p CP10k, optionally freed of section offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.query.settings import Centring
from stretrieve.reference import Reference
from stretrieve.spots import log_cp10k

_SPOTS_PER_BLOCK = 4096


@dataclass(frozen=True)
class SectionProfiles:
    """Mean log1p CP10k profile of each reference section.

    Parameters
    ----------
    means
        ``(n_sections, n_genes)``; 0 where the section did not measure the gene.
    overall
        ``(n_genes,)`` mean of the section means over the sections that measured the gene.
    """

    means: npt.NDArray[np.float64]
    overall: npt.NDArray[np.float64]


def section_profiles(reference: Reference) -> SectionProfiles:
    """Return the mean profile of each section of a reference."""
    index = reference.section_index
    measured = reference.measured
    means = np.zeros(measured.shape)
    for section in range(len(measured)):
        members = np.flatnonzero(index == section)
        for start in range(0, len(members), _SPOTS_PER_BLOCK):
            part = members[start : start + _SPOTS_PER_BLOCK]
            means[section] += np.asarray(_log(reference, part).sum(axis=0)).ravel()
        means[section] /= max(len(members), 1)
    means = np.where(measured, means, 0.0)
    overall = means.sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
    return SectionProfiles(means, overall)


def _log(
    reference: Reference, positions: npt.NDArray[np.int64], genes: list[str] | None = None
) -> npt.NDArray[np.float32]:
    library = reference.spots[keys.LIBRARY_SIZE].to_numpy()[positions]
    counts = reference.expression(positions, genes=genes)
    dense: npt.NDArray[np.float32] = log_cp10k(counts, library_size=library).toarray()
    return dense


class ExpressionSource:
    """Reads values of reference spots for imputation.

    Parameters
    ----------
    reference
        The reference.
    centring
        Whether section offsets are removed. With :attr:`Centring.SECTION` a value is
        ``x - mean of its section + mean over sections``, still in log1p CP10k.
    """

    def __init__(self, reference: Reference, centring: Centring) -> None:
        self._reference = reference
        self._profiles = None if centring is Centring.NONE else section_profiles(reference)

    def values(
        self, positions: npt.NDArray[np.int64], genes: list[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return values and the mask of what was measured, both ``(n_positions, n_genes)``."""
        reference = self._reference
        columns = reference.genes.index.get_indexer(genes)
        sections = reference.section_index[positions]
        measured = reference.measured[:, columns][sections]
        values = _log(reference, positions, genes).astype(np.float64)
        if self._profiles is not None:
            offset = self._profiles.means[:, columns] - self._profiles.overall[columns]
            values -= offset[sections]
        return values, measured
