"""Retrieval quality against chance."""

from __future__ import annotations

import numpy as np
import pytest

from stretrieve.training import retrieval_quality


def test_perfect_and_worst_retrieval():
    own = np.eye(20, dtype=np.float32)
    best = retrieval_quality(own, own, k=1)
    assert (best.recall, best.chance) == (1.0, 0.05)
    assert best.rank == pytest.approx(1.0, abs=0.51)
    worst = retrieval_quality(own, -own, k=1)
    assert worst.recall == 0.0
    assert worst.rank == 0.0


def test_random_and_constant_embeddings_score_chance():
    generator = np.random.default_rng(0)
    image, expression = generator.normal(size=(2, 2000, 16)).astype(np.float32)
    quality = retrieval_quality(image, expression, k=100)
    assert quality.recall == pytest.approx(quality.chance, abs=0.02)
    assert quality.rank == pytest.approx(0.5, abs=0.02)
    constant = np.ones((100, 4), dtype=np.float32)
    assert retrieval_quality(constant, constant, k=5).recall in (0.0,)
    assert retrieval_quality(constant, constant, k=5).rank == pytest.approx(0.5)


def test_k_stays_below_a_fifth_of_the_section():
    own = np.eye(10, dtype=np.float32)
    assert retrieval_quality(own, own, k=50).chance == 0.2
