"""ST-GCHB's network: a graph convolution on both sides, then BLEEP's heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stretrieve.models.bimodal import BimodalModel
from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.gcn import GraphConvolution
from stretrieve.models.projection import LinearHead, ProjectionHead


@dataclass(frozen=True)
class StgchbOutput:
    """Both sides of a batch.

    Parameters
    ----------
    image, expression
        ``(batch, dim)`` embeddings.
    image_codes, expression_codes
        ``(batch, code_width)`` outputs of the graph convolutions.
    """

    image: Tensor
    expression: Tensor
    image_codes: Tensor
    expression_codes: Tensor


class StgchbModel(BimodalModel):
    """An image tower, an expression basis, a graph convolution and a head on each side.

    All inputs are *gathered*: sums over each spot's neighbours, weighted by the graph
    (:func:`~stretrieve.models.gcn.aggregate`), of standardised features and of expression components.
    A single graph convolution needs no more, and any rows of a section can make a mini-batch.

    Parameters
    ----------
    image_encoder
        Tower for patches.
    n_genes
        Width of the gene panel.
    n_components
        Principal components of expression that enter the graph convolution.
    code_width
        Width of the graph convolutions' outputs.
    dim
        Width of the joint space.
    dropout
        Of the heads.
    linear
        Plain linear heads in place of BLEEP's residual ones.
    """

    expression_basis: Tensor
    expression_offset: Tensor

    def __init__(
        self,
        image_encoder: PatchEncoder,
        *,
        n_genes: int,
        n_components: int,
        code_width: int = 256,
        dim: int = 128,
        dropout: float = 0.4,
        linear: bool = False,
    ) -> None:
        super().__init__(image_encoder, n_genes=n_genes, dim=dim, linear=True)
        self.register_buffer("expression_basis", torch.zeros(n_genes, n_components))
        self.register_buffer("expression_offset", torch.zeros(n_genes))
        self.image_gcn = GraphConvolution(image_encoder.dim, code_width)
        self.expression_gcn = GraphConvolution(n_components, code_width)
        for side in ("image", "expression"):
            head: LinearHead | ProjectionHead = (
                LinearHead(code_width, dim=dim)
                if linear
                else ProjectionHead(code_width, dim=dim, dropout=dropout)
            )
            setattr(self, f"{side}_projection", head)

    @torch.no_grad()
    def set_basis(self, basis: npt.NDArray[np.floating], offset: npt.NDArray[np.floating]) -> None:
        """Set the principal directions ``(n_genes, n_components)`` and the mean ``(n_genes,)``."""
        self.expression_basis.copy_(torch.from_numpy(np.asarray(basis, dtype=np.float32)))
        self.expression_offset.copy_(torch.from_numpy(np.asarray(offset, dtype=np.float32)))

    @torch.no_grad()
    def components(self, expression: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return principal components ``(n_spots, n_components)`` of ``(n_spots, n_genes)``."""
        values = torch.from_numpy(expression).to(self.expression_basis.device)
        scores = (values - self.expression_offset) @ self.expression_basis
        return np.asarray(scores.cpu().numpy(), dtype=np.float32)

    @torch.no_grad()
    def standardise(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return standardised features ``(n_patches, feature_dim)``."""
        values = torch.from_numpy(np.asarray(features)).to(self.feature_mean.device)
        return np.asarray(self.scale_features(values).cpu().numpy(), dtype=np.float32)

    def project_image(self, features: Tensor) -> Tensor:
        """Map gathered, standardised features ``(batch, feature_dim)`` to ``(batch, dim)``."""
        return cast("Tensor", self.image_projection(self.image_gcn(features)))

    def project_expression(self, expression: Tensor) -> Tensor:
        """Map gathered expression components ``(batch, n_components)`` to ``(batch, dim)``."""
        return cast("Tensor", self.expression_projection(self.expression_gcn(expression)))

    def both_sides(self, features: Tensor, expression: Tensor) -> StgchbOutput:
        """Embed both sides of a batch, codes included; inputs as in the two methods above."""
        image_codes, expression_codes = self.image_gcn(features), self.expression_gcn(expression)
        return StgchbOutput(
            image=self.image_projection(image_codes),
            expression=self.expression_projection(expression_codes),
            image_codes=image_codes,
            expression_codes=expression_codes,
        )
