"""What the embedders with a closed-form joint space share: everything but the features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import Embedder, Embeddings, SectionPatches
from stretrieve.embedders.checks import batch_of, check_batch, check_features, not_fitted
from stretrieve.embedders.panel import GenePanel
from stretrieve.embedders.storage import StoredEmbedder, read_embedder, write_embedder
from stretrieve.errors import EmbedderMismatchError, InputError, explain
from stretrieve.models.joint import JointSettings, JointSpace, fit_joint_space
from stretrieve.slides.types import PatchBatch

_BATCH = 256


class ClosedFormEmbedder(Embedder):
    """Row-wise features of a patch, a gene panel, and one map in closed form for each modality.

    A subclass says how features are made (:meth:`_features`), and hands its settings over.

    Parameters
    ----------
    n_genes
        Size of the gene panel.
    joint
        Settings of the joint space.
    """

    def __init__(self, *, n_genes: int, joint: JointSettings) -> None:
        self._n_genes = n_genes
        self._joint_settings = joint
        self._panel: GenePanel | None = None
        self._joint: JointSpace | None = None

    @abstractmethod
    def _features(self, batch: PatchBatch) -> Embeddings:
        """Return features ``(n_patches, feature_dim)`` of a checked batch."""

    def _fitted_facts(self) -> dict[str, Any]:
        """Return further facts for the configuration on disk."""
        return {}

    def _fitted_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return further arrays for the weights on disk."""
        return {}

    def _restore(self, stored: StoredEmbedder, device: str) -> None:
        """Take back what :meth:`_fitted_facts` and :meth:`_fitted_arrays` gave."""

    @property
    def joint(self) -> JointSpace:
        """The fitted joint space."""
        if self._joint is None:
            raise not_fitted(self.name)
        return self._joint

    @property
    def panel(self) -> GenePanel:
        """The fitted gene panel."""
        if self._panel is None:
            raise not_fitted(self.name)
        return self._panel

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self._joint.dim if self._joint else self._joint_settings.n_components

    @property
    def gene_names(self) -> tuple[str, ...]:
        """Gene keys of the panel; empty before :meth:`fit`."""
        return self._panel.names if self._panel else ()

    @property
    def is_row_wise(self) -> bool:
        """Each patch is mapped on its own."""
        return True

    def fit(self, sections: Sequence[SectionPatches], *, progress: Progress = SILENT) -> None:
        """Choose genes, measure features and solve for both maps.

        Raises
        ------
        InputError
            When there is no section.
        """
        if not sections:
            raise InputError(explain("training sections", got="none", expected="one or more"))
        panel = GenePanel.fit([s.section for s in sections], n_genes=self._n_genes)
        features = [self._section_features(s, progress) for s in sections]
        expression = [panel.centred(s.section.counts, s.section.gene_names) for s in sections]
        groups = [s.section.meta.patient for s in sections]
        self._joint = fit_joint_space(
            features, expression, groups=groups, settings=self._joint_settings
        )
        self._panel = panel

    def _section_features(self, patches: SectionPatches, progress: Progress) -> Embeddings:
        section = patches.section
        parts = []
        with progress.task(f"features of {section.meta.section}", section.n_spots) as task:
            for start in range(0, section.n_spots, _BATCH):
                rows = slice(start, start + _BATCH)
                parts.append(self.encode_patches(batch_of(patches, rows)))
                task.advance(len(parts[-1]))
        return np.concatenate(parts)

    def encode_patches(self, batch: PatchBatch) -> Embeddings:
        """Return features ``(n_patches, feature_dim)`` of one batch.

        Raises
        ------
        EmbedderMismatchError
            When the patches are not what :attr:`spec` asks for.
        """
        check_batch(batch, self.spec, name=self.name)
        return self._features(batch)

    def project_patches(self, features: Embeddings, xy_um: npt.NDArray[np.float64]) -> Embeddings:
        """Map features ``(n_patches, feature_dim)`` to embeddings ``(n_patches, dim)``; row by row.

        Raises
        ------
        EmbedderMismatchError
            When the features are not this embedder's.
        """
        del xy_um
        joint = self.joint
        check_features(features, len(joint.feature_mean), name=self.name)
        return joint.embed_features(features)

    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts ``(n_spots, n_genes)`` of one section to ``(n_spots, dim)``.

        Raises
        ------
        GenePanelError
            When less than half of :attr:`gene_names` is among ``genes``.
        """
        del xy_um
        return self.joint.embed_expression(self.panel.centred(counts, genes))

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
        panel = self.panel
        write_embedder(
            folder,
            name=self.name,
            configuration=self.to_config(),
            fitted={"genes": list(panel.names), "dim": self.dim, **self._fitted_facts()},
            arrays={**panel.to_arrays(), **self.joint.to_arrays(), **self._fitted_arrays()},
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Rebuild a fitted embedder from :meth:`save`.

        Raises
        ------
        InputNotFoundError
            When a file is missing.
        EmbedderMismatchError
            When the files belong to another embedder or were changed.
        """
        stored = read_embedder(folder, name=cls.name)
        embedder = cls._from_stored(stored)
        embedder.restore(stored, device=device)
        return embedder

    def restore(self, stored: StoredEmbedder, *, device: str) -> None:
        """Take back what :meth:`save` wrote; called by :meth:`load`.

        Raises
        ------
        EmbedderMismatchError
            When something in it is missing.
        """
        try:
            self._panel = GenePanel.from_arrays(stored.fitted["genes"], stored.arrays)
            self._joint = JointSpace.from_arrays(stored.arrays)
        except KeyError as error:
            raise EmbedderMismatchError(
                explain(f"stored embedder {self.name!r}", got=f"no {error}")
            ) from error
        self._restore(stored, device)

    @classmethod
    def _from_stored(cls, stored: StoredEmbedder) -> Self:
        """Build the unfitted embedder; a subclass may avoid loading weights twice."""
        return cls.from_config(stored.configuration)
