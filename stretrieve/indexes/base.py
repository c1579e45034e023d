"""The interface of every vector index, and what a search returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ShapeError, explain

Vectors = npt.NDArray[np.float32]


class Metric(StrEnum):
    """How two vectors are compared; a score is always "higher is nearer"."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    """Score is the negative distance (never squared)."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Neighbours of each query, best first.

    Parameters
    ----------
    indices
        ``(n_query, k)`` positions in the indexed vectors, int64; −1 for "none".
    scores
        ``(n_query, k)`` float64, descending; −inf where the index is −1.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.indices.ndim != 2 or self.indices.shape != self.scores.shape:
            raise ShapeError(
                explain(
                    "search result",
                    got=f"{self.indices.shape} and {self.scores.shape}",
                    expected="two arrays (n_query, k)",
                )
            )

    @property
    def k(self) -> int:
        """Neighbours per query."""
        return int(self.indices.shape[1])


class VectorIndex(ABC):
    """Nearest-neighbour search over fixed vectors."""

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """How vectors are compared."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the vectors."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of indexed vectors."""

    @abstractmethod
    def search(
        self, query: Vectors, k: int, *, allowed: npt.NDArray[np.bool_] | None = None
    ) -> SearchResult:
        """Return the ``k`` best vectors for each query.

        Parameters
        ----------
        query
            ``(n_query, dim)``.
        k
            Neighbours wanted; rows are filled up with −1 when fewer exist.
        allowed
            ``(n_vectors,)`` mask of vectors that may be returned; all when ``None``.
        """
