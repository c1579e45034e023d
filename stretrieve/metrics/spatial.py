"""Patterns in space: structural similarity, Moran's I, gene–gene correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from stretrieve.errors import ShapeError, explain
from stretrieve.metrics._arrays import Array, column_pearson, dense, is_constant, paired

SSIM_WINDOW = 7
SSIM_MIN_OCCUPIED = 0.6
SSIM_MIN_NONZERO = 0.1
_C1, _C2 = 0.01**2, 0.03**2
MORAN_NEIGHBOURS = 6
_TIE = 1e-9


def array_raster(array_xy: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return (row, column) raster positions ``(n_spots, 2)`` of spots, from 0 and without gaps.

    On interleaved lattices (Visium: columns advance by two within a row) two columns become one.

    Parameters
    ----------
    array_xy
        ``(n_spots, 2)`` (column, row) on the array; adjusted decimals are rounded.

    Raises
    ------
    ShapeError
        When it is not ``(n_spots, 2)`` or two spots share a place.
    """
    grid = np.rint(dense(array_xy, "array coordinates")).astype(np.int64)
    if grid.ndim != 2 or grid.shape[1] != 2:
        raise ShapeError(explain("array coordinates", got=grid.shape, expected="(n_spots, 2)"))
    columns, rows = grid.T
    parity = (columns + rows) % 2
    if len(grid) > 1 and (parity == parity[0]).all() and len(np.unique(columns)) > 1:
        columns = columns // 2
    raster = np.stack([rows, columns], axis=1)
    raster -= raster.min(axis=0, initial=np.iinfo(np.int64).max)
    if len(np.unique(raster, axis=0)) != len(raster):
        raise ShapeError(explain("array coordinates", got="two spots at one place"))
    return raster


def ssim_per_gene(predicted: npt.ArrayLike, truth: npt.ArrayLike, array_xy: npt.ArrayLike) -> Array:
    """Return the structural similarity ``(n_genes,)`` of predicted and true maps.

    Both maps lie on the array grid and are scaled by the range of the *truth* (the prediction is
    clipped to it); windows are 7 x 7, use occupied places only, and count where at least 60 % of
    their places are occupied (Wang et al. 2004, sample covariances, K₁ = 0.01, K₂ = 0.03).

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k.
    array_xy
        ``(n_spots, 2)`` (column, row) on the array.

    Returns
    -------
    Array
        −1…1, 1 is best. NaN for a constant truth, for a gene with NaN, for a gene that at most 10 %
        of the spots express, and where no window is full enough.
    """
    left, right = paired(predicted, truth)
    raster = array_raster(array_xy)
    if len(raster) != len(left):
        raise ShapeError(
            explain("array coordinates", got=len(raster), expected=f"{len(left)} spots")
        )
    shape = (int(raster[:, 0].max()) + 1, int(raster[:, 1].max()) + 1)
    mask = np.zeros(shape)
    mask[tuple(raster.T)] = 1.0
    count = np.rint(_window_sum(mask))
    centres = (mask > 0) & (count >= SSIM_MIN_OCCUPIED * SSIM_WINDOW**2)
    scores = np.full(left.shape[1], np.nan)
    if not centres.any():
        return scores
    nonzero = (right > 0).mean(axis=0)
    wanted = ~is_constant(right) & ~np.isnan(right).any(axis=0) & (nonzero > SSIM_MIN_NONZERO)
    for gene in np.flatnonzero(wanted):
        low, high = right[:, gene].min(), right[:, gene].max()
        maps = []
        for side in (left, right):
            scaled = np.zeros(shape)
            scaled[tuple(raster.T)] = (np.clip(side[:, gene], low, high) - low) / (high - low)
            maps.append(scaled)
        scores[gene] = _ssim_map(maps[0], maps[1], count, centres).mean()
    return scores


def _window_sum(image: Array) -> Array:
    mean = ndimage.uniform_filter(image, SSIM_WINDOW, mode="constant", cval=0.0)
    return np.asarray(mean * SSIM_WINDOW**2)


def _ssim_map(left: Array, right: Array, count: Array, centres: npt.NDArray[np.bool_]) -> Array:
    """Return SSIM at ``centres``; both maps are 0 on empty places, ``count`` is the occupancy."""
    n = count[centres]
    mean_l, mean_r = _window_sum(left)[centres] / n, _window_sum(right)[centres] / n
    correction = n / (n - 1)
    var_l = (_window_sum(left * left)[centres] / n - mean_l**2) * correction
    var_r = (_window_sum(right * right)[centres] / n - mean_r**2) * correction
    cov = (_window_sum(left * right)[centres] / n - mean_l * mean_r) * correction
    top = (2 * mean_l * mean_r + _C1) * (2 * cov + _C2)
    return np.asarray(top / ((mean_l**2 + mean_r**2 + _C1) * (var_l + var_r + _C2)))


def neighbour_weights(xy: npt.ArrayLike, *, k: int = MORAN_NEIGHBOURS) -> sparse.csr_matrix:
    """Return row-normalised weights ``(n_spots, n_spots)`` of the ``k`` nearest spots.

    Spots that are equally far as the ``k``-th share what is left for them, so that weights do not
    depend on the order of the spots: on a square grid and with ``k`` = 6, the four direct neighbours
    get 1/6 each and the four diagonal ones 1/12 each.

    Parameters
    ----------
    xy
        ``(n_spots, 2)`` centres in any unit.
    k
        Neighbours of each spot; the spot itself is not one.

    Raises
    ------
    ShapeError
        When there are not more than ``k`` spots.
    """
    points = dense(xy, "spot positions")
    n = len(points)
    if points.ndim != 2 or n <= k:
        raise ShapeError(explain("spot positions", got=points.shape, expected=f"over {k} spots"))
    tree = cKDTree(points)
    reach = np.asarray(tree.query(points, k=k + 1)[0])[:, -1]  # the spot itself is the nearest
    balls = tree.query_ball_point(points, reach * (1 + _TIE))
    rows = np.repeat(np.arange(n), [len(ball) for ball in balls])
    columns = np.concatenate(balls).astype(np.int64)
    rows, columns = rows[rows != columns], columns[rows != columns]
    distance = np.sqrt(((points[rows] - points[columns]) ** 2).sum(axis=1))
    nearer = distance < reach[rows] * (1 - _TIE)
    n_nearer = np.bincount(rows[nearer], minlength=n)
    n_tied = np.bincount(rows[~nearer], minlength=n)
    shared = (k - n_nearer) / np.maximum(n_tied, 1)
    weights = np.where(nearer, 1.0, shared[rows]) / k
    return sparse.csr_matrix((weights, (rows, columns)), shape=(n, n))


def morans_i(values: npt.ArrayLike, weights: sparse.csr_matrix) -> Array:
    """Return Moran's I ``(n_genes,)``: about −1/(n−1) without pattern, towards 1 for smooth ones.

    Parameters
    ----------
    values
        ``(n_spots, n_genes)``; a gene with NaN or without variation gives NaN.
    weights
        ``(n_spots, n_spots)`` spatial weights, for example of :func:`neighbour_weights`.
    """
    array = dense(values, "expression")
    if array.ndim != 2 or weights.shape != (len(array), len(array)):
        raise ShapeError(
            explain("expression", got=array.shape, expected=f"{weights.shape[0]} spots x genes")
        )
    unusable = is_constant(array) | np.isnan(array).any(axis=0)
    deviation = np.where(unusable, 0.0, array - np.nan_to_num(array).mean(axis=0))
    lagged = np.asarray(weights @ deviation)
    top = (deviation * lagged).sum(axis=0) * len(array)
    bottom = (deviation**2).sum(axis=0) * weights.sum()
    result = np.full(array.shape[1], np.nan)
    np.divide(top, bottom, out=result, where=~unusable)
    return result


def morans_i_agreement(predicted: npt.ArrayLike, truth: npt.ArrayLike, xy: npt.ArrayLike) -> float:
    """Return Pearson's r over genes between Moran's I of prediction and of truth.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k. Genes of constant truth are left out; a constant
        prediction has no pattern, I = 0.
    xy
        ``(n_spots, 2)`` spot centres.
    """
    left, right = paired(predicted, truth)
    weights = neighbour_weights(xy)
    guess, real = morans_i(left, weights), morans_i(right, weights)
    guess[is_constant(left)] = 0.0
    usable = ~np.isnan(real) & ~np.isnan(guess)
    return float(column_pearson(guess[usable, None], real[usable, None])[0])


def gene_gene_agreement(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Return Pearson's r between the upper triangles of both gene–gene correlation matrices.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k. Genes of constant or missing truth are left out; a
        constant prediction correlates 0 with every gene. NaN when fewer than three genes remain.
    """
    left, right = paired(predicted, truth)
    keep = ~is_constant(right) & ~np.isnan(right).any(axis=0)
    if keep.sum() < 3:
        return float("nan")
    upper = np.triu_indices(int(keep.sum()), k=1)
    flat = [_correlation_matrix(side[:, keep])[upper][:, None] for side in (left, right)]
    return float(column_pearson(flat[0], flat[1])[0])


def _correlation_matrix(values: Array) -> Array:
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    norm[is_constant(values)] = np.inf
    unit = centred / norm
    return np.asarray(unit.T @ unit)
