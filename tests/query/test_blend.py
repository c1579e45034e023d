import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.query import (
    ArrayPool,
    Balance,
    Centring,
    Modality,
    Predictor,
    RetrievalSettings,
    WeightScheme,
    allowed_spots,
)
from stretrieve.query.companion import PENALTY, RANK, fit_companion
from stretrieve.query.predictor import COMPANION_ROW
from stretrieve.query.scale import MAX_FOLDS, make_folds, sample_spots
from tests.query.pools import GENES, make_pool, queries

MODES = {
    "plain": {},
    "matched": {"variance_match": True},
    "companion": {"companion": 0.5},
    "companion only": {"companion": 1.0},
    "everything": {
        "companion": 0.4,
        "variance_match": True,
        "balance": Balance.EQUAL,
        "modality": Modality.FUSED,
        "weights": WeightScheme.SOFTMAX,
        "top_p": 0.8,
    },
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("centring", list(Centring))
def test_every_explanation_sums_to_its_prediction(mode, centring):
    chosen = RetrievalSettings(top_k=11, centring=centring, **MODES[mode])
    predictor = Predictor(make_pool(masked=True), chosen)
    predicted = predictor.predict(queries())
    neighbours = predicted.found.neighbours
    for row in range(0, 17, 4):
        for column, gene in enumerate(GENES):
            table = predictor.explain(
                gene, neighbours.indices[row], neighbours.weights[row],
                embedding=predicted.found.embeddings[row],
            )  # fmt: skip
            assert table["weight"].sum() == pytest.approx(1, rel=1e-12)
            total = (table["weight"] * table["value"]).sum()
            assert total == pytest.approx(predicted.mean[row, column], rel=1e-11, abs=1e-11)
            own = table["spot_uid"] == COMPANION_ROW
            assert own.sum() == (chosen.companion > 0)
            assert table.loc[own, "weight"].sum() == pytest.approx(chosen.companion)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("centring", list(Centring))
def test_spots_that_are_left_out_have_no_influence_in_any_mode(mode, centring):
    """Leak canary: the query patient's own sections change nothing while the guard is on."""
    pool = make_pool(patients="BCDA")
    own = (pool.spots["patient"] == "A").to_numpy()
    without = ArrayPool.of(pool, np.flatnonzero(~own))
    chosen = RetrievalSettings(top_k=9, centring=centring, **MODES[mode])
    asked = pool.embeddings("image")[own]
    guarded = Predictor(pool, chosen, allowed=allowed_spots(pool, patient="A")).predict(asked)
    clean = Predictor(without, chosen).predict(asked)
    for name in ("mean", "spread", "n_effective", "coverage"):
        np.testing.assert_array_equal(getattr(guarded, name), getattr(clean, name))
    np.testing.assert_array_equal(guarded.found.ood, clean.found.ood)
    assert np.abs(Predictor(pool, chosen).predict(asked).mean - guarded.mean).max() > 0.01


def test_a_sample_of_placed_spots_is_of_whole_pieces():
    pool = make_pool(patients="AB", n_spots=400)
    side = np.arange(20) * 100.0
    xy = np.tile(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), (2, 1))
    pool.spots["x_um"], pool.spots["y_um"] = xy[:, 0], xy[:, 1]
    chosen = sample_spots(pool, np.ones(800, dtype=bool), 200)
    assert chosen.sum() == 200
    for section in (0, 1):
        places = xy[chosen & (pool.section_index == section)]
        apart = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
        np.fill_diagonal(apart, np.inf)
        assert (np.sqrt(apart.min(axis=1)) == 100.0).mean() > 0.95


@pytest.mark.parametrize("mode", MODES)
def test_batches_do_not_change_any_mode(mode):
    chosen = RetrievalSettings(top_k=9, centring=Centring.BOTH, **MODES[mode])
    predictor, asked = Predictor(make_pool(masked=True), chosen), queries()
    whole, shift = predictor.predict(asked), predictor.prepare(asked)
    for start in range(0, 17, 5):
        rows = slice(start, start + 5)
        part = predictor.impute(predictor.find(asked[rows], shift=shift))
        np.testing.assert_allclose(part.mean, whole.mean[rows], rtol=1e-12)
        np.testing.assert_array_equal(part.spread, whole.spread[rows])


def linear_pool(noise=0.0, dim=4, n_genes=9):
    rng = np.random.default_rng(5)
    image = rng.normal(size=(200, dim))
    truth = rng.normal(size=(dim, n_genes))
    section = np.repeat(np.arange(4), 50)
    offsets = rng.normal(size=(4, n_genes))[section]
    values = 9 + image @ truth + offsets + noise * rng.normal(size=(200, n_genes))
    pool = ArrayPool.build(
        {"image": image, "expression": image}, values, [f"G{i}" for i in range(n_genes)],
        sections=[f"s{i}" for i in section],
    )  # fmt: skip
    return pool, image, truth


def test_companion_learns_a_linear_relation_and_forgets_section_offsets():
    pool, image, truth = linear_pool()
    companion = fit_companion(pool, np.ones(200, dtype=bool))
    predicted = companion.predict(image, np.arange(9))
    shrunk = image @ truth
    correlation = [np.corrcoef(predicted[:, g], shrunk[:, g])[0, 1] for g in range(9)]
    assert min(correlation) > 0.999
    assert companion.codes.shape == (4, 4)


def test_companion_is_ridge_of_limited_rank():
    rng = np.random.default_rng(1)
    image, values = rng.normal(size=(90, RANK + 6)), rng.gamma(1.0, size=(90, 30))
    pool = ArrayPool.build(
        {"image": image, "expression": image}, values, [f"G{i}" for i in range(30)],
        sections=["a"] * 50 + ["b"] * 40,
    )  # fmt: skip
    companion = fit_companion(pool, np.ones(90, dtype=bool))
    z, y = pool.embeddings("image").astype(float), pool.expression.toarray().astype(float)
    for rows in (slice(0, 50), slice(50, 90)):
        z[rows] -= z[rows].mean(axis=0)
        y[rows] -= y[rows].mean(axis=0)
    gram = z.T @ z
    ridge = np.linalg.solve(
        gram + PENALTY * np.trace(gram) / len(gram) * np.eye(len(gram)), z.T @ y
    )
    right = np.linalg.svd(z @ ridge, full_matrices=False)[2][:RANK]
    np.testing.assert_allclose(
        companion.codes @ companion.loadings, ridge @ right.T @ right, atol=1e-9
    )


def test_companion_learns_a_gene_from_the_sections_that_measured_it():
    full = make_pool()
    measured = np.ones((4, len(GENES)), dtype=bool)
    measured[:2, 0] = False
    values = full.expression.toarray()
    values[:60, 0] = 7e4  # never to be read
    hidden = dataclasses.replace(
        full, expression=full.expression.__class__(values), measured=measured
    )
    hidden.expression[:60, 0] = 0
    two = ArrayPool.of(full, np.arange(60, 120))
    for pool in (hidden, two):
        assert np.isfinite(fit_companion(pool, np.ones(len(pool.spots), bool)).loadings).all()
    profile = fit_companion(hidden, np.ones(120, bool)).profile[0]
    assert profile == pytest.approx(fit_companion(two, np.ones(60, bool)).profile[0])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_variance_matching_restores_the_measured_variance(share):
    pool = make_pool(patients="ABCD", n_spots=60)
    chosen = RetrievalSettings(top_k=50, companion=share)
    asked = make_pool(patients="E", n_spots=300, seed=0).embeddings("image")
    plain = Predictor(pool, chosen).predict(asked)
    matched = Predictor(pool, dataclasses.replace(chosen, variance_match=True)).predict(asked)
    truth = pool.expression.toarray().std(axis=0)
    before, after = plain.mean.std(axis=0) / truth, matched.mean.std(axis=0) / truth
    assert np.abs(np.log(after)).mean() < 0.5 * np.abs(np.log(before)).mean()
    for gene in range(len(GENES)):
        assert np.corrcoef(plain.mean[:, gene], matched.mean[:, gene])[0, 1] == pytest.approx(1)
    stretch = matched.spread.max(axis=0) / plain.spread.max(axis=0)
    np.testing.assert_allclose(matched.spread, plain.spread * stretch, rtol=1e-6)


def test_folds_are_patients_then_sections_then_blocks():
    pool = make_pool()
    everything = np.ones(120, dtype=bool)
    folds = make_folds(pool, everything)
    assert [fold.name for fold in folds] == ["A", "B", "C"]
    assert [len(fold.members) for fold in folds] == [60, 30, 30]
    for fold in folds:
        assert not fold.others[fold.members].any()
    one = allowed_spots(pool, filters={"patient": "A"})
    assert [fold.name for fold in make_folds(pool, one)] == ["s0", "s1"]
    section = allowed_spots(pool, filters={"section": "s2"})
    assert len(make_folds(pool, section)) == 5
    many = make_pool(patients=[f"P{i:02}" for i in range(14)], n_spots=3)
    assert len(make_folds(many, np.ones(42, dtype=bool))) == MAX_FOLDS


@given(st.integers(4, 130))
@settings(max_examples=20)
def test_samples_are_fixed_and_even(limit):
    pool = make_pool()
    everything = np.ones(120, dtype=bool)
    chosen = sample_spots(pool, everything, limit)
    np.testing.assert_array_equal(chosen, sample_spots(pool, everything, limit))
    per_section = np.bincount(pool.section_index[chosen], minlength=4)
    assert chosen.sum() <= max(limit, 8)
    assert per_section.max() - per_section.min() == 0
