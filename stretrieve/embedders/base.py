"""The plug-in that maps patches and expression into one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve._progress import SILENT, Progress
from stretrieve.errors import EmbedderMismatchError, explain
from stretrieve.slides.types import PatchBatch
from stretrieve.specs import PatchSpec
from stretrieve.spots.section import Section

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SectionPatches:
    """A section together with the patches under its spots.

    Parameters
    ----------
    section
        The measurements.
    views
        One array a view of the embedder's patch spec, each ``(n_spots, patch_px, patch_px, 3)``
        uint8 RGB; may be memory-mapped.
    """

    section: Section
    views: tuple[npt.NDArray[np.uint8], ...]


class Embedder(ABC):
    """Maps patches and expression into one space of ``dim`` numbers.

    A subclass is complete once constructed from its settings; :meth:`fit` learns whatever it needs
    from training sections. Embedders with gradients also implement
    :class:`~stretrieve.embedders.trainable.TrainableEmbedder` and are driven by
    :mod:`stretrieve.training`.

    Attributes
    ----------
    name
        What it is registered under.
    needs
        What a user has to bring, in a few words, for ``stretrieve embedders``.
    """

    name: ClassVar[str]
    needs: ClassVar[str] = ""

    @property
    @abstractmethod
    def spec(self) -> PatchSpec:
        """The patches it wants to see."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the joint space."""

    @property
    @abstractmethod
    def gene_names(self) -> tuple[str, ...]:
        """Gene keys that :meth:`embed_expression` reads; empty before :meth:`fit`."""

    @property
    def encoder_facts(self) -> Mapping[str, Any]:
        """What its image encoder is: architecture, weights, revision, licence, preprocessing.

        Plain JSON data for the manifest; empty where there is no network.
        """
        return {}

    @property
    def is_row_wise(self) -> bool:
        """Whether :meth:`project_patches` maps each patch on its own.

        A slide is then projected, searched and written part by part while it is still being read.
        """
        return False

    @abstractmethod
    def fit(self, sections: Sequence[SectionPatches], *, progress: Progress = SILENT) -> None:
        """Learn from training sections what needs no gradients (gene panel, scalers, projections)."""

    @abstractmethod
    def encode_patches(self, batch: PatchBatch) -> Embeddings:
        """Return the backbone's features ``(n_patches, feature_dim)`` of one batch."""

    def encode_once(self, batch: PatchBatch) -> Embeddings:
        """Return what :meth:`encode_patches` returns, for patches that are not going to come again.

        An embedder that remembers features looks nothing up here and keeps nothing.
        """
        return self.encode_patches(batch)

    @abstractmethod
    def project_patches(self, features: Embeddings, xy_um: npt.NDArray[np.float64]) -> Embeddings:
        """Map features of a whole slide into the joint space.

        Parameters
        ----------
        features
            ``(n_patches, feature_dim)`` from :meth:`encode_patches`.
        xy_um
            ``(n_patches, 2)`` centres in microns, for embedders that look at neighbours.

        Returns
        -------
        Embeddings
            ``(n_patches, dim)``.
        """

    def embed_patches(self, batch: PatchBatch) -> Embeddings:
        """Return the embeddings ``(n_patches, dim)`` of a batch taken as a slide of its own."""
        return self.project_patches(self.encode_patches(batch), batch.xy_um)

    @abstractmethod
    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts ``(n_spots, n_genes)`` of one section into the joint space.

        Parameters
        ----------
        counts
            Raw counts.
        genes
            Gene keys of the columns, in any order; must cover :attr:`gene_names` well enough.
        xy_um
            ``(n_spots, 2)`` spot centres in microns.

        Raises
        ------
        GenePanelError
            When less than half of :attr:`gene_names` is among ``genes``.
        """

    @property
    def regresses(self) -> bool:
        """Whether an embedding says by itself what is expressed; see :meth:`regress`."""
        return False

    def regress(self, embeddings: Embeddings) -> Embeddings:  # noqa: ARG002 (for those that do)
        """Return the embedder's own regression ``(n_patches, n_genes)`` of :attr:`gene_names`.

        Parameters
        ----------
        embeddings
            ``(n_patches, dim)`` of patches.

        Raises
        ------
        EmbedderMismatchError
            When :attr:`regresses` is false.
        """
        raise EmbedderMismatchError(
            explain(
                "regression head",
                got=f"embedder {self.name!r}, whose embeddings are not expression",
                expected="one that regresses, such as m2ost with objective = regression",
            )
        )

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return settings as plain JSON data; :meth:`from_config` rebuilds an unfitted equal."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build an unfitted embedder; an unknown or wrong setting raises ``ConfigError``."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into an existing folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Rebuild a fitted embedder from :meth:`save`."""
