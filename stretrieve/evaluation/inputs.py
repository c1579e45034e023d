"""What lines see of a section: patches, image features, or a molecular query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import svds

from stretrieve._files import sha256_text
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders import (
    Embedder,
    Embeddings,
    SectionPatches,
    collect_patches,
    create_embedder,
)
from stretrieve.embedders.checks import batch_of
from stretrieve.errors import InputError, explain
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.training_data import Matrix
from stretrieve.specs import PatchSpec
from stretrieve.spots import log_cp10k

COLOUR: Final = "colour"
FROZEN: Final = "frozen"
N_COMPONENTS: Final = 50

_BATCH: Final = 64


class Kind(StrEnum):
    """Features of a spot."""

    QUERY = "query"
    """What the search is made with: features of the backbone, or of a molecular query."""
    COLOUR = "colour"
    """Colour and texture statistics of its patch."""


class Inputs(ABC):
    """Gives lines what they may see of a section."""

    @abstractmethod
    def features(self, sample: Sample, kind: Kind = Kind.QUERY) -> Matrix:
        """Return ``(n_spots, n_features)``."""

    @abstractmethod
    def patches(self, sample: Sample, spec: PatchSpec) -> SectionPatches:
        """Return the patches under the spots of a section."""

    @property
    @abstractmethod
    def kinds(self) -> tuple[Kind, ...]:
        """The features that there are."""


class ImageInputs(Inputs):
    """Patches, kept on disk, and their features.

    Parameters
    ----------
    backbone
        Configuration of the ``frozen`` embedder whose tower makes features; ``None`` for colour
        statistics.
    cache
        Folder for patches.
    workers
        Processes that decode patches.
    progress
        Told of patches read and embedded.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any] | None,
        cache: Path,
        *,
        workers: int = 1,
        progress: Progress = SILENT,
    ) -> None:
        self._cache = cache
        self._workers = workers
        self._progress = progress
        colour = {"side_um": backbone["side_um"]} if backbone and "side_um" in backbone else {}
        self._embedders: dict[Kind, Embedder] = {Kind.COLOUR: create_embedder(COLOUR, colour)}
        self._embedders[Kind.QUERY] = (
            self._embedders[Kind.COLOUR] if backbone is None else create_embedder(FROZEN, backbone)
        )
        self._kept: dict[tuple[str, Kind], Matrix] = {}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Features of the backbone and of colour."""
        return (Kind.QUERY, Kind.COLOUR)

    def patches(self, sample: Sample, spec: PatchSpec) -> SectionPatches:
        """Return patches, decoded once."""
        return collect_patches(
            sample.section,
            spec,
            cache=self._cache / "patches",
            workers=self._workers,
            progress=self._progress,
        )

    def features(self, sample: Sample, kind: Kind = Kind.QUERY) -> Matrix:
        """Return features; within :func:`~stretrieve.embedders.kept_features` computed once."""
        key = (sample.name, kind)
        if key not in self._kept:
            embedder = self._embedders[kind]
            patches = self.patches(sample, embedder.spec)
            self._kept[key] = self._compute(embedder, patches).astype(np.float64)
        return self._kept[key]

    def _compute(self, embedder: Embedder, patches: SectionPatches) -> Embeddings:
        section = patches.section
        parts = []
        with self._progress.task(f"features of {section.meta.section}", section.n_spots) as task:
            for start in range(0, section.n_spots, _BATCH):
                batch = batch_of(patches, slice(start, start + _BATCH))
                parts.append(embedder.encode_patches(batch))
                task.advance(len(batch))
        return np.concatenate(parts)

    @property
    def backbone(self) -> Embedder:
        """The embedder whose tower makes the features of the query."""
        return self._embedders[Kind.QUERY]


class NoiseInputs(ImageInputs):
    """White noise in place of every patch; what a network sees in it is not tissue.

    Parameters
    ----------
    source
        Whose embedders and cache are used.
    seed
        Of the noise.
    """

    def __init__(self, source: ImageInputs, *, seed: int = 0) -> None:
        self.__dict__.update(source.__dict__)
        self._kept = {}
        self._seed = seed

    def patches(self, sample: Sample, spec: PatchSpec) -> SectionPatches:
        """Return noise of the right shape."""
        name = int(sha256_text(sample.name)[:8], 16)
        rng = np.random.default_rng([self._seed, name])
        shapes = [(sample.section.n_spots, view.patch_px, view.patch_px, 3) for view in spec.views]
        views = tuple(rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes)
        return SectionPatches(sample.section, views)


class ShuffledInputs(Inputs):
    """Patches and spots paired at random within each section.

    Parameters
    ----------
    source
        The right pairs.
    seed
        Of the permutations.
    """

    def __init__(self, source: Inputs, *, seed: int) -> None:
        self.source = source
        self._seed = seed

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """As the source."""
        return self.source.kinds

    def features(self, sample: Sample, kind: Kind = Kind.QUERY) -> Matrix:
        """Return features in another order."""
        return self.source.features(sample, kind)[self._order(sample)]

    def patches(self, sample: Sample, spec: PatchSpec) -> SectionPatches:
        """Return patches in another order."""
        order = self._order(sample)
        found = self.source.patches(sample, spec)
        return SectionPatches(found.section, tuple(np.asarray(view)[order] for view in found.views))

    def _order(self, sample: Sample) -> npt.NDArray[np.int64]:
        name = int(sha256_text(sample.name)[:8], 16)
        return np.random.default_rng([self._seed, name]).permutation(sample.section.n_spots)


@dataclass(frozen=True)
class MolecularSpace:
    """Principal components of some genes, learnt on training sections.

    Parameters
    ----------
    genes
        Query genes.
    mean
        ``(n_genes,)`` mean of the training spots.
    axes
        ``(n_genes, n_components)``.
    """

    genes: tuple[str, ...]
    mean: Matrix
    axes: Matrix

    @classmethod
    def fit(
        cls, samples: Sequence[Sample], genes: Sequence[str], *, n_components: int = N_COMPONENTS
    ) -> MolecularSpace:
        """Learn the space from the measurements of training sections."""
        values = np.concatenate([_query_values(sample, genes) for sample in samples])
        mean = values.mean(axis=0, dtype=np.float64)
        values -= mean.astype(np.float32)
        return cls(tuple(genes), mean, _leading_axes(values, n_components))

    def embed(self, sample: Sample) -> Matrix:
        """Return the components ``(n_spots, n_components)`` of a section's query genes."""
        values = _query_values(sample, self.genes)
        return np.asarray((values - self.mean) @ self.axes)


def _leading_axes(centred: npt.NDArray[np.float32], n: int) -> Matrix:
    """Return the first ``n`` principal axes ``(n_genes, n)``, strongest first."""
    if min(centred.shape) <= 4 * n:
        return np.asarray(np.linalg.svd(centred, full_matrices=False)[2][:n].T, dtype=np.float64)
    start = np.ones(min(centred.shape), dtype=np.float32)  # so that runs agree
    right = svds(centred, k=n, v0=start, return_singular_vectors="vh")[2]
    return np.asarray(right[::-1].T, dtype=np.float64)


def _query_values(sample: Sample, genes: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return log1p CP10k of the query genes among themselves; 0 where a gene is not measured."""
    section = sample.section
    columns = section.genes.index.get_indexer(list(genes))
    counts = section.counts[:, columns[columns >= 0]]
    values = np.zeros((section.n_spots, len(genes)), dtype=np.float32)
    values[:, columns >= 0] = log_cp10k(counts).toarray()
    return values


class ExpressionInputs(Inputs):
    """Molecular queries: components of genes that are not scored.

    Parameters
    ----------
    space
        Learnt on the training sections.
    """

    def __init__(self, space: MolecularSpace) -> None:
        self.space = space

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Molecular components only."""
        return (Kind.QUERY,)

    def features(self, sample: Sample, kind: Kind = Kind.QUERY) -> Matrix:
        """Return the components of the query genes."""
        if kind is not Kind.QUERY:
            raise InputError(explain("features", got=kind.value, expected="none without images"))
        return self.space.embed(sample)

    def patches(self, sample: Sample, spec: PatchSpec) -> SectionPatches:
        """Refuse: there is no image.

        Raises
        ------
        InputError
            Always.
        """
        del spec
        raise InputError(
            explain(
                f"patches of section {sample.name!r}",
                got="an expression query",
                expected="--query image",
            )
        )


def query_genes(
    samples: Sequence[Sample], scored: Sequence[str], *, seed: int = 0
) -> tuple[str, ...]:
    """Return a random half of the genes that all sections detect and that are not scored.

    Parameters
    ----------
    samples
        Training sections.
    scored
        Genes that a query must not hold.
    seed
        Of the choice.

    Raises
    ------
    InputError
        When fewer than two genes are left.
    """
    shared = set.intersection(*(set(s.section.gene_names) for s in samples))
    rest = sorted(shared - set(scored))
    if len(rest) < 2:
        raise InputError(
            explain(
                "genes for a molecular query",
                got=f"{len(rest)} of {len(shared)} are not scored",
                expected="two or more",
                remedy="score fewer genes with n_genes",
            )
        )
    chosen = np.random.default_rng(seed).permutation(len(rest))[: max(1, len(rest) // 2)]
    return tuple(rest[i] for i in np.sort(chosen))
