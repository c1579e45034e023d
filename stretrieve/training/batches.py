"""What the loop feeds to an embedder: which spots, in which order, with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stretrieve.embedders.base import SectionPatches
from stretrieve.embedders.trainable import BatchUnit, TrainableEmbedder, TrainBatch
from stretrieve.errors import InputError, explain
from stretrieve.training.augment import augment_views
from stretrieve.training.settings import AugmentSettings

Spots = npt.NDArray[np.int64]
"""``(batch, 2)``: section and row of each spot."""


def plan_epoch(
    sizes: Sequence[int], *, unit: BatchUnit, batch_size: int, seed: int, epoch: int
) -> list[Spots]:
    """Return the batches of an epoch: every spot once, batches of nearly equal size.

    Parameters
    ----------
    sizes
        Spots of each section.
    unit
        Whether batches mix sections.
    batch_size
        Spots in a batch, about.
    seed, epoch
        What the order follows from.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    pools = [
        np.stack([np.full(size, i), np.arange(size)], axis=1).astype(np.int64)
        for i, size in enumerate(sizes)
        if size > 0
    ]
    if unit is BatchUnit.SPOT and pools:
        pools = [np.concatenate(pools)]
    batches: list[Spots] = []
    for pool in pools:
        shuffled = pool[generator.permutation(len(pool))]
        batches += np.array_split(shuffled, max(1, round(len(shuffled) / batch_size)))
    return [batches[i] for i in generator.permutation(len(batches))]


@dataclass(frozen=True)
class TrainingData:
    """Sections with everything an embedder wants of each spot.

    Parameters
    ----------
    sections
        Patches and measurements.
    inputs
        One mapping a section: name to ``(n_spots, …)``.
    trains_pixels
        Whether batches carry patches.
    augment
        How patches are varied.
    seed
        Of the augmentation.
    """

    sections: Sequence[SectionPatches]
    inputs: Sequence[dict[str, Tensor]]
    trains_pixels: bool
    augment: AugmentSettings
    seed: int

    @classmethod
    def collect(
        cls,
        embedder: TrainableEmbedder,
        sections: Sequence[SectionPatches],
        *,
        augment: AugmentSettings,
        seed: int,
    ) -> TrainingData:
        """Ask the embedder for its inputs of every section.

        Raises
        ------
        InputError
            When there are fewer than two spots.
        """
        if sum(s.section.n_spots for s in sections) < 2:
            raise InputError(explain("training spots", got="fewer than 2", expected="2 or more"))
        inputs = [
            {name: _tensor(array) for name, array in embedder.spot_inputs(s).items()}
            for s in sections
        ]
        return cls(sections, inputs, embedder.trains_pixels, augment, seed)

    @property
    def sizes(self) -> list[int]:
        """Spots of each section."""
        return [s.section.n_spots for s in self.sections]

    def batch(self, spots: Spots, *, epoch: int) -> TrainBatch:
        """Return some spots ``(batch, 2)`` with inputs and, where wanted, augmented patches."""
        sections, rows = spots[:, 0], spots[:, 1]
        inputs = {name: self._gather(name, sections, rows) for name in self.inputs[0]}
        views: tuple[Tensor, ...] = ()
        if self.trains_pixels:
            views = augment_views(
                [self._view(i, sections, rows) for i in range(len(self.sections[0].views))],
                settings=self.augment,
                seed=self.seed,
                epoch=epoch,
                sections=sections,
                rows=rows,
            )
        return TrainBatch(sections, rows, inputs, views)

    def _gather(self, name: str, sections: Spots, rows: Spots) -> Tensor:
        present = np.unique(sections)
        if len(present) == 1:
            values: Tensor = self.inputs[present[0]][name]
            return values.index_select(0, torch.from_numpy(rows))
        first = self.inputs[0][name]
        result = torch.empty((len(rows), *first.shape[1:]), dtype=first.dtype)
        for section in present:
            here = torch.from_numpy(np.flatnonzero(sections == section))
            result[here] = self.inputs[section][name].index_select(0, torch.from_numpy(rows)[here])
        return result

    def _view(self, view: int, sections: Spots, rows: Spots) -> Tensor:
        first = self.sections[0].views[view]
        result = np.empty((len(rows), *first.shape[1:]), dtype=np.uint8)
        for section in np.unique(sections):
            here = sections == section
            result[here] = self.sections[section].views[view][rows[here]]
        return torch.from_numpy(result)


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
