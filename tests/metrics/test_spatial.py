"""Maps against scikit-image, naive loops and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from stretrieve.errors import ShapeError
from stretrieve.metrics import (
    gene_gene_agreement,
    morans_i,
    morans_i_agreement,
    neighbour_weights,
    ssim_per_gene,
)
from stretrieve.metrics.spatial import _ssim_map, _window_sum, array_raster

RNG = np.random.default_rng(6)
SIDE = 16
ROWS, COLS = np.mgrid[0:SIDE, 0:SIDE]
ARRAY_XY = np.stack([COLS.ravel(), ROWS.ravel()], axis=1)


def _smooth(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, 2)
    return (1 + np.sin(COLS / 3 + phase[0]) * np.cos(ROWS / 4 + phase[1])).ravel()[:, None] + 0.1


def test_ssim_windows_agree_with_scikit_image_inside_a_full_grid() -> None:
    truth = RNG.random((SIDE, SIDE))
    guess = np.clip(truth + 0.2 * RNG.normal(size=truth.shape), 0, 1)
    count = np.rint(_window_sum(np.ones_like(truth)))
    inside = np.zeros(truth.shape, dtype=bool)
    inside[3:-3, 3:-3] = True
    _, expected = structural_similarity(truth, guess, win_size=7, data_range=1.0, full=True)
    np.testing.assert_allclose(_ssim_map(guess, truth, count, inside), expected[inside], atol=1e-9)


def test_ssim_scales_by_the_range_of_the_truth() -> None:
    truth, guess = _smooth(0), _smooth(0) + 0.3 * RNG.normal(size=(SIDE**2, 1))
    score = ssim_per_gene(guess, truth, ARRAY_XY)
    np.testing.assert_allclose(ssim_per_gene(5 * guess, 5 * truth, ARRAY_XY), score)
    assert ssim_per_gene(0.5 * truth, truth, ARRAY_XY)[0] < 0.95
    assert score[0] < ssim_per_gene(truth, truth, ARRAY_XY)[0] == pytest.approx(1.0)


def test_ssim_of_noise_is_near_zero() -> None:
    truth, guess = RNG.random((SIDE**2, 8)), RNG.random((SIDE**2, 8))
    assert abs(ssim_per_gene(guess, truth, ARRAY_XY).mean()) < 0.1


def test_ssim_ignores_holes_rather_than_reading_them_as_zero() -> None:
    truth, guess = _smooth(1) + 3.0, _smooth(1) + 3.0 + 0.2 * RNG.normal(size=(SIDE**2, 1))
    keep = np.ones(SIDE**2, dtype=bool)
    keep[[5 * SIDE + 5, 9 * SIDE + 10]] = False
    whole = ssim_per_gene(guess, truth, ARRAY_XY)[0]
    holed = ssim_per_gene(guess[keep], truth[keep], ARRAY_XY[keep])[0]
    assert holed == pytest.approx(whole, abs=0.03)
    # a naive window of occupied places, at one centre
    row, col = 6, 6
    mask = np.zeros((SIDE, SIDE), bool)
    mask[tuple(ARRAY_XY[keep].T[::-1])] = True
    low, high = truth[keep].min(), truth[keep].max()
    maps = []
    for side in (guess, truth):
        grid = np.zeros((SIDE, SIDE))
        grid[mask] = ((np.clip(side[keep, 0], low, high)) - low) / (high - low)
        maps.append(grid)
    window = (slice(row - 3, row + 4), slice(col - 3, col + 4))
    a, b = maps[0][window][mask[window]], maps[1][window][mask[window]]
    cov = np.cov(a, b)
    expected = ((2 * a.mean() * b.mean() + 1e-4) * (2 * cov[0, 1] + 9e-4)) / (
        (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (cov[0, 0] + cov[1, 1] + 9e-4)
    )
    centre = np.zeros_like(mask)
    centre[row, col] = True
    count = np.rint(_window_sum(mask.astype(float)))
    assert _ssim_map(maps[0], maps[1], count, centre)[0] == pytest.approx(expected)


def test_ssim_leaves_out_what_cannot_be_scored() -> None:
    truth = np.concatenate([_smooth(2), np.ones((SIDE**2, 1)), np.zeros((SIDE**2, 1))], axis=1)
    truth[:20, 2] = 1.0  # 20 of 256 spots: under 10 %
    scores = ssim_per_gene(truth, truth, ARRAY_XY)
    assert scores[0] == pytest.approx(1.0)
    assert np.isnan(scores[1:]).all()
    assert np.isnan(ssim_per_gene(truth[::40], truth[::40], ARRAY_XY[::40])).all()


def test_interleaved_columns_are_closed_up() -> None:
    visium = np.array([(col, row) for row in range(4) for col in range(row % 2, 8, 2)])
    raster = array_raster(visium)
    assert raster[:, 1].max() == 3
    assert len(np.unique(raster, axis=0)) == len(visium)
    np.testing.assert_array_equal(array_raster(np.array([[2.001, 8.99], [3.0, 9.0]]))[:, 1], [0, 1])
    with pytest.raises(ShapeError, match="two spots"):
        array_raster(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]]))


def test_morans_i_agrees_with_the_double_sum() -> None:
    xy = RNG.uniform(0, 10, (25, 2))
    values = RNG.normal(size=(25, 3))
    weights = neighbour_weights(xy)
    w = np.zeros((25, 25))
    for i in range(25):
        distance = np.hypot(*(xy - xy[i]).T)
        distance[i] = np.inf
        w[i, np.argsort(distance)[:6]] = 1 / 6
    np.testing.assert_allclose(weights.toarray(), w)
    for gene in range(3):
        z = values[:, gene] - values[:, gene].mean()
        total = sum(w[i, j] * z[i] * z[j] for i in range(25) for j in range(25))
        expected = 25 / w.sum() * total / (z**2).sum()
        assert morans_i(values, weights)[gene] == pytest.approx(expected)


def test_morans_i_by_hand() -> None:
    # a line of four, one neighbour each: 0-1, 1-0, 2-3, 3-2; z = (-1, -1, 1, 1)
    line = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0], [6.0, 0.0]])
    weights = neighbour_weights(line, k=1)
    np.testing.assert_allclose(
        morans_i(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), weights), [1.0, -1.0]
    )


def test_equally_near_spots_share_a_weight() -> None:
    """A 5 x 5 grid: 1/6 for the four direct neighbours, 1/12 for the four diagonal ones."""
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    weights = neighbour_weights(grid).toarray()
    step = np.abs(grid - grid[12]).sum(axis=1)
    diagonal = (np.abs(grid - grid[12]) == 1).all(axis=1)
    np.testing.assert_allclose(weights[12, step == 1], 1 / 6)
    np.testing.assert_allclose(weights[12, diagonal], 1 / 12)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    order = RNG.permutation(25)
    np.testing.assert_allclose(neighbour_weights(grid[order]).toarray(), weights[order][:, order])


def test_coinciding_spots_are_neighbours_of_each_other() -> None:
    weights = neighbour_weights(np.zeros((9, 2)), k=3)
    np.testing.assert_allclose(weights.toarray(), (1 - np.eye(9)) / 8)
    with pytest.raises(ShapeError, match="over 6"):
        neighbour_weights(np.zeros((6, 2)))


def test_morans_agreement_ends() -> None:
    genes = np.concatenate(
        [_smooth(s) + a * RNG.normal(size=(SIDE**2, 1)) for s, a in enumerate([0, 0.3, 1, 3])],
        axis=1,
    )
    assert morans_i_agreement(genes, genes, ARRAY_XY) == pytest.approx(1.0)
    assert morans_i_agreement(np.ones_like(genes), genes, ARRAY_XY) == 0.0
    assert np.isnan(morans_i(np.ones((SIDE**2, 1)), neighbour_weights(ARRAY_XY)))[0]
    with_constant = np.concatenate([genes, np.ones((SIDE**2, 1))], axis=1)
    assert morans_i_agreement(with_constant, with_constant, ARRAY_XY) == pytest.approx(1.0)


def test_gene_gene_agreement_against_numpy_and_at_its_ends() -> None:
    factors = RNG.normal(size=(60, 2))
    truth = factors @ RNG.normal(size=(2, 9)) + 0.5 * RNG.normal(size=(60, 9))
    guess = truth + RNG.normal(size=truth.shape)
    upper = np.triu_indices(9, 1)
    expected = np.corrcoef(np.corrcoef(guess.T)[upper], np.corrcoef(truth.T)[upper])[0, 1]
    assert gene_gene_agreement(guess, truth) == pytest.approx(expected)
    assert gene_gene_agreement(truth, truth) == pytest.approx(1.0)
    assert gene_gene_agreement(np.ones_like(truth), truth) == 0.0
    truth[:, 3] = 0.0
    keep = np.delete(np.arange(9), 3)
    assert gene_gene_agreement(guess, truth) == pytest.approx(
        gene_gene_agreement(guess[:, keep], truth[:, keep])
    )
    assert np.isnan(gene_gene_agreement(guess[:, :2], truth[:, :2]))
