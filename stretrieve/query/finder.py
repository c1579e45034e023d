"""Finding the neighbours of a slide's patches group by group, once all are embedded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stretrieve.query.groups import EncodedGroup
from stretrieve.query.predictor import Found, Predictor
from stretrieve.query.surroundings import Surroundings


class Finder:
    """Finds neighbours; with smoothing, those of the patches around a group, too.

    What was found for other groups is kept as long as the present group needs it. So memory depends on
    the reach of the smoothing and not on the slide, as long as patches are asked for in the order in
    which they lie, as those of a grid are.

    Parameters
    ----------
    predictor
        Of the reference.
    embeddings
        Returns the embeddings of a group.
    xy_um
        Returns the centres ``(n_readable, 2)`` of a group's readable patches in µm.
    n_groups
        Groups of the slide.
    shift
        Of :meth:`~stretrieve.query.predictor.Predictor.prepare`.
    """

    def __init__(
        self,
        predictor: Predictor,
        embeddings: Callable[[int], EncodedGroup],
        xy_um: Callable[[EncodedGroup], npt.NDArray[np.float64]],
        n_groups: int,
        shift: npt.NDArray[np.float64] | None,
    ) -> None:
        self._predictor, self._embeddings, self._shift = predictor, embeddings, shift
        self._kept: dict[int, Found] = {}
        self._around: Surroundings | None = None
        if predictor.settings.smoothing_um:
            centres = [xy_um(embeddings(number)) for number in range(n_groups)]
            self._starts = np.cumsum([0, *map(len, centres)])
            self._around = Surroundings(np.concatenate(centres), predictor.settings.smoothing_um)

    def find(self, group: EncodedGroup) -> Found:
        """Return the neighbours of a group's readable patches."""
        if self._around is None or not len(group.values):
            return self._search(group)
        rows = slice(*self._starts[group.number : group.number + 2])
        near, weights = self._around.of(rows)
        needed = np.unique(np.searchsorted(self._starts, near, side="right") - 1).tolist()
        kept = self._kept
        self._kept = {
            n: kept[n] if n in kept else self._search(self._embeddings(n)) for n in needed
        }
        there = np.concatenate([np.arange(*self._starts[n : n + 2]) for n in needed])
        found = Found.join(list(self._kept.values())).rows(np.searchsorted(there, near))
        return self._predictor.retriever.smooth(found, near, weights, rows=rows)

    def _search(self, group: EncodedGroup) -> Found:
        return self._predictor.find(group.values, shift=self._shift, looks=group.looks)
