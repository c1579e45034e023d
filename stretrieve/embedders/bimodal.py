"""The two-tower embedder: fitting, and what the training loop drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import Embeddings, SectionPatches
from stretrieve.embedders.bimodal_core import BimodalCore
from stretrieve.embedders.bimodal_settings import Head, Start
from stretrieve.embedders.bimodal_start import start_model
from stretrieve.embedders.checks import batch_of
from stretrieve.embedders.panel import GenePanel
from stretrieve.embedders.trainable import BatchUnit, ParameterGroup, TrainBatch
from stretrieve.errors import InputError, explain
from stretrieve.models.bimodal import BimodalModel
from stretrieve.models.encoders import check_same
from stretrieve.models.joint import JointSpace, fit_joint_space
from stretrieve.models.losses import TargetSpace, contrastive_loss

_BATCH = 64


class BimodalEmbedder(BimodalCore):
    """An image tower, a gene panel and two heads, closed-form or trained by contrast.

    Satisfies :class:`~stretrieve.embedders.trainable.TrainableEmbedder`; closed-form heads have
    nothing to train.
    """

    def fit(self, sections: Sequence[SectionPatches], *, progress: Progress = SILENT) -> None:
        """Choose genes, measure features, and set the heads to their start.

        Raises
        ------
        InputError
            When there is no section.
        """
        if not sections:
            raise InputError(explain("training sections", got="none", expected="one or more"))
        self._reset_encoder()
        self._panel = GenePanel.fit([s.section for s in sections], n_genes=self.settings.n_genes)
        features = [self._fit_features(s, progress) for s in sections]
        joint = self._fit_joint(sections, features) if self._needs_joint() else None
        self._model = self._start_model(sections, features, joint).to(self._device)

    def _start_model(
        self,
        sections: Sequence[SectionPatches],
        features: Sequence[Embeddings],
        joint: JointSpace | None,
    ) -> BimodalModel:
        """Return the network at the start of training, the gene panel being known."""
        del sections
        return start_model(
            self.settings, self._encoder, n_genes=len(self.panel), features=features, joint=joint
        )

    def _reset_encoder(self) -> None:
        """Take the tower back to the weights it came with, when an earlier fit trained it."""
        if self._touched:
            self._encoder = self._create_encoder()
            check_same(self._encoder.describe(), self._origin)
            self._touched = False

    def _needs_joint(self) -> bool:
        return self.settings.head is Head.CLOSED_FORM or self.settings.start is Start.CLOSED_FORM

    def _fit_features(self, patches: SectionPatches, progress: Progress) -> Embeddings:
        section = patches.section
        with progress.task(f"features of {section.meta.section}", section.n_spots) as task:
            parts = []
            for start in range(0, section.n_spots, _BATCH):
                batch = batch_of(patches, slice(start, start + _BATCH))
                parts.append(self.encode_patches(batch))
                task.advance(len(batch))
        return np.concatenate(parts)

    def _fit_joint(
        self, sections: Sequence[SectionPatches], features: Sequence[Embeddings]
    ) -> JointSpace:
        return fit_joint_space(
            features,
            [self._expression(s.section.counts, s.section.gene_names) for s in sections],
            groups=[s.section.meta.patient for s in sections],
            settings=self.settings.joint,
        )

    @property
    def wants_training(self) -> bool:
        """Whether the heads are trained."""
        return self.settings.head is not Head.CLOSED_FORM

    @property
    def trains_pixels(self) -> bool:
        """Whether a part of the tower is trained."""
        return self.settings.backbone_stages != 0

    @property
    def batch_unit(self) -> BatchUnit:
        """Spots of all sections."""
        return BatchUnit.SPOT

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return heads and the tower's trained stages; nothing for closed-form heads."""
        if not self.wants_training:
            return ()
        model, rates = self.model, self.settings.rates
        heads = [
            parameter
            for part in (
                model.image_projection,
                model.expression_encoder,
                model.expression_projection,
            )
            for parameter in part.parameters()
        ]
        groups = [ParameterGroup("heads", heads, rates.heads, rates.weight_decay)]
        tower = [p for p in self._encoder.parameters() if p.requires_grad]
        if tower:
            groups.append(ParameterGroup("backbone", tower, rates.backbone, rates.weight_decay))
            self._touched = True
        return groups

    def spot_inputs(self, patches: SectionPatches) -> Mapping[str, npt.NDArray[Any]]:
        """Return scaled expression, and features unless the tower is trained."""
        section = patches.section
        inputs = {"expression": self._expression(section.counts, section.gene_names)}
        if not self.trains_pixels:
            inputs["features"] = self.section_features(patches)
        return inputs

    def section_features(self, patches: SectionPatches) -> Embeddings:
        """Return ``(n_spots, feature_dim)`` features as they are now."""
        return self._fit_features(patches, SILENT)

    def train_mode(self, *, training: bool) -> None:
        """Switch dropout of the heads; the tower keeps its batch statistics."""
        self.model.train(mode=training)
        self._encoder.eval()

    def encode_batch(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Return embeddings of both sides and, for ``pre-projection`` targets, the heads' inputs."""
        model = self.model
        features = (
            self._encoder(*batch.views)
            if self.trains_pixels
            else batch.inputs["features"].to(self._device)
        )
        both = model(features, batch.inputs["expression"].to(self._device))
        outputs = {"image": both.image, "expression": both.expression}
        if self.settings.loss.target_space is TargetSpace.PRE_PROJECTION:
            outputs["image_features"] = both.image_features.detach()
            outputs["expression_features"] = both.expression_features.detach()
        return outputs

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the contrastive loss of a whole batch."""
        return contrastive_loss(
            outputs["image"],
            outputs["expression"],
            settings=self.settings.loss,
            image_features=outputs.get("image_features"),
            expression_features=outputs.get("expression_features"),
        )

    def end_training(self) -> None:
        """Settle into inference mode."""
        self.train_mode(training=False)
