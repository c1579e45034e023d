"""Spatial graphs: neighbours by brute force, ties, symmetry, normalisation, degenerate sections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.spots.graph import (
    GraphSettings,
    drop_long_edges,
    knn_graph,
    normalise,
    radius_graph,
    symmetrise,
)


def lattice(nx: int, ny: int, *, pitch: float = 100.0) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(nx), np.arange(ny)), axis=-1).reshape(-1, 2) * pitch


@given(n=st.integers(0, 40), k=st.integers(1, 9), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_knn_equals_brute_force(n: int, k: int, seed: int) -> None:
    xy = np.random.default_rng(seed).uniform(0, 100, (n, 2))
    graph = knn_graph(xy, n_neighbors=k).toarray()
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    expected = np.zeros((n, n), dtype=np.float32)
    for i in range(n):
        expected[i, np.argsort(distances[i])[: k + 1]] = 1
    np.testing.assert_array_equal(graph, expected)


@given(n=st.integers(0, 40), radius=st.floats(1, 80), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_radius_equals_brute_force(n: int, radius: float, seed: int) -> None:
    xy = np.random.default_rng(seed).uniform(0, 100, (n, 2))
    graph = radius_graph(xy, radius=radius).toarray()
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.testing.assert_array_equal(graph, (distances <= radius).astype(np.float32))


def test_ties_on_a_square_grid_count_alike() -> None:
    xy = lattice(5, 5)
    graph = knn_graph(xy, n_neighbors=6, tie_tolerance=0.05)
    centre = graph[12].toarray().ravel().reshape(5, 5)
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 1
    np.testing.assert_array_equal(centre, expected)
    order = np.random.default_rng(0).permutation(25)
    moved = knn_graph(xy[order], n_neighbors=6, tie_tolerance=0.05).toarray()
    np.testing.assert_array_equal(moved, graph.toarray()[np.ix_(order, order)])
    assert (np.diff(knn_graph(xy, n_neighbors=6).indptr) == 7).all()


def test_a_hexagonal_grid_has_six_neighbours() -> None:
    xy = lattice(9, 9).astype(float)
    xy[:, 0] += (xy[:, 1] / 100 % 2) * 50
    xy[:, 1] *= np.sqrt(3) / 2
    xy += np.random.default_rng(0).uniform(-1, 1, xy.shape)
    graph = GraphSettings(normalised=False).build(xy)
    inner = [i * 9 + j for i in range(3, 6) for j in range(3, 6)]
    assert (np.diff(graph.indptr)[inner] == 7).all()


def test_published_form_is_directed_and_binary() -> None:
    xy = np.array([[0.0, 0], [1, 0], [2, 0], [10, 0]])
    graph = GraphSettings.published(n_neighbors=1).build(xy).toarray()
    assert graph[3, 2] == 1
    assert graph[2, 3] == 0
    assert set(np.unique(graph)) == {0.0, 1.0}
    assert (np.diag(graph) == 1).all()


def test_corrected_form_is_symmetric_and_normalised() -> None:
    xy = np.random.default_rng(0).uniform(0, 100, (40, 2))
    graph = GraphSettings().build(xy).toarray()
    np.testing.assert_allclose(graph, graph.T, atol=1e-7)
    binary = (graph > 0).astype(float)
    degree = binary.sum(axis=1)
    np.testing.assert_allclose(graph, binary / np.sqrt(np.outer(degree, degree)), rtol=1e-6)
    assert np.linalg.eigvalsh(graph).max() == pytest.approx(1, abs=1e-5)


def test_a_spot_may_weigh_more_than_its_neighbours() -> None:
    xy = np.random.default_rng(0).uniform(0, 100, (20, 2))
    plain = GraphSettings(normalised=False).build(xy).toarray()
    heavy = GraphSettings(normalised=False, self_weight=16.0).build(xy).toarray()
    np.testing.assert_array_equal(heavy - plain, 15 * np.eye(20))
    degree = heavy.sum(axis=1)
    scaled = GraphSettings(self_weight=16.0).build(xy).toarray()
    np.testing.assert_allclose(scaled, heavy / np.sqrt(np.outer(degree, degree)), rtol=1e-6)


def test_long_edges_are_dropped() -> None:
    xy = np.array([[0.0, 0], [1, 0], [50, 0]])
    graph = drop_long_edges(knn_graph(xy, n_neighbors=1), xy, longest=10)
    np.testing.assert_array_equal(graph.toarray(), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    built = GraphSettings(n_neighbors=1, longest_um=10, normalised=False).build(xy)
    np.testing.assert_array_equal(built.toarray(), graph.toarray())


def test_symmetrise_keeps_either_direction() -> None:
    graph = knn_graph(np.array([[0.0, 0], [1, 0], [3, 0]]), n_neighbors=1)
    np.testing.assert_array_equal(symmetrise(graph).toarray(), [[1, 1, 0], [1, 1, 1], [0, 1, 1]])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_sections(n: int) -> None:
    xy = np.arange(2.0 * n).reshape(n, 2)
    for form in (GraphSettings(), GraphSettings.published(), GraphSettings(radius_um=5.0)):
        graph = form.build(xy)
        assert graph.shape == (n, n)
        assert np.isfinite(graph.data).all()


def test_spots_on_top_of_each_other() -> None:
    graph = GraphSettings().build(np.zeros((30, 2)))
    assert np.isfinite(graph.data).all()
    assert (graph.diagonal() > 0).all()
    assert (np.diff(knn_graph(np.zeros((30, 2)), n_neighbors=3).indptr) == 4).all()


def test_memory_grows_with_edges_not_pairs() -> None:
    graph = GraphSettings().build(lattice(200, 200))
    assert graph.nnz <= 40_000 * 13


def test_isolated_spot_stays_zero() -> None:
    graph = knn_graph(np.array([[0.0, 0]]), self_loops=False)
    assert normalise(graph).nnz == 0


def test_faulty_input_is_refused() -> None:
    with pytest.raises(ShapeError):
        knn_graph(np.zeros((3, 3)))
    with pytest.raises(ShapeError):
        radius_graph(np.array([[np.nan, 0]]), radius=1)
    with pytest.raises(ConfigError):
        knn_graph(np.zeros((3, 2)), n_neighbors=0)
    with pytest.raises(ConfigError):
        radius_graph(np.zeros((3, 2)), radius=0)
    with pytest.raises(ConfigError):
        GraphSettings(longest_um=-1)
