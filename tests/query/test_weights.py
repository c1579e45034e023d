import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.query.weights import (
    bleep_weights,
    inverse_weights,
    softmax_weights,
    squared_distances,
    uniform_weights,
)

finite = st.floats(-50, 50, width=32)
matrices = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=finite)


def schemes(values, indices):
    distances = np.abs(values)
    return {
        "uniform": uniform_weights(indices),
        "softmax": softmax_weights(values, indices, temperature=0.5),
        "bleep": bleep_weights(distances, indices),
        "inverse": inverse_weights(distances, indices),
    }


@given(matrices, st.data())
def test_weights_sum_to_one_and_ignore_missing_neighbours(values, data):
    present = data.draw(hnp.arrays(np.bool_, values.shape))
    indices = np.where(present, np.arange(values.size).reshape(values.shape), -1)
    for name, weights in schemes(values, indices).items():
        assert np.all(weights >= 0), name
        assert np.all(weights[~present] == 0), name
        np.testing.assert_allclose(
            weights.sum(axis=1), present.any(axis=1).astype(float), atol=1e-12, err_msg=name
        )


@given(matrices, st.randoms(use_true_random=False))
def test_weights_follow_a_permutation_of_the_neighbours(values, random):
    indices = np.arange(values.size).reshape(values.shape)
    order = list(range(values.shape[1]))
    random.shuffle(order)
    straight = schemes(values, indices)
    shuffled = schemes(values[:, order], indices[:, order])
    for name, weights in straight.items():
        np.testing.assert_allclose(shuffled[name], weights[:, order], atol=1e-12, err_msg=name)


def test_bleep_weights_by_hand():
    distances = np.array([[4.0, 1.0, 2.0]])
    expected = np.exp(-(distances - distances[:, :1] + 1))
    expected /= expected.sum()
    np.testing.assert_allclose(bleep_weights(distances, np.array([[0, 1, 2]])), expected)


def test_bleep_weights_survive_huge_distances():
    weights = bleep_weights(np.array([[5e4, 1e3, 1e3]]), np.array([[0, 1, 2]]))
    np.testing.assert_allclose(weights, [[0, 0.5, 0.5]])


def test_inverse_weights_give_everything_to_an_exact_match():
    weights = inverse_weights(np.array([[0.0, 1.0, 0.0, 4.0]]), np.array([[3, 2, 1, 0]]))
    np.testing.assert_allclose(weights, [[0.5, 0, 0.5, 0]])


def test_softmax_gets_sharper_with_a_lower_temperature():
    scores, indices = np.array([[0.9, 0.8]]), np.array([[0, 1]])
    warm = softmax_weights(scores, indices, temperature=1.0)
    cold = softmax_weights(scores, indices, temperature=0.01)
    assert warm[0, 0] < cold[0, 0]
    assert cold[0, 0] > 0.9999


def test_squared_distances_match_a_loop():
    rng = np.random.default_rng(0)
    query, neighbours = rng.normal(size=(3, 4)), rng.normal(size=(3, 5, 4))
    loop = [[((neighbours[i, j] - query[i]) ** 2).sum() for j in range(5)] for i in range(3)]
    np.testing.assert_allclose(squared_distances(query, neighbours), loop)


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="temperature"):
        softmax_weights(np.zeros((1, 1)), np.zeros((1, 1), int), temperature=0)
    with pytest.raises(ShapeError, match="weights"):
        bleep_weights(np.zeros((1, 2)), np.zeros((1, 1), int))
