"""Patches that lie near each other on a slide share their neighbours in the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse, spatial

from stretrieve.errors import ShapeError, explain
from stretrieve.query.pool import Positions

REACH: Final = 3.0
"""Patches farther away than this many widths have no part."""
KEPT: Final = 4
"""Neighbours that a patch keeps, in units of ``top_k``. All of them on a grid as coarse as the smoothing
is wide; where patches lie closer, the heaviest of many, so that less is smoothed than asked for."""
_ROWS: Final = 64

Matrix = npt.NDArray[np.float64]


class Surroundings:
    """How much the patches of a slide count for each other: a Gaussian of their distance.

    Parameters
    ----------
    xy_um
        ``(n_patches, 2)`` centres in µm.
    width_um
        Standard deviation of the Gaussian, above 0.

    Raises
    ------
    ShapeError
        When the centres are no points in the plane.
    """

    def __init__(self, xy_um: npt.ArrayLike, width_um: float) -> None:
        self._xy = np.asarray(xy_um, dtype=np.float64)
        if self._xy.ndim != 2 or self._xy.shape[1] != 2 or not np.isfinite(self._xy).all():
            raise ShapeError(
                explain("patch centres", got=self._xy.shape, expected="(n, 2) finite numbers")
            )
        self._width = width_um
        self._tree = spatial.cKDTree(self._xy)

    def __len__(self) -> int:
        return len(self._xy)

    def of(self, rows: slice) -> tuple[Positions, sparse.csr_matrix]:
        """Return the patches around some, and how much each counts.

        Parameters
        ----------
        rows
            Patches asked for.

        Returns
        -------
        near
            ``(n_near,)`` ascending patches that have a part, those asked for among them.
        weights
            ``(n_rows, n_near)``, rows summing to 1.
        """
        found = self._tree.query_ball_point(
            self._xy[rows], REACH * self._width, return_sorted=True
        )  # fmt: skip
        counts = np.array([len(part) for part in found], dtype=np.int64)
        near = np.concatenate([np.asarray(p, np.int64) for p in found] or [np.empty(0, np.int64)])
        asked = np.repeat(np.arange(len(self))[rows], counts)
        distance = ((self._xy[near] - self._xy[asked]) ** 2).sum(axis=1)
        share = np.exp(-distance / (2 * self._width**2))
        pointers = np.concatenate([[0], np.cumsum(counts)])
        if len(share):
            share /= np.repeat(np.add.reduceat(share, pointers[:-1]), counts)
        used, columns = np.unique(near, return_inverse=True)
        shape = (len(counts), len(used))
        return used, sparse.csr_matrix((share, columns.ravel(), pointers), shape=shape)


class Joined(NamedTuple):
    """Reference spots of patches and of those around them, in the order of spots.

    Parameters
    ----------
    indices, weights
        ``(n_patches, ·)``, −1 and weight 0 where there are fewer.
    """

    indices: Positions
    weights: Matrix


def join(weights: sparse.csr_matrix, indices: Positions, shares: Matrix) -> Iterator[Joined]:
    """Yield the reference spots of patches and of those around them, some patches at a time.

    Parameters
    ----------
    weights
        ``(n_patches, n_near)`` of :meth:`Surroundings.of`.
    indices, shares
        ``(n_near, k)`` reference spots of each, −1 for none, and their weights; those of a patch
        without weights have no part.
    """
    rows, columns = np.nonzero((indices >= 0) & (shares > 0))
    spots = indices[rows, columns]
    pointers = np.searchsorted(rows, np.arange(len(indices) + 1))
    width = int(spots.max(initial=0)) + 1
    own = sparse.csr_matrix((shares[rows, columns], spots, pointers), shape=(len(indices), width))
    for start in range(0, weights.shape[0], _ROWS):
        joined = sparse.csr_matrix(weights[start : start + _ROWS] @ own)
        joined.sort_indices()
        counts = np.diff(joined.indptr)
        inside = np.arange(max(int(counts.max(initial=0)), 1)) < counts[:, None]
        found, weight = np.full(inside.shape, -1, dtype=np.int64), np.zeros(inside.shape)
        found[inside], weight[inside] = joined.indices, joined.data
        yield Joined(found, weight)


def heaviest(joined: Joined, scores: Matrix, *, keep: int) -> tuple[Positions, Matrix, Matrix]:
    """Return the spots of most weight, among equals those most like the patch; most alike first.

    Parameters
    ----------
    joined
        Spots and weights of some patches.
    scores
        ``(n_patches, ·)`` their similarity to the patch, −inf for none.
    keep
        Most spots of a patch.

    Returns
    -------
    indices, weights, scores
        ``(n_patches, keep)``, −1, 0 and −inf where there are fewer. Weights of a patch sum to 1, or to 0
        where nobody around has neighbours.
    """
    missing = ((0, 0), (0, max(0, keep - joined.indices.shape[1])))
    indices = np.pad(joined.indices, missing, constant_values=-1)
    weights = np.pad(joined.weights, missing)
    alike = np.pad(scores, missing, constant_values=-np.inf)
    kept = np.lexsort((indices, -alike, -weights), axis=1)[:, :keep]
    alike, places = np.take_along_axis(alike, kept, 1), np.take_along_axis(indices, kept, 1)
    kept = np.take_along_axis(kept, np.lexsort((places, -alike), axis=1), 1)
    weights = np.take_along_axis(weights, kept, 1)
    total = weights.sum(axis=1, keepdims=True)
    return (
        np.take_along_axis(indices, kept, 1),
        np.divide(weights, total, out=np.zeros_like(weights), where=total > 0),
        np.sort(alike, axis=1)[:, ::-1],
    )
