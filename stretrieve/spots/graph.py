"""Which spots of a section lie next to which: sparse graphs from positions.

All functions return an ``(n, n)`` CSR matrix of float32 whose row *i* holds the spots that spot *i*
gathers from. Memory grows with the number of edges, never with ``n²``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import cKDTree

from stretrieve.errors import ConfigError, ShapeError, explain

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_MAX_TIES = 3
"""Ties may add up to this many times ``n_neighbors`` further neighbours."""


def knn_graph(
    xy: Floats, *, n_neighbors: int = 6, tie_tolerance: float = 0.0, self_loops: bool = True
) -> sparse.csr_matrix:
    """Return the directed, binary graph of nearest neighbours.

    Parameters
    ----------
    xy
        ``(n, 2)`` positions.
    n_neighbors
        Neighbours of each spot beside itself; all others where there are fewer.
    tie_tolerance
        Neighbours up to this share farther than the last one are taken as well (at most three times
        ``n_neighbors`` more). On a square grid the sixth neighbour is one of four equally near
        diagonals; with a tolerance of a few per cent all of them count and the order of spots does
        not matter. 0 takes exactly ``n_neighbors``.
    self_loops
        Whether a spot is its own neighbour.

    Raises
    ------
    ShapeError
        When ``xy`` is not ``(n, 2)``.
    """
    _check_positions(xy)
    if n_neighbors < 1 or tie_tolerance < 0:
        got = f"{n_neighbors} and {tie_tolerance}"
        raise ConfigError(
            explain("n_neighbors and tie_tolerance", got=got, expected="1 or more and 0 or more")
        )
    n = len(xy)
    k = min(n_neighbors, n - 1)
    if k < 1:
        return _from_edges(np.empty((0, 2), np.int64), n, self_loops=self_loops)
    distances, indices = _nearest(xy, min(k * (1 + _MAX_TIES) if tie_tolerance else k, n - 1))
    limit = distances[:, k - 1 : k] * (1 + tie_tolerance)
    kept = distances <= limit
    rows, columns = np.nonzero(kept)
    edges = np.stack([rows, indices[rows, columns]], axis=1)
    return _from_edges(edges, n, self_loops=self_loops)


def radius_graph(xy: Floats, *, radius: float, self_loops: bool = True) -> sparse.csr_matrix:
    """Return the symmetric, binary graph of all pairs within a distance.

    Parameters
    ----------
    xy
        ``(n, 2)`` positions.
    radius
        Largest distance, in the unit of ``xy``, itself included.
    self_loops
        Whether a spot is its own neighbour.

    Raises
    ------
    ShapeError
        When ``xy`` is not ``(n, 2)``.
    """
    _check_positions(xy)
    if not radius > 0:
        raise ConfigError(explain("graph radius", got=radius, expected="a number above 0"))
    pairs = cKDTree(xy).query_pairs(radius, output_type="ndarray") if len(xy) else np.empty((0, 2))
    pairs = pairs.astype(np.int64)
    edges = np.concatenate([pairs, pairs[:, ::-1]])
    return _from_edges(edges, len(xy), self_loops=self_loops)


def drop_long_edges(graph: sparse.csr_matrix, xy: Floats, *, longest: float) -> sparse.csr_matrix:
    """Return a graph without the edges longer than ``longest`` (in the unit of ``xy``)."""
    edges = graph.tocoo()
    length = np.linalg.norm(xy[edges.row] - xy[edges.col], axis=1)
    kept = length <= longest
    return sparse.csr_matrix(
        (edges.data[kept], (edges.row[kept], edges.col[kept])), shape=graph.shape
    )


def symmetrise(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the graph with every edge in both directions (the larger weight of the two)."""
    return sparse.csr_matrix(graph.maximum(graph.T))


def normalise(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return ``D^(-1/2) A D^(-1/2)`` with ``D`` the row sums; a spot without edges stays 0."""
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    left = sparse.diags(scale)
    return sparse.csr_matrix(left @ graph @ left, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a section's or a slide's graph is made.

    Parameters
    ----------
    n_neighbors
        Nearest neighbours of each spot; not used with a radius.
    radius_um
        Connect all spots within this many microns instead; 0 for nearest neighbours.
    longest_um
        Drop nearest-neighbour edges longer than this; 0 keeps all.
    tie_tolerance
        See :func:`knn_graph`.
    symmetric
        Every edge in both directions.
    normalised
        Scale by both degrees, so that rim and centre of a tissue look alike.
    self_weight
        Weight of a spot's edge to itself beside 1 of every other (before normalisation).
    """

    n_neighbors: int = 6
    radius_um: float = 0.0
    longest_um: float = 0.0
    tie_tolerance: float = 0.05
    symmetric: bool = True
    normalised: bool = True
    self_weight: float = 1.0

    def __post_init__(self) -> None:
        values = (self.radius_um, self.longest_um, self.tie_tolerance, self.self_weight)
        if self.n_neighbors < 1 or min(values) < 0:
            raise ConfigError(
                explain("graph settings", got=self, expected="1 or more neighbours, lengths >= 0")
            )

    @classmethod
    def published(cls, *, n_neighbors: int = 6) -> GraphSettings:
        """Return ST-GCHB's form: directed, binary, exactly ``n_neighbors`` and the spot itself."""
        return cls(n_neighbors=n_neighbors, tie_tolerance=0.0, symmetric=False, normalised=False)

    def build(self, xy_um: Floats) -> sparse.csr_matrix:
        """Return the graph of spots at ``xy_um`` ``(n, 2)`` microns, self-loops included."""
        if self.radius_um > 0:
            graph = radius_graph(xy_um, radius=self.radius_um)
        else:
            graph = knn_graph(xy_um, n_neighbors=self.n_neighbors, tie_tolerance=self.tie_tolerance)
            if self.longest_um > 0:
                graph = drop_long_edges(graph, xy_um, longest=self.longest_um)
        if self.symmetric:
            graph = symmetrise(graph)
        if self.self_weight != 1:
            graph.setdiag(np.float32(self.self_weight))
        return normalise(graph) if self.normalised else graph


def _check_positions(xy: Floats) -> None:
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ShapeError(explain("positions", got=xy.shape, expected="(n_spots, 2)"))
    if not np.isfinite(xy).all():
        raise ShapeError(explain("positions", got="NaN or infinite values", expected="numbers"))


def _nearest(xy: Floats, k: int) -> tuple[Floats, Indices]:
    """Return distances and indices ``(n, k)`` of the nearest others, nearest first."""
    found = cKDTree(xy).query(xy, k=k + 1)
    distances, indices = np.asarray(found[0]), np.asarray(found[1])
    own = indices == np.arange(len(xy))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(xy), k)
    return distances[~own].reshape(shape), indices[~own].reshape(shape).astype(np.int64)


def _from_edges(edges: Indices, n: int, *, self_loops: bool) -> sparse.csr_matrix:
    if self_loops:
        own = np.arange(n, dtype=np.int64)
        edges = np.concatenate([edges, np.stack([own, own], axis=1)])
    ones = np.ones(len(edges), dtype=np.float32)
    graph = sparse.csr_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(n, n))
    graph.sum_duplicates()
    return graph
