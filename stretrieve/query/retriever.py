"""Finding and averaging neighbours of patches, batch by batch; needs no slide and no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.errors import ConfigError, ShapeError, explain
from stretrieve.models.look import Looks
from stretrieve.query.expression import ExpressionSource, SectionProfiles, section_profiles
from stretrieve.query.impute import Imputed, WeightMatrix
from stretrieve.query.ood import Familiarity, Scores, Unlikeness
from stretrieve.query.pool import Mask, Pictured, Pool, Positions
from stretrieve.query.retrieve import Neighbours, retrieve, slide_shift
from stretrieve.query.settings import Centring, RetrievalSettings
from stretrieve.query.similarity import SpotSearch
from stretrieve.query.surroundings import KEPT, Surroundings, heaviest, join

GENES_PER_BLOCK = 512

T = TypeVar("T")


class PoolFacts:
    """What predictors of one pool share and compute once.

    Parameters
    ----------
    pool
        The spots.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._kept: dict[str, tuple[object, Any]] = {}

    @cached_property
    def profiles(self) -> SectionProfiles:
        """Mean profile of each section."""
        return section_profiles(self.pool)

    def familiarity(self, allowed: Mask) -> Familiarity:
        """Return where the allowed spots' image embeddings lie, and how far apart patients are."""
        return self.keep(
            "familiarity", allowed, "", lambda: Familiarity.of_embeddings(self.pool, allowed)
        )

    def familiar_looks(self, allowed: Mask) -> Familiarity | None:
        """Return the same of the spots' thumbnails; ``None`` where the pool has none."""
        pool = self.pool
        if not isinstance(pool, Pictured):
            return None
        return self.keep("looks", allowed, "", lambda: Familiarity.of_looks(pool, allowed))

    def keep(self, what: str, allowed: Mask, settings: object, make: Callable[[], T]) -> T:
        """Return something that depends on the allowed spots and settings; the last one is kept."""
        key = (np.packbits(allowed).tobytes(), settings)
        if what not in self._kept or self._kept[what][0] != key:
            self._kept[what] = (key, make())
        value: T = self._kept[what][1]
        return value


@dataclass(frozen=True)
class Found:
    """What was found for a batch of patches, before any gene is looked at.

    Parameters
    ----------
    embeddings
        ``(n_patches, dim)`` as they were searched with: the slide's offset is removed.
    neighbours
        Measured spots behind each patch.
    ood
        ``(n_patches,)`` out-of-distribution score; NaN when it was not asked for.
    smoothed
        ``(n_patches, dim)`` embeddings as a regression reads them: averaged over the patches around
        with smoothing, ``embeddings`` without.
    """

    embeddings: Embeddings
    neighbours: Neighbours
    ood: Scores
    smoothed: Embeddings

    def __len__(self) -> int:
        return len(self.embeddings)

    @cached_property
    def weights(self) -> WeightMatrix:
        """Neighbours' weights as a matrix; the same for all genes."""
        return WeightMatrix.build(self.neighbours.indices, self.neighbours.weights)

    def rows(self, chosen: slice | Positions) -> Found:
        """Return some patches."""
        whole = self.neighbours
        part = Neighbours(whole.indices[chosen], whole.weights[chosen], whole.similarity[chosen])
        return Found(self.embeddings[chosen], part, self.ood[chosen], self.smoothed[chosen])

    @classmethod
    def join(cls, parts: Sequence[Found]) -> Found:
        """Return patches one after the other."""
        lists = [part.neighbours for part in parts]
        neighbours = Neighbours(
            np.concatenate([one.indices for one in lists]),
            np.concatenate([one.weights for one in lists]),
            np.concatenate([one.similarity for one in lists]),
        )
        return cls(
            np.concatenate([part.embeddings for part in parts]),
            neighbours,
            np.concatenate([part.ood for part in parts]),
            np.concatenate([part.smoothed for part in parts]),
        )


class Retriever:
    """Averages the expression of the measured spots that are nearest to each patch.

    Parameters
    ----------
    pool
        The spots.
    settings
        How neighbours are found and averaged.
    allowed
        ``(n_spots,)`` spots that may be used; all when ``None``. Spots that may not be used have no
        influence on any result.
    facts
        Shared by retrievers of the same pool.
    score_ood
        Whether :meth:`find` scores how unlike the pool a patch is.
    abstain
        Distance beyond which the neighbours of a patch get no weight, so that nothing is predicted;
        see :class:`~stretrieve.query.settings.QuerySettings`. One patient alone cannot tell what is
        far, so nobody abstains then.
    """

    def __init__(
        self,
        pool: Pool,
        settings: RetrievalSettings | None = None,
        *,
        allowed: Mask | None = None,
        facts: PoolFacts | None = None,
        score_ood: bool = True,
        abstain: float | None = None,
    ) -> None:
        self.pool = pool
        self.settings = (settings or RetrievalSettings()).resolved()
        n_spots = len(pool.section_index)
        self.allowed = np.ones(n_spots, dtype=np.bool_) if allowed is None else allowed
        if self.allowed.shape != (n_spots,):
            raise ShapeError(
                explain("allowed spots", got=self.allowed.shape, expected=f"({n_spots},)")
            )
        self.facts = facts or PoolFacts(pool)
        self._score_ood = score_ood
        n_patients = pool.spots[keys.PATIENT][self.allowed].nunique()
        self._abstain = abstain if n_patients > 1 else None
        self._search = SpotSearch(pool, self.settings)

    @cached_property
    def source(self) -> ExpressionSource:
        """Values of measured spots as they are averaged."""
        centring = self.settings.centring
        profiles = None if centring is Centring.NONE else self.facts.profiles
        return ExpressionSource(self.pool, centring, allowed=self.allowed, profiles=profiles)

    @property
    def needs_slide(self) -> bool:
        """Whether a whole slide has to be seen before any patch is predicted."""
        return self.settings.centring is Centring.BOTH or self.settings.smoothing_um > 0

    def prepare(self, embeddings: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
        """Return the shift that removes a slide's offset, for :meth:`find`; ``None`` for none.

        Parameters
        ----------
        embeddings
            ``(n_patches, dim)`` of the whole slide, or their mean ``(dim,)``.
        """
        if self.settings.centring is not Centring.BOTH:
            return None
        mean = embeddings if embeddings.ndim == 1 else embeddings.mean(axis=0, dtype=np.float64)
        return slide_shift(self.pool, mean, allowed=self.allowed)

    def learn_looks(self) -> None:
        """Learn what the spots look like before :meth:`find` needs it."""
        if self._score_ood:
            self.facts.familiar_looks(self.allowed)

    def find(
        self,
        embeddings: Embeddings,
        *,
        shift: npt.NDArray[np.float64] | None = None,
        looks: Looks | None = None,
    ) -> Found:
        """Find and weight the neighbours of a batch of patches.

        Parameters
        ----------
        embeddings
            ``(n_patches, dim)`` of the joint space.
        shift
            From :meth:`prepare`, seeing the whole slide.
        looks
            ``(n_patches, 29)`` what the patches look like
            (:func:`~stretrieve.query.look.looks_of_patches`). How unlike the pool they are goes by
            this, where the pool has thumbnails; by ``embeddings`` without.
        """
        moved = embeddings if shift is None else embeddings + shift
        moved = np.asarray(moved, dtype=np.float32)
        neighbours = retrieve(
            self._search, self.pool, moved, settings=self.settings, allowed=self.allowed
        )
        if not self._score_ood:
            return Found(moved, neighbours, np.full(len(moved), np.nan), moved)
        unlike = self._unlikeness(moved, looks)
        if self._abstain is not None:
            neighbours.weights[unlike.excess > self._abstain] = 0.0
        return Found(moved, neighbours, unlike.score, moved)

    def _unlikeness(self, embeddings: Embeddings, looks: Looks | None) -> Unlikeness:
        familiar = None if looks is None else self.facts.familiar_looks(self.allowed)
        if looks is None or familiar is None:
            return self.facts.familiarity(self.allowed).unlikeness(embeddings)
        return familiar.unlikeness(looks)

    def find_slide(
        self,
        embeddings: Embeddings,
        xy_um: npt.NDArray[np.floating] | None = None,
        *,
        looks: Looks | None = None,
    ) -> Found:
        """Find and weight the neighbours of all patches of a slide.

        Parameters
        ----------
        embeddings
            ``(n_patches, dim)`` of the joint space.
        xy_um
            ``(n_patches, 2)`` centres in µm; needed with smoothing.
        looks
            As for :meth:`find`.

        Raises
        ------
        ConfigError
            When smoothing is asked for and nothing says where the patches are.
        """
        found = self.find(embeddings, shift=self.prepare(embeddings), looks=looks)
        if not self.settings.smoothing_um:
            return found
        if xy_um is None:
            raise ConfigError(
                explain(
                    "smoothing_um",
                    got="patches or reference spots without positions",
                    remedy="give xy_um",
                )
            )
        around = Surroundings(xy_um, self.settings.smoothing_um)
        return self.smooth(found, *around.of(slice(0, len(found))), rows=slice(0, len(found)))

    def smooth(
        self, found: Found, near: Positions, weights: sparse.csr_matrix, *, rows: slice
    ) -> Found:
        """Let patches share what was found for those around them.

        A patch that abstains gives nothing and gets nothing.

        Parameters
        ----------
        found
            Of the patches ``near``.
        near, weights
            Of :meth:`~stretrieve.query.surroundings.Surroundings.of`.
        rows
            Patches asked for, on the slide.
        """
        start, stop = np.searchsorted(near, [rows.start, rows.stop])
        own, each = found.rows(slice(start, stop)), found.neighbours
        k = each.indices.shape[1]
        shape = (len(own), KEPT * k)
        indices, merged, scores = np.full(shape, -1), np.zeros(shape), np.full(shape, -np.inf)
        done = 0
        for some in join(weights, each.indices, each.weights):
            part = slice(done, done + len(some.indices))
            alike = np.asarray(self._search.scorer.scores(own.embeddings[part], some.indices))
            indices[part], merged[part], scores[part] = heaviest(some, alike, keep=shape[1])
            done = part.stop
        silent = own.neighbours.weights.sum(axis=1) == 0
        indices[silent], merged[silent], scores[silent] = -1, 0.0, -np.inf
        indices[silent, :k] = own.neighbours.indices[silent]
        scores[silent, :k] = own.neighbours.similarity[silent]
        smoothed = np.asarray(weights @ found.embeddings.astype(np.float64), dtype=np.float32)
        return Found(own.embeddings, Neighbours(indices, merged, scores), own.ood, smoothed)

    def average(self, found: Found, genes: Sequence[str]) -> Imputed:
        """Average the neighbours' expression of some genes."""
        return self.source.average(found.weights, genes)

    def similarity(
        self, embedding: npt.NDArray[np.floating], positions: npt.NDArray[np.int64]
    ) -> Scores:
        """Return the exact scores ``(n,)`` of some spots for one patch."""
        query = np.asarray(embedding, dtype=np.float32)[None]
        return np.asarray(self._search.scorer.scores(query, positions[None])[0])
