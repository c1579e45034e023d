"""Retrieval metrics by hand, by brute force, and at chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from stretrieve.errors import InputError, ShapeError
from stretrieve.metrics import (
    chance_mrr,
    chance_recall,
    label_precision,
    label_recall,
    mean_reciprocal_rank,
    neighbour_overlap,
    paired_ranks,
    recall_at_k,
)

RNG = np.random.default_rng(8)


def test_ranks_agree_with_brute_force() -> None:
    query = RNG.normal(size=(50, 6))
    keys = query + RNG.normal(size=(50, 6))
    scores = (query / np.linalg.norm(query, axis=1, keepdims=True)) @ (
        keys / np.linalg.norm(keys, axis=1, keepdims=True)
    ).T
    rank = np.array([rankdata(-row)[i] for i, row in enumerate(scores)])
    ranks = paired_ranks(query, keys)
    np.testing.assert_array_equal(ranks.better + 1, rank)
    for k in (1, 5, 10):
        assert recall_at_k(ranks, k) == pytest.approx((rank <= k).mean())
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 / rank).mean())


def test_by_hand() -> None:
    # partner of 0 is its best key, of 1 its second best, of 2 its last
    keys = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    query = np.array([[1.0, 0.1], [1.0, 0.9], [1.0, 0.0]])
    ranks = paired_ranks(query, keys)
    np.testing.assert_array_equal(ranks.better, [0, 1, 2])
    assert recall_at_k(ranks, 1) == pytest.approx(1 / 3)
    assert recall_at_k(ranks, 2) == pytest.approx(2 / 3)
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_perfect_and_random_ends() -> None:
    query = RNG.normal(size=(1500, 16))  # more than one chunk
    ranks = paired_ranks(query, query)
    assert recall_at_k(ranks, 1) == mean_reciprocal_rank(ranks) == 1.0
    ranks = paired_ranks(query, RNG.normal(size=(1500, 16)))
    assert recall_at_k(ranks, 150) == pytest.approx(chance_recall(150, 1500), abs=0.03)
    assert mean_reciprocal_rank(ranks) == pytest.approx(chance_mrr(1500), abs=0.01)


def test_collapsed_embeddings_score_chance() -> None:
    ranks = paired_ranks(np.ones((40, 3)), np.ones((40, 3)))
    assert recall_at_k(ranks, 4) == pytest.approx(chance_recall(4, 40))
    assert mean_reciprocal_rank(ranks) == pytest.approx(chance_mrr(40))
    assert chance_mrr(4) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    zero = paired_ranks(np.zeros((40, 3)), np.ones((40, 3)))
    assert recall_at_k(zero, 4) == pytest.approx(0.1)


def test_recall_never_exceeds_one() -> None:
    ranks = paired_ranks(RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2)))
    assert recall_at_k(ranks, 50) == chance_recall(50, 5) == 1.0


def test_labels() -> None:
    neighbours = np.array([[0, 1], [2, -1], [1, 3]])
    query, keys = np.array(["a", "b", "c"]), np.array(["a", "b", "a", "c"])
    # hits: (a yes, b no), (a no, none), (b no, c yes)
    assert label_recall(neighbours, query, keys) == pytest.approx(2 / 3)
    assert label_precision(neighbours, query, keys) == pytest.approx(2 / 6)
    # −1 is "none", not the last key
    assert label_recall(np.array([[-1]]), ["c"], keys) == 0.0
    with pytest.raises(ShapeError, match="below 4"):
        label_recall(np.array([[9]]), ["a"], keys)


def test_overlap() -> None:
    first, second = np.array([[0, 1, 2], [3, 4, -1]]), np.array([[2, 1, 9], [4, 3, -1]])
    assert neighbour_overlap(first, second) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert neighbour_overlap(first[:1], first[:1]) == 1.0
    with pytest.raises(ShapeError):
        neighbour_overlap(first, second[:1])


def test_refusals() -> None:
    with pytest.raises(ShapeError):
        paired_ranks(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(InputError, match="NaN"):
        paired_ranks(np.full((3, 2), np.nan), np.ones((3, 2)))
    with pytest.raises(InputError, match="1 or more"):
        recall_at_k(paired_ranks(np.ones((3, 2)), np.ones((3, 2))), 0)
