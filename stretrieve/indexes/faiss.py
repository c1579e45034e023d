"""FAISS indexes that return true similarities and distances in one order.

FAISS proposes candidates; :mod:`stretrieve.indexes.rescore` scores them on the stored vectors. The
lists of an inverted file are chosen by exact scores as well, since a search whose lists depend on the
batch it is part of cannot be repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path, sha256_file
from stretrieve.errors import ChecksumError, ConfigError, explain
from stretrieve.indexes.base import Metric, SearchResult, VectorIndex, Vectors
from stretrieve.indexes.exact import ExactIndex, Rough, check_allowed, check_k, rough_search
from stretrieve.indexes.recipes import IndexKind, Recipe
from stretrieve.indexes.rescore import ExactScorer, order_by_score, search_exactly
from stretrieve.indexes.train import train_index

FLAT_PASS_ROWS = 200_000
NARROW = 0.1
_GPU_MAX_K = 2048


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
        self.scorer = scorer
        self.recipe = recipe
        self._index = index
        self._device = on_gpus(index, recipe)
        self._centroids: ExactScorer | None = None
        if recipe.kind.is_inverted:
            centroids = index.quantizer.reconstruct_n(0, index.nlist)
            coarse = Metric.DOT if scorer.metric is not Metric.EUCLIDEAN else Metric.EUCLIDEAN
            self._centroids = ExactScorer(np.asarray(centroids, dtype=np.float32), coarse)

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

        A narrow filter takes a flat pass over the allowed vectors, which is exact; a wide one is
        handed to FAISS as an id selector.
        """
        query = self.scorer.check_query(query)
        check_k(k)
        mask = check_allowed(allowed, len(self))
        n_allowed = len(self) if mask is None else int(mask.sum())
        if not len(query) or not n_allowed:
            return search_exactly(self.scorer, query, k, self._propose(mask), n_allowed=0)
        if mask is not None and self._narrow(n_allowed):
            flat = _flat_pass(self.scorer, mask)
            return search_exactly(self.scorer, query, k, flat, n_allowed=n_allowed)
        if self.recipe.kind in (IndexKind.FLAT, IndexKind.IVF_FLAT):
            return search_exactly(self.scorer, query, k, self._propose(mask), n_allowed=n_allowed)
        width = min(n_allowed, k * self.recipe.refine)
        indices, _ = self._propose(mask)(query, width)
        return order_by_score(indices, self.scorer.scores(query, indices), k)

    def save(self, path: Path) -> str:
        """Write the FAISS index to a file and return the file's SHA-256."""
        import faiss

        with atomic_path(path) as temporary:
            faiss.write_index(self._index, str(temporary))
        return sha256_file(path)

    def _narrow(self, n_allowed: int) -> bool:
        if self.recipe.kind is IndexKind.FLAT:
            return self._device is not None or n_allowed < NARROW * len(self)
        return n_allowed <= max(FLAT_PASS_ROWS, NARROW * len(self))

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
        selector = selector_for(mask)
        if self._centroids is None:
            if self.recipe.kind is IndexKind.HNSW:
                breadth = max(self.recipe.ef_search, width)
                params = faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)
            else:
                params = None if selector is None else faiss.SearchParameters(sel=selector)
            found = index.search(query, width, params=params)
        else:
            lists, values = self._coarse(query)
            params = faiss.SearchParametersIVF(sel=selector, nprobe=lists.shape[1])
            found = _search_lists(index, query, width, lists, values, params)
        return found[0], found[1]

    def _coarse(self, query: Vectors) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the lists to look at ``(n_query, nprobe)`` and FAISS's score of each."""
        import faiss

        scorer = self._centroids
        if scorer is None:
            raise ConfigError(explain("inverted lists", got=f"an index of kind {self.recipe.kind}"))
        euclidean = scorer.metric is Metric.EUCLIDEAN
        metric = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT

        def nearest(part: Vectors, width: int) -> Rough:
            values, lists = faiss.knn(part, scorer.vectors, width, metric=metric)
            return lists, true_scores(values, scorer.metric)

        n_lists = len(scorer.vectors)
        nprobe = min(self.recipe.nprobe, n_lists)
        found = search_exactly(scorer, query, nprobe, nearest, n_allowed=n_lists)
        values = found.scores**2 if euclidean else found.scores
        return found.indices, values.astype(np.float32)


def _search_lists(
    index: Any,
    query: Vectors,
    width: int,
    lists: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    params: Any,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Search given inverted lists; FAISS's own Python wrapper takes no selector here."""
    import faiss

    found = np.empty((len(query), width), dtype=np.float32)
    labels = np.empty((len(query), width), dtype=np.int64)
    lists = np.ascontiguousarray(lists, dtype=np.int64)
    arrays = [faiss.swig_ptr(a) for a in (lists, values, found, labels)]
    store_pairs = False
    index.search_preassigned_c(
        len(query), faiss.swig_ptr(query), width, *arrays, store_pairs, params
    )
    return found, labels


def _flat_pass(scorer: ExactScorer, mask: npt.NDArray[np.bool_]) -> Any:
    def candidates(query: Vectors, width: int) -> Rough:
        return rough_search(scorer, query, width, mask=mask)

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
    flags = faiss.IO_FLAG_MMAP if recipe.memory_mapped else 0
    index = faiss.read_index(str(path), flags)
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
