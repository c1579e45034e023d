"""Patches share their neighbours with those around them, and every value can still be traced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.query import ArrayPool, Centring, Predictor, RetrievalSettings
from stretrieve.query.calibrate import in_sample_folds
from stretrieve.query.choose import Judge, choose
from stretrieve.query.companion import Companion
from stretrieve.query.finder import Finder
from stretrieve.query.groups import EncodedGroup
from stretrieve.query.predictor import COMPANION_ROW
from stretrieve.query.surroundings import KEPT, REACH, Joined, Surroundings, heaviest, join
from tests.query.pools import GENES, make_pool, queries

WIDTH = 120.0
MODES = {
    "plain": {},
    "companion": {"companion": 0.4},
    "everything": {"companion": 0.4, "variance_match": True, "top_p": 0.8},
}


def places(n=17, seed=4):
    return np.random.default_rng(seed).uniform(0, 800, size=(n, 2))


def placed_pool(**options):
    pool = make_pool(**options)
    xy = np.random.default_rng(3).uniform(0, 1500, size=(len(pool.spots), 2))
    pool.spots["x_um"], pool.spots["y_um"] = xy[:, 0], xy[:, 1]
    return pool


def dense_gaussian(xy, width):
    squares = ((xy[:, None] - xy[None]) ** 2).sum(axis=-1)
    weights = np.where(squares <= (REACH * width) ** 2, np.exp(-squares / (2 * width**2)), 0)
    return weights / weights.sum(axis=1, keepdims=True)


@given(st.integers(0, 1000), st.integers(1, 30), st.floats(10, 500))
def test_weights_are_a_gaussian_of_distance_whatever_part_is_asked_for(seed, n, width):
    xy = places(n, seed)
    wanted = dense_gaussian(xy, width)
    around = Surroundings(xy, width)
    for rows in (slice(0, n), slice(n // 3, n // 3 + 2)):
        near, weights = around.of(rows)
        full = np.zeros((len(xy[rows]), n))
        full[:, near] = weights.toarray()
        np.testing.assert_allclose(full, wanted[rows], rtol=1e-9, atol=1e-15)
        assert set(range(n)[rows]) <= set(near.tolist())


def test_centres_that_are_no_points_are_refused():
    for wrong in (np.zeros((4, 3)), np.array([[0.0, np.nan]])):
        with pytest.raises(ShapeError, match="patch centres"):
            Surroundings(wrong, WIDTH)


def test_weights_of_spots_add_up_over_patches():
    weights = sparse.csr_matrix([[0.75, 0.25], [0.0, 1.0]])
    (joined,) = join(weights, np.array([[7, 2], [2, 9]]), np.full((2, 2), 0.5))
    assert joined.indices.tolist() == [[2, 7, 9], [2, 9, -1]]
    np.testing.assert_allclose(joined.weights, [[0.5, 0.375, 0.125], [0.5, 0.5, 0]])


@given(st.integers(0, 500), st.integers(60, 200))
def test_blocks_of_patches_join_to_the_whole(seed, n):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1000, size=(n, 2))
    indices = np.stack([rng.permutation(30)[:4] for _ in range(n)])
    shares = rng.dirichlet(np.ones(4), size=n)
    _, weights = Surroundings(xy, 60.0).of(slice(0, n))
    own = np.zeros((n, 30))
    np.put_along_axis(own, indices, shares, 1)
    got = np.zeros((n, 30))
    row = 0
    for part in join(weights, indices, shares):
        for found, weight in zip(part.indices, part.weights, strict=True):
            got[row, found[found >= 0]] = weight[found >= 0]
            row += 1
    assert row == n
    np.testing.assert_allclose(got, weights.toarray() @ own, atol=1e-12)


def test_heaviest_spots_are_kept_and_among_equals_those_most_like_the_patch():
    joined = Joined(np.array([[2, 5, 7, 9]]), np.array([[0.1, 0.4, 0.1, 0.4]]))
    scores = np.array([[0.2, 0.1, 0.9, 0.3]])
    indices, weights, alike = heaviest(joined, scores, keep=3)
    assert indices.tolist() == [[7, 9, 5]]
    np.testing.assert_allclose(weights, np.array([[0.1, 0.4, 0.4]]) / 0.9)
    np.testing.assert_allclose(alike, [[0.9, 0.3, 0.1]])
    indices, weights, _ = heaviest(joined, scores, keep=6)
    assert indices.tolist() == [[7, 9, 2, 5, -1, -1]]
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_predictions_are_the_gaussian_average_of_those_without():
    """While no spot is dropped: four patches near each other have at most four times ``top_k``."""
    assert KEPT == 4
    pool, asked = placed_pool(), queries(8)
    corners = [[0, 0], [90, 0], [0, 90], [90, 90]]
    xy = np.repeat(np.arange(2)[:, None] * 5000.0, 4, axis=0) + corners * 2
    settings = RetrievalSettings(top_k=9, smoothing_um=WIDTH)
    plain = Predictor(pool, RetrievalSettings(top_k=9)).predict(asked).mean
    smooth = Predictor(pool, settings).predict(asked, xy_um=xy).mean
    np.testing.assert_allclose(smooth, dense_gaussian(xy, WIDTH) @ plain, rtol=1e-12)
    far = Predictor(pool, settings).predict(asked, xy_um=xy * 1000).mean
    np.testing.assert_allclose(far, plain, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("centring", list(Centring))
def test_every_explanation_sums_to_its_prediction(mode, centring):
    chosen = RetrievalSettings(top_k=7, centring=centring, smoothing_um=WIDTH, **MODES[mode])
    predictor = Predictor(placed_pool(masked=True), chosen)
    predicted = predictor.predict(queries(), xy_um=places())
    found = predicted.found
    assert found.neighbours.indices.shape == (17, 28)
    for row in range(0, 17, 4):
        for column, gene in enumerate(GENES):
            table = predictor.explain(
                gene, found.neighbours.indices[row], found.neighbours.weights[row],
                embedding=found.embeddings[row], smoothed=found.smoothed[row],
            )  # fmt: skip
            total = (table["weight"] * table["value"]).sum()
            assert total == pytest.approx(predicted.mean[row, column], rel=1e-11, abs=1e-11)
            assert table["weight"].sum() == pytest.approx(1, rel=1e-12)
            own = table["spot_uid"] == COMPANION_ROW
            scores = table.loc[~own, "similarity"].to_numpy()
            assert (np.diff(scores) <= 0).all()


def test_the_regression_is_smoothed_alike():
    pool, asked, xy = placed_pool(), queries(), places()
    predictor = Predictor(pool, RetrievalSettings(smoothing_um=WIDTH, companion=1.0))
    regression = predictor.blend.companion
    assert isinstance(regression, Companion)
    columns = np.arange(len(GENES))
    wanted = dense_gaussian(xy, WIDTH) @ regression.predict(asked, columns)
    got = regression.predict(predictor.find_slide(asked, xy).smoothed, columns)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 17])
def test_groups_find_what_the_whole_slide_finds(rows):
    settings = RetrievalSettings(top_k=6, smoothing_um=WIDTH, companion=0.3)
    predictor, asked, xy = Predictor(placed_pool(), settings), queries(), places()
    whole = predictor.find_slide(asked, xy)
    starts = range(0, 17, rows)
    ok = np.zeros(rows, np.uint8)
    groups = [EncodedGroup(i, asked[s : s + rows], ok[: 17 - s]) for i, s in enumerate(starts)]
    empty = EncodedGroup(len(groups), asked[:0], ok[:0])
    finder = Finder(
        predictor, [*groups, empty].__getitem__,
        lambda g: xy[g.number * rows : g.number * rows + len(g.values)], len(groups) + 1, None,
    )  # fmt: skip
    for group in groups:
        part = slice(group.number * rows, (group.number + 1) * rows)
        found = finder.find(group)
        np.testing.assert_array_equal(found.neighbours.indices, whole.neighbours.indices[part])
        np.testing.assert_array_equal(found.neighbours.weights, whole.neighbours.weights[part])
        np.testing.assert_array_equal(found.smoothed, whole.smoothed[part])
    assert len(finder.find(empty)) == 0


def test_only_what_was_found_around_a_group_is_kept():
    side = np.arange(12) * 100.0
    xy = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    predictor = Predictor(placed_pool(), RetrievalSettings(top_k=6, smoothing_um=50.0))
    asked, ok = queries(144), np.zeros(12, np.uint8)
    groups = [EncodedGroup(i, asked[12 * i : 12 * i + 12], ok) for i in range(12)]

    def centres(group):
        return xy[12 * group.number : 12 * group.number + 12]

    finder = Finder(predictor, groups.__getitem__, centres, 12, None)
    for group in groups:
        finder.find(group)
        assert len(finder._kept) <= 3


def test_a_patch_that_abstains_neither_gives_nor_gets():
    pool, asked = placed_pool(), queries()
    settings = RetrievalSettings(top_k=6, smoothing_um=WIDTH)
    predictor = Predictor(pool, settings, abstain=0.5)
    silent = predictor.find(asked).neighbours.weights.sum(axis=1) == 0
    assert silent.any()
    assert not silent.all()
    found = predictor.find_slide(asked, places())
    np.testing.assert_array_equal(found.neighbours.weights.sum(axis=1) == 0, silent)
    others = Predictor(pool, settings).find_slide(asked[~silent], places()[~silent])
    np.testing.assert_allclose(found.neighbours.weights[~silent], others.neighbours.weights)
    assert (found.neighbours.indices[silent, :6] >= 0).all()


def test_smoothing_needs_positions():
    predictor = Predictor(placed_pool(), RetrievalSettings(smoothing_um=WIDTH))
    with pytest.raises(ConfigError, match="xy_um"):
        predictor.predict(queries())
    for wrong in (-1, np.nan, np.inf):
        with pytest.raises(ConfigError, match="smoothing_um"):
            RetrievalSettings(smoothing_um=wrong)


def smooth_tissue(seed=0, n_patients=4, side=9):
    """Sections whose expression changes slowly, and embeddings that tell it poorly."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 100.0
    angles = rng.uniform(0, np.pi, size=(n_patients, 3))
    wave = [np.stack([np.sin(grid @ [np.cos(a), np.sin(a)] / 250) for a in row], axis=1)
            for row in angles]  # fmt: skip
    latent = np.concatenate(wave)
    values = np.clip(1 + latent @ rng.normal(size=(3, len(GENES))), 0, None)
    noise = 1.2 * rng.normal(size=latent.shape)
    patients = np.repeat([f"P{i}" for i in range(n_patients)], len(grid))
    return ArrayPool.build(
        {"image": latent + noise, "expression": latent}, values, GENES,
        sections=list(patients), patients=list(patients), xy_um=np.tile(grid, (n_patients, 1)),
    )  # fmt: skip


def test_calibration_smooths_where_that_helps_and_never_without_positions():
    pool = smooth_tissue()
    assert choose(Judge(in_sample_folds(pool), GENES)).smoothing_um > 0
    pool.spots.drop(columns=["x_um", "y_um"], inplace=True)
    assert choose(Judge(in_sample_folds(pool), GENES)).smoothing_um == 0
