"""The projection head that maps features of either modality into the joint space."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from stretrieve.errors import ShapeError, explain


class ProjectionHead(nn.Module):
    """BLEEP's residual head: a linear map, a one-layer correction, layer normalisation.

    With ``p = W1 x + b1`` the output is ``LayerNorm(p + Dropout(W2 GELU(p) + b2))``. Submodules
    carry the names of the published ``state_dict``, so that published weights load unchanged.

    Parameters
    ----------
    in_features
        Width of the features.
    dim
        Width of the joint space.
    dropout
        Probability of dropping a unit of the correction.

    References
    ----------
    Xie et al., "Spatially Resolved Gene Expression Prediction from H&E Histology Images via
    Bi-modal Contrastive Learning", NeurIPS 2023.
    """

    def __init__(self, in_features: int, *, dim: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Linear(in_features, dim)
        self.gelu = nn.GELU()
        self.fc = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim)

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self.projection.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(batch, in_features)`` to embeddings ``(batch, dim)``."""
        projected = self.projection(features)
        corrected = projected + self.dropout(self.fc(self.gelu(projected)))
        return cast("Tensor", self.layer_norm(corrected))

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Make the head compute a given linear map, up to the length of the output.

        The map and its negative are written side by side, so that the mean over the ``dim`` outputs
        is zero and layer normalisation only rescales: cosines in the joint space are the cosines of
        the linear map. The correction starts at zero.

        Parameters
        ----------
        weight
            ``(rank, in_features)`` with ``2 * rank <= dim``.
        bias
            ``(rank,)``.

        Raises
        ------
        ShapeError
            When the map has too many rows for the head.
        """
        rank = weight.shape[0]
        if 2 * rank > self.dim or weight.shape[1] != self.projection.in_features:
            expected = f"(<= {self.dim // 2}, {self.projection.in_features})"
            raise ShapeError(
                explain(
                    "linear start of a projection head", got=tuple(weight.shape), expected=expected
                )
            )
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.projection.weight[: 2 * rank] = torch.cat([weight, -weight])
        self.projection.bias[: 2 * rank] = torch.cat([bias, -bias])
        for part in (self.fc.weight, self.fc.bias, self.layer_norm.bias):
            nn.init.zeros_(part)
        nn.init.ones_(self.layer_norm.weight)


class KernelHead(nn.Module):
    """A linear map of the values of :class:`~stretrieve.models.kernels.Kernel`; nothing is trained.

    Parameters
    ----------
    in_features
        Width of the features.
    n_landmarks
        Landmarks of the kernel.
    dim
        Width of the joint space.
    """

    landmarks: Tensor
    width: Tensor

    def __init__(self, in_features: int, *, n_landmarks: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(n_landmarks, dim, dtype=torch.float64)
        self.register_buffer("landmarks", torch.zeros(n_landmarks, in_features).double())
        self.register_buffer("width", torch.ones((), dtype=torch.float64))

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self.projection.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(batch, in_features)`` to embeddings ``(batch, dim)``."""
        wide = features.double()
        near = torch.exp(-(torch.cdist(wide, self.landmarks) ** 2) / self.width)
        values = near + wide @ self.landmarks.T / wide.shape[1]
        return cast("Tensor", self.projection(values).float())

    @torch.no_grad()
    def start(self, landmarks: Tensor, width: float, weight: Tensor) -> None:
        """Take over ``(n_landmarks, in_features)``, a width and a map ``(dim, n_landmarks)``."""
        self.landmarks.copy_(landmarks)
        self.width.fill_(width)
        self.projection.weight.copy_(weight)
        nn.init.zeros_(self.projection.bias)


class LinearHead(nn.Module):
    """A plain linear map into the joint space.

    Parameters
    ----------
    in_features
        Width of the features.
    dim
        Width of the joint space.
    """

    def __init__(self, in_features: int, *, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(in_features, dim)

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self.projection.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(batch, in_features)`` to embeddings ``(batch, dim)``."""
        return cast("Tensor", self.projection(features))

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Take over a linear map: ``(rank, in_features)`` and ``(rank,)`` with ``rank <= dim``.

        Raises
        ------
        ShapeError
            When the map has too many rows for the head.
        """
        rank = weight.shape[0]
        if rank > self.dim or weight.shape[1] != self.projection.in_features:
            expected = f"(<= {self.dim}, {self.projection.in_features})"
            raise ShapeError(
                explain("linear start of a linear head", got=tuple(weight.shape), expected=expected)
            )
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.projection.weight[:rank] = weight
        self.projection.bias[:rank] = bias
