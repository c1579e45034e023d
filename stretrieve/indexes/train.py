"""Building FAISS indexes from stored vectors, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stretrieve.errors import ConfigError, explain
from stretrieve.indexes.base import Metric, Vectors
from stretrieve.indexes.recipes import IndexKind, Recipe
from stretrieve.indexes.rescore import ExactScorer

_ADD_ROWS = 16_384
_POINTS_PER_LIST = 128
_LEAST_POINTS_PER_LIST = 39
_LEAST_POINTS_PQ = 256
_TRAIN_ROWS = 131_072
_LISTS_PER_ROOT = 4
_LEAST_NUMBERS_PER_PIECE = 4


def train_index(scorer: ExactScorer, recipe: Recipe) -> Any:
    """Return a FAISS index over all vectors.

    Parameters
    ----------
    scorer
        The stored vectors.
    recipe
        Settings.

    Raises
    ------
    ConfigError
        When there are too few vectors to train the index.
    """
    import faiss

    dim, metric = scorer.vectors.shape[1], faiss_metric(scorer.metric)
    if recipe.kind is IndexKind.FLAT:
        index = faiss.IndexFlat(dim, metric)
    elif recipe.kind is IndexKind.HNSW:
        index = _graph(faiss, dim, metric, recipe)
    else:
        index = train_lists(scorer, recipe)
    threads = faiss.omp_get_max_threads()
    try:
        if recipe.kind is IndexKind.HNSW:
            faiss.omp_set_num_threads(1)
        for block in unit_blocks(scorer):
            index.add(block)
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def faiss_metric(metric: Metric) -> int:
    """Return FAISS's name of a metric; the cosine is the inner product of unit vectors."""
    import faiss

    l2: int = faiss.METRIC_L2
    product: int = faiss.METRIC_INNER_PRODUCT
    return l2 if metric is Metric.EUCLIDEAN else product


def unit_blocks(scorer: ExactScorer) -> Iterator[Vectors]:
    """Yield the stored vectors as they are indexed: of unit length for the cosine."""
    for start in range(0, len(scorer.vectors), _ADD_ROWS):
        yield scorer.for_search(np.ascontiguousarray(scorer.vectors[start : start + _ADD_ROWS]))


def list_count(n_vectors: int, recipe: Recipe) -> int:
    """Return the number of inverted lists for so many vectors."""
    wanted = recipe.n_lists or int(_LISTS_PER_ROOT * np.sqrt(n_vectors))
    return max(1, min(wanted, n_vectors // _LEAST_POINTS_PER_LIST))


def _graph(faiss: Any, dim: int, metric: int, recipe: Recipe) -> Any:
    index = faiss.IndexHNSWFlat(dim, recipe.hnsw_neighbors, metric)
    index.hnsw.efConstruction = recipe.ef_construction
    index.hnsw.efSearch = recipe.ef_search
    return index


def train_lists(scorer: ExactScorer, recipe: Recipe) -> Any:
    """Return an inverted file with trained centroids and codes, and without vectors.

    Raises
    ------
    ConfigError
        When there are too few vectors to train it.
    """
    import faiss

    n, dim = scorer.vectors.shape
    least = _LEAST_POINTS_PQ if recipe.kind is IndexKind.IVF_PQ else _LEAST_POINTS_PER_LIST
    if n < least:
        raise ConfigError(
            explain(
                f"index recipe {recipe.kind}",
                got=f"{n} vectors",
                expected=f"{least} or more",
                remedy="use the recipe 'flat'",
            )
        )
    n_lists = list_count(n, recipe)
    index = faiss.index_factory(
        dim, f"IVF{n_lists},{_code(recipe, dim)}", faiss_metric(scorer.metric)
    )
    index.cp.seed = recipe.seed + 1
    index.cp.spherical = scorer.metric is not Metric.EUCLIDEAN
    index.cp.max_points_per_centroid = _POINTS_PER_LIST
    index.nprobe = min(recipe.nprobe, n_lists)
    most = max(_TRAIN_ROWS, n_lists * _LEAST_POINTS_PER_LIST)
    index.train(_sample(scorer, min(n_lists * _POINTS_PER_LIST, most), seed=recipe.seed))
    return index


def _code(recipe: Recipe, dim: int) -> str:
    if recipe.kind is IndexKind.IVF_FLAT:
        return "Flat"
    if recipe.kind is IndexKind.IVF_SQ:
        return "SQ8"
    most = max(1, min(recipe.pq_bytes, dim // _LEAST_NUMBERS_PER_PIECE))
    pieces = max(m for m in range(1, most + 1) if dim % m == 0)
    return f"PQ{pieces}x8np"


def _sample(scorer: ExactScorer, size: int, *, seed: int) -> Vectors:
    n = len(scorer.vectors)
    if size >= n:
        return np.concatenate(list(unit_blocks(scorer)))
    picked = np.sort(np.random.default_rng(seed).choice(n, size=size, replace=False))
    return scorer.for_search(np.ascontiguousarray(scorer.vectors[picked]))
