import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import ShapeError
from stretrieve.query import (
    ArrayPool,
    Centring,
    Modality,
    Predictor,
    RetrievalSettings,
    WeightScheme,
    allowed_spots,
)
from tests.query.pools import GENES, make_pool, queries


def test_all_spots_with_equal_weights_predict_the_mean_exactly():
    pool = make_pool()
    predicted = Predictor(pool, RetrievalSettings(top_k=120)).predict(queries())
    expected = pool.expression.toarray().astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(predicted.mean, np.tile(expected, (17, 1)), rtol=1e-12)
    np.testing.assert_allclose(predicted.n_effective, 120)


@pytest.mark.parametrize("weights", list(WeightScheme))
@pytest.mark.parametrize("centring", list(Centring))
@pytest.mark.parametrize("modality", list(Modality))
def test_batches_of_any_size_predict_the_same(weights, centring, modality):
    chosen = RetrievalSettings(top_k=9, weights=weights, centring=centring, modality=modality)
    predictor, asked = Predictor(make_pool(masked=True), chosen), queries()
    whole = predictor.predict(asked)
    shift = predictor.prepare(asked.mean(axis=0, dtype=np.float64))
    for step in (1, 5):
        for start in range(0, len(asked), step):
            rows = slice(start, start + step)
            found = predictor.find(asked[rows], shift=shift)
            part = predictor.impute(found)
            np.testing.assert_array_equal(
                found.neighbours.indices, whole.found.neighbours.indices[rows]
            )
            np.testing.assert_array_equal(part.mean, whole.mean[rows])
            some = predictor.impute(found, GENES[3:7])
            np.testing.assert_allclose(some.mean, whole.mean[rows, 3:7], rtol=1e-13)
            np.testing.assert_array_equal(found.ood, whole.found.ood[rows])


@given(st.integers(0, 1000), st.sampled_from(list(WeightScheme)), st.sampled_from(list(Modality)))
@settings(max_examples=25, deadline=None)
def test_order_of_queries_changes_nothing_else_and_weights_sum_to_one(seed, weights, modality):
    predictor = Predictor(
        make_pool(seed), RetrievalSettings(top_k=7, weights=weights, modality=modality)
    )
    asked = queries(seed=seed)
    order = np.random.default_rng(seed).permutation(len(asked))
    first, second = predictor.predict(asked), predictor.predict(asked[order])
    np.testing.assert_array_equal(first.mean[order], second.mean)
    neighbours = first.found.neighbours
    np.testing.assert_allclose(neighbours.weights.sum(axis=1), 1)
    assert (neighbours.weights >= 0).all()
    assert (np.diff(neighbours.similarity, axis=1) <= 0).all()
    ties = np.diff(neighbours.similarity, axis=1) == 0
    assert (np.diff(neighbours.indices, axis=1)[ties] > 0).all()


@pytest.mark.parametrize("centring", list(Centring))
def test_spots_that_are_left_out_have_no_influence(centring):
    """Leak canary: the query patient's own sections change nothing while the guard is on."""
    with_own, without = make_pool(patients="BCDA"), make_pool(patients="BCDA")
    keep = np.flatnonzero(with_own.spots["patient"] != "A")
    without = ArrayPool.build(
        {name: vectors[keep] for name, vectors in with_own.vectors.items()},
        with_own.expression[keep], GENES,
        sections=list(with_own.spots["section"].iloc[keep]),
        patients=list(with_own.spots["patient"].iloc[keep]),
    )  # fmt: skip
    chosen = RetrievalSettings(top_k=9, centring=centring)
    asked = with_own.embeddings("image")[np.flatnonzero(with_own.spots["patient"] == "A")]
    guarded = Predictor(with_own, chosen, allowed=allowed_spots(with_own, patient="A"))
    clean = Predictor(without, chosen)
    first, second = guarded.predict(asked), clean.predict(asked)
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.spread, second.spread)
    np.testing.assert_array_equal(first.found.ood, second.found.ood)
    leaky = Predictor(with_own, chosen).predict(asked)
    assert np.abs(leaky.mean - first.mean).max() > 0.1


def test_explanations_sum_to_predictions_with_missing_genes():
    pool = make_pool(masked=True)
    for centring in Centring:
        predictor = Predictor(pool, RetrievalSettings(top_k=11, centring=centring))
        predicted = predictor.predict(queries())
        neighbours = predicted.found.neighbours
        for row, gene in ((0, "G0"), (3, "G2"), (16, "G11")):
            table = predictor.explain(
                gene, neighbours.indices[row], neighbours.weights[row],
                embedding=predicted.found.embeddings[row],
            )  # fmt: skip
            total = (table["weight"] * table["value"]).sum()
            assert total == pytest.approx(predicted.mean[row, GENES.index(gene)], rel=1e-12)
            assert list(table.columns) == [
                "spot_uid", "section", "patient", "dataset", "weight", "value", "similarity",
            ]  # fmt: skip


def test_arrays_that_do_not_fit_are_refused():
    pool = make_pool()
    with pytest.raises(ShapeError, match="spots"):
        ArrayPool.build({"image": np.ones((3, 2))}, np.ones((4, 1)), ["G"], sections=["s"] * 4)
    with pytest.raises(ShapeError, match="allowed"):
        Predictor(pool, allowed=np.ones(3, dtype=bool))


def test_what_points_the_same_way_from_far_away_is_out_of_distribution():
    """Cosine similarity is blind to it; a patient of the same kind is let through."""
    rng = np.random.default_rng(5)
    centre = np.array([2.0, 1.0, 0.0, 0.0])
    donors = np.repeat(list("abcdef"), 40)
    vectors = centre + rng.normal(size=(240, 4)) * [1.0, 0.5, 0.3, 0.1]
    pool = ArrayPool.build(
        {"image": vectors, "expression": vectors}, rng.gamma(1.0, size=(240, 2)), ["G", "H"],
        sections=list(donors),
    )  # fmt: skip
    same = (centre + rng.normal(size=(50, 4)) * [1.0, 0.5, 0.3, 0.1]).astype(np.float32)
    predictor = Predictor(pool, RetrievalSettings(top_k=5), abstain=1.5)
    assert (predictor.find(same).ood > 0.95).mean() < 0.2
    assert np.isfinite(predictor.predict(same).mean).all()
    far = predictor.predict(same * 8)
    assert (far.found.ood == 1).all()
    assert np.isnan(far.mean).all()
    np.testing.assert_array_equal(
        far.found.neighbours.indices, predictor.find(same).neighbours.indices
    )


def test_a_patient_of_one_spot_does_not_blind_the_guard():
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(401, 16))
    pool = ArrayPool.build(
        {"image": vectors, "expression": vectors}, rng.gamma(1.0, size=(401, 2)), ["G", "H"],
        sections=["a"] * 400 + ["b"],
    )  # fmt: skip
    found = Predictor(pool, RetrievalSettings(top_k=5)).find(12 * queries(20, 16))
    assert (found.ood > 0.95).all()


def test_a_patch_unlike_anything_gets_no_values_and_says_so():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(90, 5)) * 0.3 + [3, 0, 0, 0, 0]
    pool = ArrayPool.build(
        {"image": vectors, "expression": vectors}, rng.gamma(1.0, size=(90, 2)), ["G", "H"],
        sections=["a"] * 30 + ["b"] * 30 + ["c"] * 30,
    )  # fmt: skip
    asked = (rng.normal(size=(20, 5)) * 0.3 + [3, 0, 0, 0, 0]).astype(np.float32)
    asked[:5] = -asked[:5]
    for share in (0.0, 0.5):
        chosen = RetrievalSettings(top_k=7, companion=share)
        careful = Predictor(pool, chosen, abstain=1.5).predict(asked)
        assert np.isnan(careful.mean[:5]).all()
        assert (careful.n_effective[:5] == 0).all()
        assert (careful.found.ood[:5] == 1).all()
        assert np.isfinite(careful.mean[5:]).all()
        talkative = Predictor(pool, chosen).predict(asked)
        np.testing.assert_array_equal(talkative.mean[5:], careful.mean[5:])
        assert np.isfinite(talkative.mean).all()
    found = careful.found
    predictor = Predictor(pool, chosen, abstain=1.5)
    table = predictor.explain(
        "G", found.neighbours.indices[0], found.neighbours.weights[0],
        embedding=found.embeddings[0],
    )  # fmt: skip
    assert table.empty
    alone = Predictor(pool, abstain=1.5, allowed=allowed_spots(pool, filters={"patient": "a"}))
    assert np.isfinite(alone.predict(asked).mean).all()
