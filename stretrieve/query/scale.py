"""The scale of predictions, measured on patients that had no part in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.query.pool import Mask, Pool, Positions, spot_positions

MAX_FOLDS: Final = 10
MAX_SPOTS: Final = 20_000
"""Spots that regression and scales are learnt from; a fixed sample of larger pools."""

_SEED = 0
_PIECES = 4
_FLAT = 1e-9

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """Spots that are predicted from the others.

    Parameters
    ----------
    name
        The patient, or what takes a patient's place.
    members
        Spots of the fold.
    others
        ``(n_spots,)`` spots that may be used to predict them.
    """

    name: str
    members: Positions
    others: Mask


def make_folds(pool: Pool, allowed: Mask) -> list[Fold]:
    """Return one fold a patient; sections, or blocks of spots, where there is one patient.

    More than :data:`MAX_FOLDS` patients are dealt out to that many folds, in the order of their names.
    """
    spots = np.flatnonzero(allowed)
    for column in (keys.PATIENT, keys.SECTION):
        names = pool.spots[column].to_numpy(dtype=object)[spots].astype(np.str_)
        if len(np.unique(names)) > 1:
            break
    else:
        names = (np.arange(len(spots)) * 5 // max(len(spots), 1)).astype(np.str_)
    known, codes = np.unique(names, return_inverse=True)
    codes = codes.ravel() % MAX_FOLDS
    folds = []
    for code in np.unique(codes):
        others = np.zeros(len(allowed), dtype=np.bool_)
        others[spots[codes != code]] = True
        if others.any():
            name = ", ".join(known[code::MAX_FOLDS])
            folds.append(Fold(name, spots[codes == code], others))
    return folds


def sample_spots(
    pool: Pool, allowed: Mask, limit: int = MAX_SPOTS, *, in_pieces: bool = True
) -> Mask:
    """Return a fixed sample ``(n_spots,)`` of the allowed spots, as many of every section.

    Parameters
    ----------
    pool
        The spots.
    allowed
        ``(n_spots,)`` spots that may be used.
    limit
        Spots in the sample.
    in_pieces
        Whether a section gives a few pieces of tissue, where positions are known, so that spots keep
        the neighbours that smoothing goes by; single spots otherwise.
    """
    if int(allowed.sum()) <= limit:
        return allowed
    sections = np.unique(pool.section_index[allowed])
    quota = max(limit // len(sections), 2)
    chosen = np.zeros(len(allowed), dtype=np.bool_)
    for section in sections:
        members = np.flatnonzero(allowed & (pool.section_index == section))
        order = np.random.default_rng(_SEED).permutation(len(members))
        xy = spot_positions(pool, members) if in_pieces else None
        if xy is not None:
            middles = xy[order[:_PIECES]]
            apart = np.min([((xy - middle) ** 2).sum(axis=1) for middle in middles], axis=0)
            order = np.argsort(apart, kind="stable")
        chosen[members[np.sort(order[:quota])]] = True
    return chosen


class Moments:
    """Mean and standard deviation of genes within sections, summed up block by block.

    Parameters
    ----------
    n_genes
        Number of genes.
    """

    def __init__(self, n_genes: int) -> None:
        self._mean, self._variance = np.zeros(n_genes), np.zeros(n_genes)
        self._count = np.zeros(n_genes)

    def add(self, values: Matrix, columns: Positions) -> None:
        """Take in values ``(n_spots, n_columns)`` of one section, NaN where unknown."""
        known = np.isfinite(values)
        n = known.sum(axis=0)
        some = n > 0
        safe = np.where(known, values, 0.0)
        mean = np.divide(safe.sum(axis=0), n, out=np.zeros(len(n)), where=some)
        squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
        self._mean[columns] += mean
        self._variance[columns] += np.divide(squares, n, out=np.zeros(len(n)), where=some)
        self._count[columns] += some

    @property
    def is_known(self) -> Mask:
        """``(n_genes,)`` genes of which a value was taken in."""
        return np.asarray(self._count > 0)

    @property
    def mean(self) -> Matrix:
        """``(n_genes,)`` mean over sections of their means."""
        return np.asarray(self._mean / np.maximum(self._count, 1))

    @property
    def deviation(self) -> Matrix:
        """``(n_genes,)`` root of the mean over sections of their variances."""
        return np.asarray(np.sqrt(self._variance / np.maximum(self._count, 1)))


@dataclass(frozen=True)
class Affine:
    """``offset + slope · x`` for each gene.

    Parameters
    ----------
    offset, slope
        ``(n_genes,)``.
    """

    offset: Matrix
    slope: Matrix

    @classmethod
    def between(cls, source: Moments, target: Moments) -> Affine:
        """Return what gives values of one scale the mean and deviation of another.

        A gene that does not vary in ``source`` becomes constant.
        """
        varies = source.deviation > _FLAT
        slope = np.divide(
            target.deviation, source.deviation, out=np.zeros(len(varies)), where=varies
        )
        return cls(target.mean - slope * source.mean, slope)

    def apply(self, values: Matrix, columns: Positions) -> Matrix:
        """Return values ``(n, n_columns)`` on the other scale."""
        return np.asarray(self.offset[columns] + self.slope[columns] * values)


def by_section(pool: Pool, members: Positions) -> Iterator[Positions]:
    """Yield the spots of each section among some."""
    for section in np.unique(pool.section_index[members]):
        yield members[pool.section_index[members] == section]


def gene_blocks(pool: Pool, size: int) -> Iterator[tuple[Positions, Sequence[str]]]:
    """Yield columns and names of all genes, block by block."""
    names = [str(gene) for gene in pool.genes.index]
    for start in range(0, len(names), size):
        part = names[start : start + size]
        yield np.arange(start, start + len(part)), part
