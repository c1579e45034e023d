import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretrieve.errors import InputError, ManifestError
from stretrieve.query import Predictor, RetrievalSettings
from stretrieve.query.calibrate import calibrate, calibration_pool, in_sample_folds
from stretrieve.query.calibration import Calibration
from stretrieve.query.choose import Judge, choose, variable_genes
from stretrieve.query.conformal import (
    EPSILON,
    coverage,
    held_out_ratios,
    inflation,
    nonconformity,
    patient_weights,
    quantiles,
    weighted_quantile,
)
from tests.query.pools import GENES, make_pool


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_weighted_quantile_equals_a_loop(seed, level):
    rng = np.random.default_rng(seed)
    scores, weights = rng.normal(size=(15, 4)), rng.random(15)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    found = weighted_quantile(scores, weights, level)
    for gene in range(4):
        known = ~np.isnan(scores[:, gene])
        for value in np.sort(scores[known, gene]):
            if (
                weights[known & (scores[:, gene] <= value)].sum()
                >= level * weights[known].sum() - 1e-12
            ):
                assert found[gene] == value
                break


def test_patients_weigh_the_same_and_one_can_be_left_out():
    np.testing.assert_allclose(patient_weights([2, 4]), [0.5] * 2 + [0.25] * 4)
    np.testing.assert_allclose(patient_weights([2, 4], leave_out=0), [0.0] * 2 + [0.25] * 4)
    scores = [np.full((3, 1), 1.0), np.full((30, 1), 2.0)]
    assert quantiles(scores, leave_out=1)[90] == 1.0
    assert quantiles(scores)[80] == 2.0


def test_intervals_cover_patients_like_those_calibrated_on():
    rng = np.random.default_rng(0)
    scores = [np.abs(rng.normal(size=(400, 30))) for _ in range(5)]
    ratios = held_out_ratios(scores)
    for level in (80, 90):
        assert coverage(ratios[level]) == pytest.approx(level / 100, abs=0.02)
        assert 1.0 <= inflation(ratios[level], level) < 1.05


def test_patients_that_differ_inflate_the_intervals():
    rng = np.random.default_rng(1)
    scores = [scale * np.abs(rng.normal(size=(300, 30))) for scale in (0.5, 1.0, 2.0, 4.0)]
    ratios = held_out_ratios(scores)
    for level in (80, 90):
        assert coverage(ratios[level]) < level / 100
        factor = inflation(ratios[level], level)
        assert factor > 1.2
        assert coverage(ratios[level], factor) == pytest.approx(level / 100, abs=0.01)


@pytest.fixture(scope="module")
def folds():
    return in_sample_folds(calibration_pool(make_pool(patients="ABCD", n_spots=40, masked=True)))


@pytest.fixture(scope="module")
def calibration(folds):
    return calibrate(folds, refitted=False)


def test_the_choice_is_the_best_candidate_of_those_that_were_judged(folds, calibration):
    listed = calibration.facts["candidates"]
    assert listed == sorted(listed, key=lambda one: -one["mean"])
    judge = Judge(folds, variable_genes(folds[0].pool))
    assert judge.scores(calibration.settings).mean() >= judge.scores(RetrievalSettings()).mean()
    assert choose(judge) == calibration.settings
    chosen = max(listed, key=lambda one: one["mean"])["mean"]
    assert judge.scores(calibration.settings).mean() > chosen - 0.02


def test_each_patient_is_predicted_without_own_spots(folds):
    for fold in folds:
        patients = fold.pool.spots["patient"].to_numpy()
        assert set(patients[fold.members]) == {fold.name}
        assert fold.name not in set(patients[fold.others])


def test_nested_score_of_a_patient_comes_from_settings_chosen_without_it(folds, calibration):
    judge = Judge(folds, variable_genes(folds[0].pool))
    for place in range(len(folds)):
        own = choose(judge, np.arange(len(folds)) != place)
        assert calibration.facts["nested_pcc"][place] == round(float(judge.scores(own)[place]), 4)


def test_intervals_of_a_new_patient(calibration):
    pool = make_pool(patients="ABCDE", n_spots=40)
    new = (pool.spots["patient"] == "E").to_numpy()
    predictor = Predictor(pool, calibration.settings, allowed=~new, calibration=calibration)
    predicted = predictor.predict(pool.embeddings("image")[new])
    truth = pool.expression.toarray()[new]
    assert sorted(predicted.intervals) == [80, 90], "what a query writes"
    columns = np.arange(len(pool.genes))
    covered = {}
    for level, interval in calibration.intervals(predicted.mean, predicted.spread, columns).items():
        assert (interval.lower >= 0).all()
        assert (interval.lower <= interval.upper).all()
        covered[level] = np.mean((truth >= interval.lower) & (truth <= interval.upper))
    assert 0.45 < covered[50] < 0.7 < covered[80] < covered[90]
    assert covered[90] > 0.84
    width = predicted.intervals[90].upper - predicted.intervals[80].upper
    assert (width >= -1e-12).all()
    assert set(calibration.facts["coverage"]["90"]) == set("ABCD")


def test_other_settings_get_no_intervals(calibration):
    other = RetrievalSettings(top_k=3)
    assert other != calibration.settings
    predictor = Predictor(make_pool(), other, calibration=calibration)
    assert predictor.predict(make_pool().embeddings("image")[:2]).intervals == {}


def test_a_calibration_survives_json_and_refuses_damage(calibration):
    import json

    data = json.loads(json.dumps(calibration.to_dict()))
    back = Calibration.from_dict(data)
    assert back.settings == calibration.settings
    assert back.facts == json.loads(json.dumps(calibration.facts))
    np.testing.assert_allclose(back.expected_pcc, calibration.expected_pcc, atol=1e-6)
    for level in (80, 90):
        np.testing.assert_allclose(back.quantiles[level], calibration.quantiles[level], rtol=1e-6)
    for wrong in ({**data, "format": 9}, {**data, "expected_pcc": "?"}, {"format": 1}):
        with pytest.raises(ManifestError, match="calibrat"):
            Calibration.from_dict(wrong)


def test_the_same_calibration_every_time(folds, calibration):
    assert calibrate(folds, refitted=False).to_dict() == calibration.to_dict()


def test_expected_correlation_is_high_where_expression_follows_the_image(calibration):
    assert calibration.expected_pcc.shape == (len(GENES),)
    assert np.nanmean(calibration.expected_pcc) > 0.5
    assert calibration.in_sample


def test_fewer_than_three_patients_are_refused():
    with pytest.raises(InputError, match="patients to calibrate on: got 2"):
        calibration_pool(make_pool(patients="AAB"))


def test_nonconformity_is_in_units_of_the_spread():
    truth, mean, spread = np.array([[1.0]]), np.array([[0.0]]), np.array([[0.4]])
    assert nonconformity(truth, mean, spread)[0, 0] == pytest.approx(1 / (0.4 + EPSILON))
