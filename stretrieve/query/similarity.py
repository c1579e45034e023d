"""How a patch is compared with measured spots: by one embedding of theirs, or by both at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.indexes import ExactIndex, Metric, SearchResult
from stretrieve.indexes.base import Vectors
from stretrieve.indexes.exact import rough_search
from stretrieve.indexes.rescore import (
    DECIMALS,
    ExactScorer,
    inverse,
    order_by_score,
    search_exactly,
)
from stretrieve.query.pool import Mask, Pool
from stretrieve.query.settings import Balance, Modality, RetrievalSettings, Similarity

_CANDIDATES = 4

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class FusedScorer(ExactScorer):
    """Scores ``a · cos(query, expression) + (1 − a) · cos(query, image)`` in float64.

    Parameters
    ----------
    pool
        The spots.
    weight
        ``a``, 0 to 1.

    Notes
    -----
    The score is the inner product of the normalised query with the weighted sum of both normalised
    embeddings, which are the vectors of this scorer: float32 candidates come from them, exact scores
    from the stored embeddings.
    """

    def __init__(self, pool: Pool, weight: float) -> None:
        self._sides = tuple(
            (share, ExactScorer(pool.embeddings(modality.value), Metric.COSINE))
            for share, modality in ((weight, Modality.EXPRESSION), (1 - weight, Modality.IMAGE))
        )
        self.metric = Metric.DOT

    @cached_property
    def vectors(self) -> Vectors:  # type: ignore[override]  # made when a search first needs them
        """``(n_spots, dim)`` weighted sums of the normalised embeddings."""
        return np.asarray(
            sum(
                np.float32(share) * side.vectors * side.inverse_norms[:, None]
                for share, side in self._sides
            ),
            dtype=np.float32,
        )

    def scores(self, query: Vectors, indices: Indices) -> Scores:
        """Return exact scores ``(n_query, n_candidates)``; −inf where the index is −1."""
        parts = [share * side.scores(query, indices) for share, side in self._sides if share]
        return np.round(sum(parts[1:], parts[0]), DECIMALS) + 0.0


class FusedSearch:
    """Exact search by the fused score.

    Candidates come from the indexes of both embeddings. A spot that is in neither list scores at most
    the weighted sum of the lists' last scores, so the answer is proven wherever the k-th fused score is
    above that; other queries are searched over all spots.

    Parameters
    ----------
    pool
        The spots.
    weight
        Weight of the expression similarity, 0 to 1.
    """

    def __init__(self, pool: Pool, weight: float) -> None:
        self._pool = pool
        self._weight = weight
        self.scorer = FusedScorer(pool, weight)

    def search(self, query: Vectors, k: int, *, allowed: Mask) -> SearchResult:
        """Return the ``k`` best spots ``(n_query, k)``, ties in the order of positions."""
        n_allowed = int(allowed.sum())
        width = min(n_allowed, _CANDIDATES * k)
        sides = [
            self._pool.search(query, max(width, 1), modality=modality.value, allowed=allowed)
            for modality in (Modality.EXPRESSION, Modality.IMAGE)
        ]
        candidates = _distinct(np.hstack([side.indices for side in sides]))
        result = order_by_score(candidates, self.scorer.scores(query, candidates), k)
        if width == n_allowed:
            return result
        weights = (self._weight, 1 - self._weight)
        bound = sum(w * s.scores[:, -1] for w, s in zip(weights, sides, strict=True))
        unproven = np.flatnonzero(result.scores[:, -1] <= bound + 10.0**-DECIMALS)
        if len(unproven):
            rest = self._search_all(query[unproven], k, allowed, n_allowed)
            result.indices[unproven], result.scores[unproven] = rest.indices, rest.scores
        return result

    def _search_all(self, query: Vectors, k: int, allowed: Mask, n_allowed: int) -> SearchResult:
        wide = query.astype(np.float64)
        norms = np.sqrt(np.einsum("qd,qd->q", wide, wide))
        unit = np.ascontiguousarray(wide * inverse(norms)[:, None], dtype=np.float32)

        def candidates(part: Vectors, width: int) -> tuple[Indices, npt.NDArray[np.float32]]:
            return rough_search(self.scorer, part, width, mask=allowed)

        return search_exactly(self.scorer, unit, k, candidates, n_allowed=n_allowed)


def _distinct(candidates: Indices) -> Indices:
    """Return each row sorted, with repeats replaced by −1."""
    ordered = np.sort(candidates, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    return ordered


class SpotSearch:
    """The search that some settings ask for.

    Parameters
    ----------
    pool
        The spots.
    settings
        Similarity, modality, fusion weight and balance are used.
    """

    def __init__(self, pool: Pool, settings: RetrievalSettings) -> None:
        self._pool = pool
        self._settings = settings

    @cached_property
    def _patients(self) -> npt.NDArray[np.int64]:
        """``(n_spots,)`` number of each spot's patient."""
        names = self._pool.spots[keys.PATIENT].to_numpy(dtype=object).astype(np.str_)
        return np.unique(names, return_inverse=True)[1].ravel()

    @cached_property
    def _fused(self) -> FusedSearch:
        return FusedSearch(self._pool, self._settings.fusion)

    @cached_property
    def _dot(self) -> ExactIndex:
        vectors = self._pool.embeddings(self._settings.modality.value)
        return ExactIndex(vectors, metric=Metric.DOT)

    @cached_property
    def scorer(self) -> ExactScorer:
        """Exact scores of given pairs."""
        if self._settings.modality is Modality.FUSED:
            return self._fused.scorer
        if self._settings.similarity is Similarity.DOT:
            return self._dot.scorer
        return ExactScorer(self._pool.embeddings(self._settings.modality.value), Metric.COSINE)

    def search(self, query: Vectors, *, allowed: Mask) -> SearchResult:
        """Return the neighbours that shall be weighted, best first, −1 for none."""
        settings = self._settings
        if settings.balance is Balance.NONE:
            return self._plain(query, settings.top_k, allowed)
        names = np.unique(self._patients[allowed])
        quota = settings.quota(len(names))
        found = [self._plain(query, quota, allowed & (self._patients == name)) for name in names]
        return order_by_score(
            np.hstack([part.indices for part in found]),
            np.hstack([part.scores for part in found]),
            settings.top_k if settings.balance is Balance.CAP else quota * len(names),
        )

    def _plain(self, query: Vectors, k: int, allowed: Mask) -> SearchResult:
        settings = self._settings
        if settings.modality is Modality.FUSED:
            return self._fused.search(query, k, allowed=allowed)
        if settings.similarity is Similarity.DOT:
            return self._dot.search(query, k, allowed=allowed)
        return self._pool.search(query, k, modality=settings.modality.value, allowed=allowed)
