"""The ``mclstexp`` embedder: expression of a whole section through a spot transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.embedders.base import Embeddings, SectionPatches
from stretrieve.embedders.bimodal import BimodalEmbedder
from stretrieve.embedders.bimodal_settings import Head
from stretrieve.embedders.bimodal_start import choose_trained, start_linear_heads
from stretrieve.embedders.mclstexp_settings import MclstexpSettings
from stretrieve.embedders.stgchb_start import principal_directions
from stretrieve.embedders.trainable import BatchUnit, ParameterGroup, TrainBatch
from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.joint import JointSpace
from stretrieve.models.section_transformer import (
    SectionTransformerModel,
    table_positions,
)


class MclstexpEmbedder(BimodalEmbedder):
    """mclSTExp: a spot's expression is read among all spots of its section, by learned position.

    Attention spans the section, in training as in use, so that a spot's embedding does not depend
    on the batch it came in. It starts as the identity and refines the closed-form joint space;
    ``compat`` keeps to the published form.

    Parameters
    ----------
    settings
        See :class:`~stretrieve.embedders.mclstexp_settings.MclstexpSettings`.
    encoder
        The image tower, when it has been built already.

    References
    ----------
    Min et al., "Multimodal contrastive learning for spatial gene expression prediction using
    histology images", Briefings in Bioinformatics 2024.
    """

    name: ClassVar[str] = "mclstexp"
    needs: ClassVar[str] = (
        "one view; weights of a timm or open_clip tower; whole sections; seconds of training"
    )

    def __init__(
        self, settings: MclstexpSettings | None = None, *, encoder: PatchEncoder | None = None
    ) -> None:
        self._asked = settings or MclstexpSettings()
        self._used = self._asked.effective()
        self._sections: list[tuple[Tensor, Tensor]] = []
        super().__init__(self._used, encoder=encoder)

    @property
    def batch_unit(self) -> BatchUnit:
        """Spots of one section, which share one pass of the transformer."""
        return BatchUnit.SECTION

    @property
    def section_model(self) -> SectionTransformerModel:
        """The fitted network."""
        return cast("SectionTransformerModel", self.model)

    def fit(self, sections: Sequence[SectionPatches], *, progress: Progress = SILENT) -> None:
        """Choose genes, measure features, start the network; keep expression for training.

        Raises
        ------
        InputError
            When there is no section.
        """
        super().fit(sections, progress=progress)
        self._sections = [
            self._section_tensors(
                self._expression(s.section.counts, s.section.gene_names), s.section.xy_um
            )
            for s in sections
        ]

    def _section_tensors(
        self, expression: npt.NDArray[np.float32], xy_um: npt.NDArray[np.float64]
    ) -> tuple[Tensor, Tensor]:
        positions = table_positions(np.asarray(xy_um, dtype=np.float64), self._used.transformer)
        device = self._device
        return torch.from_numpy(expression).to(device), torch.from_numpy(positions).to(device)

    def _empty_model(self, n_genes: int, dim: int) -> SectionTransformerModel:
        used = self._used
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(used.seed)
            model = SectionTransformerModel(
                self._encoder,
                n_genes=n_genes,
                transformer=used.transformer,
                dim=dim,
                dropout=used.dropout,
                linear=used.head is not Head.MLP,
            )
        choose_trained(used, self._encoder)
        return model.eval()

    def _start_model(
        self,
        sections: Sequence[SectionPatches],
        features: Sequence[Embeddings],
        joint: JointSpace | None,
    ) -> SectionTransformerModel:
        linear = self._used.head is not Head.MLP
        dim = joint.dim if joint is not None and linear else self._used.width
        model = self._empty_model(len(self.panel), dim)
        pooled = np.concatenate(features).astype(np.float64)
        scale = pooled.std(axis=0)
        if not self._used.compat:
            model.standardise_features(pooled.mean(axis=0), np.where(scale > 1e-8, scale, 1.0))
        if joint is not None:
            model.standardise_features(joint.feature_mean, joint.feature_scale)
            expression = np.concatenate(
                [self._expression(s.section.counts, s.section.gene_names) for s in sections]
            )
            self._start_from(model, joint, expression)
        return model

    def _start_from(
        self,
        model: SectionTransformerModel,
        joint: JointSpace,
        expression: npt.NDArray[np.float32],
    ) -> None:
        """Let both heads compute the closed-form joint space; the transformer the identity."""
        n_directions = min(model.spot_transformer.width, expression.shape[1])
        model.start_near_identity(principal_directions(expression, n_directions))
        expression_map = model.reduced_map(joint.expression_map.astype(np.float32))
        start_linear_heads(model, joint.image_map, expression_map)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return transformer and heads, and the tower's trained stages."""
        groups = list(super().parameter_groups())
        if groups:
            rates, model = self._used.rates, self.section_model
            layers = [*model.reduce.parameters(), *model.spot_transformer.parameters()]
            groups.append(ParameterGroup("transformer", layers, rates.heads, rates.weight_decay))
        return groups

    def spot_inputs(self, patches: SectionPatches) -> Mapping[str, npt.NDArray[Any]]:
        """Return expression and table positions, and features unless the tower is trained."""
        positions = table_positions(patches.section.xy_um, self._used.transformer)
        return {**super().spot_inputs(patches), "positions": positions}

    def encode_batch(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Return embeddings of both sides and what ``pre-projection`` targets need."""
        model = self.section_model
        features = (
            self._encoder(*batch.views)
            if self.trains_pixels
            else batch.inputs["features"].to(self._device)
        )
        expression = batch.inputs["expression"].to(self._device)
        return {
            "image": model.project_image(features),
            "expression": model.expression_projection(self._codes(batch, expression)),
            "image_features": model.scale_features(features).detach(),
            "expression_features": expression,
        }

    def _codes(self, batch: TrainBatch, expression: Tensor) -> Tensor:
        """Return transformer outputs of a batch's spots, each among the spots it may see."""
        model = self.section_model
        if self._used.compat:
            return model.section_codes(expression, batch.inputs["positions"].to(self._device))
        pieces, order = [], []
        for section in np.unique(batch.sections):
            inside = np.flatnonzero(batch.sections == section)
            everything = model.section_codes(*self._sections[section])
            pieces.append(everything[torch.from_numpy(batch.rows[inside])])
            order.append(inside)
        return torch.cat(pieces)[torch.from_numpy(np.argsort(np.concatenate(order)))]

    @torch.no_grad()
    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts ``(n_spots, n_genes)`` of one section to ``(n_spots, dim)``.

        Raises
        ------
        GenePanelError
            When less than half of :attr:`gene_names` is among ``genes``.
        """
        model = self.section_model
        tensors = self._section_tensors(self._expression(counts, genes), xy_um)
        embeddings = model.expression_projection(model.section_codes(*tensors))
        return np.asarray(embeddings.float().cpu().numpy(), dtype=np.float32)

    def end_training(self) -> None:
        """Settle into inference mode and let go of the training sections."""
        super().end_training()
        self._sections = []

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self._asked)

    @classmethod
    def _build(cls, config: Mapping[str, Any], encoder: PatchEncoder | None) -> Self:
        return cls(settings_from_dict(MclstexpSettings, config, where=cls.name), encoder=encoder)
