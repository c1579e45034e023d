"""FAISS indexes that return true similarities and distances in one order.

FAISS proposes candidates; :mod:`stretrieve.indexes.rescore` scores them on the stored vectors. Which
inverted lists are looked at, in which order and with which score, does not depend on the batch either
(:mod:`stretrieve.indexes.coarse`), since a search that depends on it cannot be repeated.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path, sha256_file
from stretrieve.errors import ChecksumError, explain
from stretrieve.indexes.base import Metric, SearchResult, VectorIndex, Vectors
from stretrieve.indexes.coarse import CoarseSearch
from stretrieve.indexes.exact import ExactIndex, Rough, blocks, check_allowed, check_k, rough_search
from stretrieve.indexes.int8 import RoundedBlocks, pays, search_from_int8
from stretrieve.indexes.recipes import IndexKind, Recipe
from stretrieve.indexes.rescore import (
    Candidates,
    ExactScorer,
    for_parts,
    order_by_score,
    search_exactly,
)
from stretrieve.indexes.stream import can_stream, write_index_file
from stretrieve.indexes.train import faiss_metric, train_index

NARROW = 0.1
_GPU_MAX_K = 2048
_QUERIES_PER_THREAD = 8
_PASS_ROWS = 16_384
_MATRIX_PRODUCT_FROM = 2048


class FaissIndex(VectorIndex):
    """A FAISS index together with the stored vectors.

    Parameters
    ----------
    scorer
        The stored vectors and their metric.
    index
        The FAISS index over them.
    recipe
        Settings it was built with.
    """

    def __init__(self, scorer: ExactScorer, index: Any, recipe: Recipe) -> None:
        prefer_matrix_products()
        self.scorer = scorer
        self.recipe = recipe
        self._index = index
        self._device = on_gpus(index, recipe)
        self._coarse: CoarseSearch | None = None
        self._rounded: RoundedBlocks | None = None
        if recipe.kind.is_inverted:
            centroids = index.quantizer.reconstruct_n(0, index.nlist)
            self._coarse = CoarseSearch(
                centroids, scorer.metric, recipe.nprobe, coded=recipe.kind is not IndexKind.IVF_FLAT
            )

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""
        return self.scorer.metric

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.scorer.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.scorer.vectors)

    def search(
        self, query: Vectors, k: int, *, allowed: npt.NDArray[np.bool_] | None = None
    ) -> SearchResult:
        """Return the ``k`` best vectors for each query; see :meth:`VectorIndex.search`.

        With a filter the result is that of an exact search among the allowed vectors: a flat index
        takes a wide filter as an id selector; everything else is a flat pass over what is allowed.
        """
        query = self.scorer.check_query(query)
        check_k(k)
        mask = check_allowed(allowed, len(self))
        n_allowed = len(self) if mask is None else int(mask.sum())
        if not len(query) or not n_allowed:
            return search_exactly(self.scorer, query, k, self._propose(mask), n_allowed=0)
        if mask is not None and not self._takes_selector(n_allowed):
            flat = _flat_pass(self.scorer, mask)
            return search_exactly(self.scorer, query, k, flat, n_allowed=n_allowed)
        if self._coarse is not None and self._device is None:
            return self._search_in_parts(query, k)
        return self._search_index(query, k, mask)

    def _search_in_parts(self, query: Vectors, k: int) -> SearchResult:
        """Search inverted lists, each thread a part of the queries from the lists to the scores."""
        import faiss

        indices = np.empty((len(query), k), dtype=np.int64)
        scores = np.empty((len(query), k))

        def search(part: slice) -> None:
            found = self._search_index(query[part], k, None)
            indices[part], scores[part] = found.indices, found.scores

        if self.metric is Metric.COSINE:
            len(self.scorer.inverse_norms)  # computed once, before several threads ask for it
        start = functools.partial(faiss.omp_set_num_threads, 1)
        for_parts(search, len(query), least=_QUERIES_PER_THREAD, start=start)
        return SearchResult(indices, scores)

    def _search_index(
        self, query: Vectors, k: int, mask: npt.NDArray[np.bool_] | None
    ) -> SearchResult:
        n_allowed = len(self) if mask is None else int(mask.sum())
        propose = self._propose(mask)
        if self._starts_in_int8(len(query), k, n_allowed):
            return search_from_int8(self._round(mask), query, k, propose, n_allowed=n_allowed)
        if self.recipe.kind in (IndexKind.FLAT, IndexKind.IVF_FLAT):
            return search_exactly(self.scorer, query, k, propose, n_allowed=n_allowed)
        return self._search_proposed(query, k)

    def _round(self, mask: npt.NDArray[np.bool_] | None) -> RoundedBlocks:
        """Return the allowed vectors for 8-bit products, those of the search before where they do."""
        rounded = self._rounded
        if rounded is None or not rounded.allows(mask):
            self._rounded = rounded = RoundedBlocks(self.scorer, mask)
        return rounded

    def _search_proposed(self, query: Vectors, k: int) -> SearchResult:
        """Return the best of ``k * refine`` candidates that a graph or compressed codes propose."""
        width = min(len(self), math.ceil(k * self.recipe.refine))
        indices, _ = self._propose(None)(query, width)
        return order_by_score(indices, self.scorer.scores(query, indices), k)

    def save(self, path: Path) -> str:
        """Write the FAISS index to a file and return the file's SHA-256."""
        import faiss

        with atomic_path(path) as temporary:
            faiss.write_index(self._index, str(temporary))
        return sha256_file(path)

    def _takes_selector(self, n_allowed: int) -> bool:
        wide = n_allowed >= NARROW * len(self)
        return self.recipe.kind is IndexKind.FLAT and self._device is None and wide

    def _starts_in_int8(self, n_query: int, k: int, n_allowed: int) -> bool:
        flat = self.recipe.kind is IndexKind.FLAT and self._device is None
        return flat and pays(self.scorer, n_query, k, n_allowed)

    def _propose(self, mask: npt.NDArray[np.bool_] | None) -> Any:
        def propose(query: Vectors, width: int) -> Rough:
            if self._device is not None and width > _GPU_MAX_K:
                return rough_search(self.scorer, query, width, mask=mask)
            values, indices = self._run(self.scorer.for_search(query), width, mask)
            return indices, true_scores(values, self.metric)

        return propose

    def _run(
        self, query: Vectors, width: int, mask: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        import faiss

        index = self._device if self._device is not None else self._index
        if self._coarse is not None:
            lists, values = self._coarse.lists(query)
            return _search_lists(index, query, width, lists, values)
        if self.recipe.kind is IndexKind.HNSW:
            breadth = max(self.recipe.ef_search, width)
            found = index.search(query, width, params=faiss.SearchParametersHNSW(efSearch=breadth))
        elif mask is None:
            found = index.search(query, width)
        else:
            params = faiss.SearchParameters(sel=selector_for(mask))
            found = index.search(query, width, params=params)
        return found[0], found[1]


def _search_lists(
    index: Any,
    query: Vectors,
    width: int,
    lists: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Search given inverted lists, which FAISS does in one thread when asked as it is here."""
    import faiss

    found = np.empty((len(query), width), dtype=np.float32)
    labels = np.empty((len(query), width), dtype=np.int64)
    lists = np.ascontiguousarray(lists, dtype=np.int64)
    params = faiss.SearchParametersIVF(nprobe=lists.shape[1])
    store_pairs = False

    pointers = [faiss.swig_ptr(a) for a in (query, lists, values, found, labels)]
    index.search_preassigned_c(len(query), pointers[0], width, *pointers[1:], store_pairs, params)
    return found, labels


def _flat_pass(scorer: ExactScorer, mask: npt.NDArray[np.bool_]) -> Candidates:
    """Return the search that looks at every allowed vector, block by block."""

    def candidates(query: Vectors, width: int) -> Rough:
        import faiss

        kind = faiss_metric(scorer.metric)
        ready = scorer.for_search(query)
        indices = np.empty((len(query), 0), dtype=np.int64)
        scores = np.empty((len(query), 0), dtype=np.float32)
        for block, positions in blocks(scorer.vectors, mask, rows=_PASS_ROWS):
            if scorer.metric is Metric.COSINE:
                block = block * scorer.inverse_norms[positions][:, None]  # noqa: PLW2901
            values, found = faiss.knn(ready, block, min(width, len(block)), metric=kind)
            scores = np.hstack([scores, true_scores(values, scorer.metric)])
            indices = np.hstack([indices, positions[found]])
            order = np.argsort(-scores, axis=1)[:, :width]
            scores = np.take_along_axis(scores, order, axis=1)
            indices = np.take_along_axis(indices, order, axis=1)
        return indices, scores

    return candidates


def true_scores(values: npt.NDArray[np.float32], metric: Metric) -> npt.NDArray[np.float32]:
    """Turn what FAISS returns into scores: its L2 is squared and ascending."""
    if metric is not Metric.EUCLIDEAN:
        return values
    return -np.sqrt(np.maximum(values, 0))


def selector_for(mask: npt.NDArray[np.bool_] | None) -> Any:
    """Return a FAISS id selector of the allowed vectors; ``None`` for all."""
    if mask is None:
        return None
    import faiss

    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def prefer_matrix_products() -> None:
    """Have FAISS compare even small batches with every vector by a matrix product, in this process.

    By itself it takes one query at a time below 128,000 numbers (500 queries of 256), which reads all
    vectors for each: up to eight times slower. A single query is left as it is.
    """
    import faiss

    faiss.cvar.distance_compute_blas_threshold = _MATRIX_PRODUCT_FROM


def on_gpus(index: Any, recipe: Recipe) -> Any:
    """Return the index on every GPU at hand, sharded over several; ``None`` for the CPU."""
    import faiss

    n_gpus = faiss.get_num_gpus()
    if not n_gpus or recipe.kind is IndexKind.HNSW or recipe.memory_mapped:
        return None
    if n_gpus == 1:
        resources = faiss.StandardGpuResources()
        moved = faiss.index_cpu_to_gpu(resources, 0, index)
        moved.stretrieve_resources = resources
        return moved
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_all_gpus(index, co=options)


def build_index(vectors: Vectors, recipe: Recipe, *, metric: Metric) -> VectorIndex:
    """Build the index that a recipe describes.

    Parameters
    ----------
    vectors
        ``(n_vectors, dim)`` float32.
    recipe
        Settings.
    metric
        How vectors are compared.
    """
    if recipe.kind is IndexKind.EXACT:
        return ExactIndex(vectors, metric=metric)
    scorer = ExactScorer(vectors, metric)
    return FaissIndex(scorer, train_index(scorer, recipe), recipe)


def make_index(
    path: Path, vectors: Vectors, recipe: Recipe, *, metric: Metric
) -> tuple[VectorIndex, str]:
    """Build the index that a recipe describes and write it to a file.

    Parameters
    ----------
    path
        The new file; none is written for the recipe ``exact``.
    vectors
        ``(n_vectors, dim)`` float32; not held in memory where the recipe allows that.
    recipe
        Settings.
    metric
        How vectors are compared.

    Returns
    -------
    tuple
        The index, and the SHA-256 of its file (empty without one).
    """
    if can_stream(recipe):
        sha256 = write_index_file(path, ExactScorer(vectors, metric), recipe)
        return read_index(path, vectors, recipe, metric=metric, sha256=sha256), sha256
    index = build_index(vectors, recipe, metric=metric)
    return index, index.save(path) if isinstance(index, FaissIndex) else ""


def _read_flags(recipe: Recipe) -> int:
    """Return how FAISS reads the file: what can be memory-mapped is."""
    import faiss

    mapped: int = faiss.IO_FLAG_MMAP
    mapped_flat: int = faiss.IO_FLAG_MMAP_IFC
    if recipe.memory_mapped:
        return mapped
    return mapped_flat if recipe.kind is IndexKind.FLAT else 0


def read_index(
    path: Path, vectors: Vectors, recipe: Recipe, *, metric: Metric, sha256: str
) -> FaissIndex:
    """Read an index file, but only after its checksum: FAISS loads damaged files without a word.

    Parameters
    ----------
    path
        File written by :meth:`FaissIndex.save`.
    vectors
        ``(n_vectors, dim)`` the stored vectors.
    recipe
        Settings it was built with.
    metric
        How vectors are compared.
    sha256
        What the file's SHA-256 has to be.

    Raises
    ------
    ChecksumError
        When the file is not what was written, or is of another size than the vectors.
    """
    import faiss

    if sha256_file(path) != sha256:
        raise ChecksumError(
            explain(
                f"index file {path.name}",
                got="a file that fails its checksum",
                remedy="run `stretrieve ref rebuild-indexes`",
            )
        )
    index = faiss.read_index(str(path), _read_flags(recipe))
    if (index.ntotal, index.d) != vectors.shape:
        raise ChecksumError(
            explain(
                f"index file {path.name}",
                got=f"{index.ntotal} vectors of {index.d}",
                expected=f"{vectors.shape[0]} of {vectors.shape[1]}",
                remedy="run `stretrieve ref rebuild-indexes`",
            )
        )
    return FaissIndex(ExactScorer(vectors, metric), index, recipe)
