import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretrieve.errors import ShapeError
from stretrieve.query.impute import WeightMatrix, impute
from stretrieve.query.weights import uniform_weights


def random_case(seed, n_query=4, n_reference=9, k=5, n_genes=6):
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.permutation(n_reference)[:k] for _ in range(n_query)])
    weights = rng.dirichlet(np.ones(k), size=n_query)
    return indices, weights, rng.gamma(1.0, size=(n_reference, n_genes)), rng


def test_all_spots_with_uniform_weights_give_the_mean_profile():
    expression = np.random.default_rng(0).gamma(1.0, size=(12, 5))
    indices = np.tile(np.arange(12), (3, 1))
    matrix = WeightMatrix.build(indices, uniform_weights(indices))
    result = impute(matrix.matrix, expression[matrix.used])
    np.testing.assert_allclose(result.mean, np.tile(expression.mean(axis=0), (3, 1)))
    np.testing.assert_allclose(result.spread, np.tile(expression.std(axis=0), (3, 1)))
    np.testing.assert_allclose(result.n_effective, 12)
    np.testing.assert_allclose(result.coverage, 1)


@given(st.integers(0, 10_000))
def test_masked_imputation_equals_a_loop_over_voters(seed):
    indices, weights, expression, rng = random_case(seed)
    measured = rng.random(expression.shape) < 0.6
    matrix = WeightMatrix.build(indices, weights)
    result = impute(matrix.matrix, expression[matrix.used], measured=measured[matrix.used])
    for q in range(len(indices)):
        for g in range(expression.shape[1]):
            votes = measured[indices[q], g]
            w, x = weights[q][votes], expression[indices[q], g][votes]
            if not votes.any():
                assert np.isnan(result.mean[q, g])
                assert result.n_effective[q, g] == 0
                continue
            mean = np.average(x, weights=w)
            assert result.mean[q, g] == pytest.approx(mean)
            assert result.spread[q, g] == pytest.approx(
                np.sqrt(np.average((x - mean) ** 2, weights=w)), abs=1e-6
            )
            assert result.n_effective[q, g] == pytest.approx(w.sum() ** 2 / (w**2).sum())
            assert result.coverage[q, g] == pytest.approx(w.sum())


def test_values_of_spots_that_did_not_measure_a_gene_are_never_read():
    indices, weights, expression, rng = random_case(3)
    measured = rng.random(expression.shape) < 0.5
    poisoned = np.where(measured, expression, 1e9)
    matrix = WeightMatrix.build(indices, weights)
    clean = impute(matrix.matrix, expression[matrix.used], measured=measured[matrix.used])
    dirty = impute(matrix.matrix, poisoned[matrix.used], measured=measured[matrix.used])
    np.testing.assert_array_equal(clean.mean, dirty.mean)


def test_missing_neighbours_do_not_vote():
    matrix = WeightMatrix.build(np.array([[2, -1], [-1, -1]]), np.array([[1.0, 0.0], [0.0, 0.0]]))
    result = impute(matrix.matrix, np.array([[7.0]]))
    assert matrix.used.tolist() == [2]
    assert result.mean[0, 0] == 7
    assert np.isnan(result.mean[1, 0])


def test_a_negligible_weight_does_not_vote():
    matrix = WeightMatrix.build(np.array([[0, 1]]), np.array([[1.0, 1e-200]]))
    measured = np.array([[True, False], [True, True]])[matrix.used]
    result = impute(matrix.matrix, np.array([[3.0, 0.0]]), measured=measured)
    assert result.mean[0, 0] == 3
    assert np.isnan(result.mean[0, 1])
    assert result.n_effective.tolist() == [[1, 0]]


def test_shapes_are_checked():
    indices, weights, expression, _ = random_case(0)
    with pytest.raises(ShapeError, match="neighbour weights"):
        WeightMatrix.build(indices, weights[:, :2])
    with pytest.raises(ShapeError, match="expression"):
        impute(WeightMatrix.build(indices, weights).matrix, expression[:2])
