"""Two towers and two heads: patches and expression into one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.projection import KernelHead, LinearHead, ProjectionHead


@dataclass(frozen=True)
class BimodalOutput:
    """Both sides of a batch.

    Parameters
    ----------
    image, expression
        ``(batch, dim)`` embeddings.
    image_features, expression_features
        ``(batch, ·)`` inputs of the heads.
    """

    image: Tensor
    expression: Tensor
    image_features: Tensor
    expression_features: Tensor


class ExpressionEncoder(nn.Module):
    """A small residual perceptron over expression.

    Parameters
    ----------
    in_features
        Genes.
    width
        Units of the hidden and the output layer.
    dropout
        Probability of dropping a hidden unit.
    """

    def __init__(self, in_features: int, *, width: int, dropout: float) -> None:
        super().__init__()
        self.reduce = nn.Linear(in_features, width)
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout)
        )
        self.dim = width

    def forward(self, expression: Tensor) -> Tensor:
        """Map expression ``(batch, n_genes)`` to features ``(batch, width)``."""
        reduced = self.reduce(expression)
        return cast("Tensor", reduced + self.body(reduced))


class BimodalModel(nn.Module):
    """An image encoder, an optional expression encoder, and a projection head for each.

    Parameters
    ----------
    image_encoder
        Tower for patches.
    n_genes
        Width of the expression input.
    dim
        Width of the joint space.
    dropout
        Of the heads and the expression encoder.
    expression_width
        Width of the expression encoder; 0 feeds expression straight into its head, as published.
    linear
        Plain linear heads in place of BLEEP's residual ones.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        image_encoder: PatchEncoder,
        *,
        n_genes: int,
        dim: int = 256,
        dropout: float = 0.1,
        expression_width: int = 0,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.expression_encoder: nn.Module = (
            ExpressionEncoder(n_genes, width=expression_width, dropout=dropout)
            if expression_width
            else nn.Identity()
        )
        expression_dim = expression_width or n_genes
        self.image_projection: ProjectionHead | LinearHead | KernelHead
        self.expression_projection: ProjectionHead | LinearHead
        if linear:
            self.image_projection = LinearHead(image_encoder.dim, dim=dim)
            self.expression_projection = LinearHead(expression_dim, dim=dim)
        else:
            self.image_projection = ProjectionHead(image_encoder.dim, dim=dim, dropout=dropout)
            self.expression_projection = ProjectionHead(expression_dim, dim=dim, dropout=dropout)
        self.register_buffer("feature_mean", torch.zeros(image_encoder.dim))
        self.register_buffer("feature_scale", torch.ones(image_encoder.dim))

    def use_kernel(self, n_landmarks: int) -> KernelHead:
        """Put an unset kernel head in place of the image head, and return it."""
        head = KernelHead(
            len(self.feature_mean), n_landmarks=n_landmarks, dim=self.image_projection.dim
        )
        self.image_projection = head.to(self.feature_mean.device)
        return head

    @torch.no_grad()
    def standardise_features(
        self, mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
    ) -> None:
        """Set the statistics ``(feature_dim,)`` by which features are scaled before their head."""
        self.feature_mean.copy_(torch.from_numpy(mean))
        self.feature_scale.copy_(torch.from_numpy(scale))

    def scale_features(self, features: Tensor) -> Tensor:
        """Standardise backbone features ``(batch, feature_dim)``."""
        return (features - self.feature_mean) / self.feature_scale

    def project_image(self, features: Tensor) -> Tensor:
        """Map backbone features ``(batch, feature_dim)`` to embeddings ``(batch, dim)``."""
        return cast("Tensor", self.image_projection(self.scale_features(features)))

    def project_expression(self, expression: Tensor) -> Tensor:
        """Map scaled expression ``(batch, n_genes)`` to embeddings ``(batch, dim)``."""
        return cast("Tensor", self.expression_projection(self.expression_encoder(expression)))

    def forward(self, features: Tensor, expression: Tensor) -> BimodalOutput:
        """Embed both sides of a batch.

        Parameters
        ----------
        features
            ``(batch, feature_dim)`` backbone features.
        expression
            ``(batch, n_genes)`` scaled expression.
        """
        scaled = self.scale_features(features)
        return BimodalOutput(
            image=self.image_projection(scaled),
            expression=self.project_expression(expression),
            image_features=scaled,
            expression_features=expression,
        )
