"""The ``stgchb`` embedder: neighbourhood graphs on both sides of a contrastive joint space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from stretrieve.embedders.bimodal_settings import Head, Start
from stretrieve.embedders.bimodal_start import choose_trained
from stretrieve.embedders.checks import check_features
from stretrieve.embedders.panel import GenePanel
from stretrieve.embedders.stgchb_settings import StgchbSettings
from stretrieve.embedders.stgchb_start import (
    Floats,
    pretrain,
    principal_directions,
    start_convolution,
    start_heads,
)
from stretrieve.embedders.trainable import BatchUnit, ParameterGroup, TrainBatch
from stretrieve.errors import InputError, explain
from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.gcn import aggregate, gather_blocks
from stretrieve.models.hsic import bottleneck_loss
from stretrieve.models.losses import contrastive_loss
from stretrieve.models.stgchb import StgchbModel


class StgchbEmbedder(BimodalEmbedder):
    """ST-GCHB: one graph convolution over neighbouring spots on each side, then a head each.

    A spot's neighbours are gathered once a section (:func:`~stretrieve.models.gcn.aggregate`), from
    features of a tower that runs once; a mini-batch is any rows of the result. When stages of the
    tower are trained, a step runs the tower on the spots of its batch only and takes neighbours as
    they were when training began. A query slide gets its own graph from patch positions; memory
    grows with its number of patches.

    Parameters
    ----------
    settings
        See :class:`~stretrieve.embedders.stgchb_settings.StgchbSettings`.
    encoder
        The image tower, when it has been built already.

    References
    ----------
    Chi et al., ST-GCHB (arXiv 2406.12229), and its released code; ``compat`` keeps to it.
    """

    name: ClassVar[str] = "stgchb"
    needs: ClassVar[str] = (
        "one view and its neighbours; weights of a timm or open_clip tower; seconds of training"
    )

    def __init__(
        self, settings: StgchbSettings | None = None, *, encoder: PatchEncoder | None = None
    ) -> None:
        self._asked = settings or StgchbSettings()
        self._used = self._asked.effective()
        super().__init__(self._used, encoder=encoder)

    @property
    def batch_unit(self) -> BatchUnit:
        """Spots of all sections; of one section in the published form."""
        return BatchUnit.SECTION if self._used.compat else BatchUnit.SPOT

    @property
    def graph_model(self) -> StgchbModel:
        """The fitted network."""
        return cast("StgchbModel", self.model)

    def fit(self, sections: Sequence[SectionPatches], *, progress: Progress = SILENT) -> None:
        """Choose genes, measure features, pre-train the graph convolutions, start the heads.

        Raises
        ------
        InputError
            When there is no section.
        """
        if not sections:
            raise InputError(explain("training sections", got="none", expected="one or more"))
        self._reset_encoder()
        self._panel = GenePanel.fit([s.section for s in sections], n_genes=self._used.n_genes)
        features = [self._fit_features(s, progress) for s in sections]
        linear = self._used.head is not Head.MLP
        dim = self._used.joint.n_components if linear else self._used.dim
        self._model = self._empty_model(len(self._panel), dim).to(self._device)
        self._set_scales(sections, features)
        inputs = [self._own_inputs(s, f) for s, f in zip(sections, features, strict=True)]
        self._start(sections, inputs, progress)

    def _set_scales(self, sections: Sequence[SectionPatches], features: list[Embeddings]) -> None:
        model = self.graph_model
        pooled = np.concatenate(features).astype(np.float64)
        scale = pooled.std(axis=0)
        model.standardise_features(pooled.mean(axis=0), np.where(scale > 1e-8, scale, 1.0))
        expression = np.concatenate(
            [
                super(StgchbEmbedder, self)._expression(s.section.counts, s.section.gene_names)
                for s in sections
            ]
        )
        directions = principal_directions(expression, model.expression_basis.shape[1])
        model.set_basis(directions, expression.mean(axis=0))

    def _expression(self, counts: sparse.csr_matrix, genes: Sequence[str]) -> Floats:
        """Return expression components of a section, not gathered."""
        return self.graph_model.components(super()._expression(counts, genes))

    def _graphs(
        self, xy_um: npt.NDArray[np.float64]
    ) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Return what patches and what expression are gathered over."""
        positions = np.asarray(xy_um, dtype=np.float64)
        used = self._used
        return used.graph.build(positions), used.expression_graph().build(positions)

    def _own_inputs(self, patches: SectionPatches, features: Embeddings) -> tuple[Floats, Floats]:
        """Return standardised features and expression components of a section, not gathered."""
        section = patches.section
        return self.graph_model.standardise(features), self._expression(
            section.counts, section.gene_names
        )

    def _start(
        self,
        sections: Sequence[SectionPatches],
        inputs: Sequence[tuple[Floats, Floats]],
        progress: Progress,
    ) -> None:
        model, used = self.graph_model, self._used
        graphs = [self._graphs(s.section.xy_um) for s in sections]
        gathered = [
            (aggregate(near[0], own[0]), aggregate(near[1], own[1]))
            for near, own in zip(graphs, inputs, strict=True)
        ]
        closed_form = used.start is Start.CLOSED_FORM or used.head is Head.CLOSED_FORM
        for side, name in enumerate(("image", "expression")):
            convolution = getattr(model, f"{name}_gcn")
            if closed_form:
                start_convolution(convolution, np.concatenate([pair[side] for pair in gathered]))
            pretrain(
                convolution,
                [pair[side] for pair in inputs],
                [pair[side] for pair in graphs],
                settings=used.infomax,
                seed=used.seed + side,
                label=f"infomax on {name}",
                progress=progress,
            )
        if closed_form:
            groups = [s.section.meta.patient for s in sections]
            start_heads(model, gathered, groups=groups, settings=used.joint)

    def _empty_model(self, n_genes: int, dim: int) -> StgchbModel:
        used = self._used
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(used.seed)
            model = StgchbModel(
                self._encoder,
                n_genes=n_genes,
                n_components=min(used.expression_components, n_genes),
                code_width=used.code_width,
                dim=dim,
                dropout=used.dropout,
                linear=used.head is not Head.MLP,
            )
        choose_trained(used, self._encoder)
        return model.eval()

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return graph convolutions and heads, and the tower's trained stages."""
        groups = list(super().parameter_groups())
        if groups:
            rates, model = self._used.rates, self.graph_model
            layers = [*model.image_gcn.parameters(), *model.expression_gcn.parameters()]
            groups.append(ParameterGroup("graph", layers, rates.heads, rates.weight_decay))
        return groups

    def spot_inputs(self, patches: SectionPatches) -> Mapping[str, npt.NDArray[Any]]:
        """Return inputs of both graph convolutions, each spot's own and gathered ones."""
        features, expression = self._own_inputs(patches, self.section_features(patches))
        image_graph, expression_graph = self._graphs(patches.section.xy_um)
        return {
            "features": aggregate(image_graph, features),
            "expression": aggregate(expression_graph, expression),
            "own_features": features,
            "own_expression": expression,
            "own_weight": image_graph.diagonal().astype(np.float32)[:, None],
        }

    def encode_batch(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Return embeddings, codes and inputs of both sides."""
        inputs = {name: tensor.to(self._device) for name, tensor in batch.inputs.items()}
        features, own = inputs["features"], inputs["own_features"]
        if self.trains_pixels:
            fresh = self.graph_model.scale_features(self._encoder(batch.views[0]))
            features = features + inputs["own_weight"] * (fresh - own)
            own = fresh
        both = self.graph_model.both_sides(features, inputs["expression"])
        return {
            "image": both.image,
            "expression": both.expression,
            "image_codes": both.image_codes,
            "expression_codes": both.expression_codes,
            "image_inputs": own,
            "expression_inputs": inputs["own_expression"],
            "image_features": features,
            "expression_features": inputs["expression"],
        }

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return contrastive loss and HSIC bottleneck of a whole batch."""
        loss = contrastive_loss(
            outputs["image"],
            outputs["expression"],
            settings=self._used.loss,
            image_features=outputs["image_features"].detach(),
            expression_features=outputs["expression_features"].detach(),
        )
        if self._used.bottleneck_weight and len(outputs["image"]) > 1:
            for side in ("image", "expression"):
                kept = bottleneck_loss(
                    outputs[f"{side}_inputs"],
                    outputs[f"{side}_codes"],
                    outputs[side],
                    settings=self._used.bottleneck,
                    image_side=side == "image",
                )
                loss = loss + self._used.bottleneck_weight * kept
        return loss

    @property
    def is_row_wise(self) -> bool:
        """A patch is mapped together with its neighbours."""
        return False

    def project_patches(self, features: Embeddings, xy_um: npt.NDArray[np.float64]) -> Embeddings:
        """Map features ``(n_patches, feature_dim)`` of a whole slide to ``(n_patches, dim)``.

        Patches are joined to their neighbours among those given.

        Raises
        ------
        EmbedderMismatchError
            When the features are not this embedder's.
        """
        model = self.graph_model
        check_features(features, self._encoder.dim, name=self.name)
        graph, _ = self._graphs(xy_um)
        return self._project(graph, features, model.project_image, prepare=model.standardise)

    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts ``(n_spots, n_genes)`` of one section to ``(n_spots, dim)``.

        Raises
        ------
        GenePanelError
            When less than half of :attr:`gene_names` is among ``genes``.
        """
        model = self.graph_model
        _, graph = self._graphs(xy_um)
        values = self._expression(counts, genes)
        return self._project(graph, values, model.project_expression)

    @torch.no_grad()
    def _project(
        self,
        graph: sparse.csr_matrix,
        values: Floats,
        project: Callable[[Tensor], Tensor],
        *,
        prepare: Callable[[Floats], Floats] | None = None,
    ) -> Embeddings:
        embeddings = np.empty((len(values), self.dim), dtype=np.float32)
        for rows, gathered in gather_blocks(graph, values, prepare=prepare):
            part = project(torch.from_numpy(gathered).to(self._device))
            embeddings[rows] = part.float().cpu().numpy()
        return embeddings

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self._asked)

    @classmethod
    def _build(cls, config: Mapping[str, Any], encoder: PatchEncoder | None) -> Self:
        return cls(settings_from_dict(StgchbSettings, config, where=cls.name), encoder=encoder)
