"""The ``m2ost`` embedder: several fields of view of one spot, through one transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.embedders.base import Embeddings, SectionPatches
from stretrieve.embedders.bimodal import BimodalEmbedder
from stretrieve.embedders.bimodal_settings import ExpressionInput, Head
from stretrieve.embedders.bimodal_start import choose_trained, start_linear_heads
from stretrieve.embedders.checks import check_features
from stretrieve.embedders.m2ost_settings import M2ostEmbedderSettings, Objective
from stretrieve.embedders.trainable import ParameterGroup, TrainBatch
from stretrieve.models.encoders import EncoderDescription, PatchEncoder
from stretrieve.models.joint import JointSpace
from stretrieve.models.losses import contrastive_loss
from stretrieve.models.m2ost import M2ostSettings
from stretrieve.models.m2ost_encoder import M2ostEncoder
from stretrieve.models.m2ost_joint import M2ostModel
from stretrieve.specs import PatchSpec

_PER_MILLION = 1e6


class M2ostEmbedder(BimodalEmbedder):
    """M2OST as an image embedder of the joint space, as the published regressor, or both.

    With the objective ``regression`` the joint space is the gene panel's scaled expression: a patch
    is embedded as its predicted profile, a spot as its measured one, and
    :meth:`predict_expression` is the regressor's answer. The network has no backbone; it starts
    from seeded weights.

    Parameters
    ----------
    settings
        See :class:`~stretrieve.embedders.m2ost_settings.M2ostEmbedderSettings`.
    encoder
        The network, when it has been built already.

    References
    ----------
    Wang et al., "M2OST: Many-to-one Regression for Predicting Spatial Transcriptomics from Digital
    Pathology Images", AAAI 2025 (arXiv 2409.15092).
    """

    name: ClassVar[str] = "m2ost"
    needs: ClassVar[str] = "one to four views; no weights to start from: many spots, better a GPU"

    def __init__(
        self,
        settings: M2ostEmbedderSettings | None = None,
        *,
        encoder: PatchEncoder | None = None,
    ) -> None:
        self._asked = settings or M2ostEmbedderSettings()
        self._used = self._asked.effective()
        super().__init__(self._used, encoder=encoder)

    def _create_encoder(self) -> PatchEncoder:
        return M2ostEncoder(self._used.sizes(), seed=self._used.seed)

    @classmethod
    def _restore_encoder(
        cls, description: EncoderDescription, state: Mapping[str, Tensor]
    ) -> PatchEncoder:
        kwargs = dict(description.model_kwargs)
        seed = int(kwargs.pop("seed"))
        encoder = M2ostEncoder(settings_from_dict(M2ostSettings, kwargs), seed=seed)
        encoder.network.load_state_dict(dict(state))
        return encoder

    @property
    def spec(self) -> PatchSpec:
        """One field of view a level, each twice as wide as the one before."""
        return self._used.spec()

    @property
    def regresses_only(self) -> bool:
        """Whether the joint space is expression itself."""
        return self._used.objective is Objective.REGRESSION

    @property
    def regresses(self) -> bool:
        """True with the objective ``regression``; other heads read features, not embeddings."""
        return self.regresses_only

    def regress(self, embeddings: Embeddings) -> Embeddings:
        """Return expression ``(n_patches, n_genes)`` as :meth:`predict_expression`, of embeddings.

        Raises
        ------
        EmbedderMismatchError
            With another objective than ``regression``.
        """
        return self._unscaled(embeddings) if self.regresses else super().regress(embeddings)

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        if self.regresses_only:
            return len(self._panel) if self._panel else self._used.n_genes
        return super().dim

    @property
    def scale_model(self) -> M2ostModel:
        """The fitted network."""
        return cast("M2ostModel", self.model)

    def _empty_model(self, n_genes: int, dim: int) -> M2ostModel:
        used = self._used
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(used.seed)
            model = M2ostModel(
                self._encoder,
                n_genes=n_genes,
                dim=used.width if self.regresses_only else dim,
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
    ) -> M2ostModel:
        del features
        expression = np.concatenate(
            [self._expression(s.section.counts, s.section.gene_names) for s in sections]
        )
        middle = expression.mean(axis=0, dtype=np.float64)
        linear = self._used.head is not Head.MLP
        dim = joint.dim if joint is not None and linear else self._used.width
        model = self._empty_model(len(self.panel), dim)
        if joint is None:
            return model
        model.standardise_features(joint.feature_mean, joint.feature_scale)
        model.start_regression(joint.image_map @ joint.expression_map.T, middle)
        if not self.regresses_only:
            start_linear_heads(model, joint.image_map, joint.expression_map)
        return model

    def _expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        if not self._used.compat:
            return super()._expression(counts, genes)
        values = np.expm1(np.nan_to_num(self.panel.log_expression(counts, genes)))
        total = values.sum(axis=1, keepdims=True)
        share = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
        return np.asarray(np.log1p(_PER_MILLION * share), dtype=np.float32)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return the network, and the heads that the objective trains."""
        groups = {group.name: group for group in super().parameter_groups()}
        if not groups:
            return ()
        rates = self._used.rates
        head = ParameterGroup(
            "regression",
            list(self.scale_model.regression.parameters()),
            rates.heads,
            rates.weight_decay,
        )
        if self.regresses_only:
            return (head, groups["backbone"])
        if self._used.objective is Objective.CONTRASTIVE:
            return tuple(groups.values())
        return (*groups.values(), head)

    def encode_batch(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Return what the objective needs: embeddings of both sides, predicted expression."""
        model = self.scale_model
        features = (
            self._encoder(*batch.views)
            if self.trains_pixels
            else batch.inputs["features"].to(self._device)
        )
        expression = batch.inputs["expression"].to(self._device)
        outputs = {"measured": expression, "features": model.scale_features(features).detach()}
        if self._used.objective is not Objective.CONTRASTIVE:
            outputs["predicted"] = model.regress(features)
        if not self.regresses_only:
            outputs["image"] = model.project_image(features)
            outputs["expression"] = model.project_expression(expression)
        return outputs

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of the objective over a whole batch."""
        loss = outputs["measured"].new_zeros(())
        if not self.regresses_only:
            loss = loss + contrastive_loss(
                outputs["image"],
                outputs["expression"],
                settings=self._used.loss,
                image_features=outputs["features"],
                expression_features=outputs["measured"],
            )
        if self._used.objective is not Objective.CONTRASTIVE:
            weight = 1.0 if self.regresses_only else self._used.regression_weight
            error = functional.mse_loss(outputs["predicted"], outputs["measured"])
            loss = loss + weight * error
        return loss

    @torch.no_grad()
    def project_patches(self, features: Embeddings, xy_um: npt.NDArray[np.float64]) -> Embeddings:
        """Map features ``(n_patches, feature_dim)`` to embeddings ``(n_patches, dim)``; row by row.

        Raises
        ------
        EmbedderMismatchError
            When the features are not this embedder's.
        """
        if not self.regresses_only:
            return super().project_patches(features, xy_um)
        return self._regress(features)

    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts ``(n_spots, n_genes)`` of one section to ``(n_spots, dim)``.

        Raises
        ------
        GenePanelError
            When less than half of :attr:`gene_names` is among ``genes``.
        """
        if not self.regresses_only:
            return super().embed_expression(counts, genes, xy_um)
        return self._expression(counts, genes)

    def predict_expression(self, features: Embeddings) -> Embeddings:
        """Return the regression head's expression of :attr:`gene_names`.

        Parameters
        ----------
        features
            ``(n_patches, feature_dim)`` from :meth:`encode_patches`.

        Returns
        -------
        Embeddings
            ``(n_patches, n_genes)`` log1p CP10k; under ``compat`` log1p of counts per million of
            the panel. Offsets of single sections cannot be known: values are centred on the
            training sections.
        """
        return self._unscaled(self._regress(features))

    def _unscaled(self, values: Embeddings) -> Embeddings:
        if self._used.expression_input is ExpressionInput.LOG:
            return values
        return np.asarray(values * self.panel.scale + self.panel.mean, dtype=np.float32)

    @torch.no_grad()
    def _regress(self, features: Embeddings) -> Embeddings:
        model = self.scale_model
        check_features(features, self._encoder.dim, name=self.name)
        values = model.regress(torch.from_numpy(features).to(self._device))
        return np.asarray(values.float().cpu().numpy(), dtype=np.float32)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self._asked)

    @classmethod
    def _build(cls, config: Mapping[str, Any], encoder: PatchEncoder | None) -> Self:
        settings = settings_from_dict(M2ostEmbedderSettings, config, where=cls.name)
        return cls(settings, encoder=encoder)
