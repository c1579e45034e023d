import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stretrieve.errors import ShapeError
from stretrieve.indexes import ExactIndex, Metric
from stretrieve.indexes.recall import index_recall_at_k
from stretrieve.indexes.rescore import ExactScorer, order_by_score, search_exactly
from stretrieve.testing.indexes import naive_scores

_FLOATS = st.floats(-4, 4, width=16)


@settings(max_examples=60, deadline=None)
@given(
    vectors=hnp.arrays(np.float32, (23, 3), elements=_FLOATS),
    query=hnp.arrays(np.float32, (2, 3), elements=_FLOATS),
    metric=st.sampled_from(list(Metric)),
    k=st.integers(1, 25),
)
def test_exact_search_is_a_plain_sort(vectors, query, metric, k):
    found = ExactIndex(vectors, metric=metric).search(query, k)
    for row in range(2):
        scores = np.round(naive_scores(query[row].astype(float), vectors.astype(float), metric), 9)
        order = np.lexsort((np.arange(23), -scores))[:k]
        np.testing.assert_allclose(found.scores[row, : len(order)], scores[order], atol=2e-9)
        assert (found.indices[row, len(order) :] == -1).all()


def test_equal_vectors_beyond_the_first_candidates_are_found_in_order():
    """The first candidates are not enough here: the search has to notice and look further."""
    vectors = np.ones((500, 4), dtype=np.float32)
    calls = []

    def last_ones_first(query, width):
        calls.append(width)
        indices = np.tile(np.arange(499, 499 - width, -1), (len(query), 1))
        return indices, np.ones((len(query), width), dtype=np.float32)

    scorer = ExactScorer(vectors, Metric.COSINE)
    found = search_exactly(scorer, vectors[:2], 5, last_ones_first, n_allowed=500)
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(5), (2, 1)))
    assert calls[0] == 13
    assert calls[-1] == 500


def test_clear_neighbours_need_one_pass():
    vectors = np.eye(40, dtype=np.float32) + np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    index = ExactIndex(vectors, metric=Metric.DOT)
    calls = []

    def candidates(query, width):
        calls.append(width)
        result = index.search(query, width)
        return result.indices, result.scores.astype(np.float32)

    search_exactly(index.scorer, vectors[:3], 4, candidates, n_allowed=40)
    assert calls == [12]


def test_order_breaks_ties_by_position_and_puts_none_last():
    result = order_by_score(np.array([[9, 3, -1, 5]]), np.array([[0.5, 0.5, -np.inf, 0.9]]), 5)
    np.testing.assert_array_equal(result.indices, [[5, 3, 9, -1, -1]])
    np.testing.assert_array_equal(result.scores, [[0.9, 0.5, 0.5, -np.inf, -np.inf]])


def test_vectors_have_to_be_float32():
    with pytest.raises(ShapeError, match="float32"):
        ExactIndex(np.zeros((3, 2)), metric=Metric.DOT)


def test_recall_counts_ties_as_found():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    truth = ExactIndex(vectors, metric=Metric.COSINE).search(vectors[:1], 1)
    other = type(truth)(np.array([[1]]), np.array([[1.0]]))
    wrong = type(truth)(np.array([[2]]), np.array([[0.0]]))
    assert index_recall_at_k(other, truth) == 1.0
    assert index_recall_at_k(wrong, truth) == 0.0
