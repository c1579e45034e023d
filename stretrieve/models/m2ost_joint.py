"""M2OST with heads of a joint space beside its regression head."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stretrieve.models.bimodal import BimodalModel
from stretrieve.models.encoders import PatchEncoder


class M2ostModel(BimodalModel):
    """The many-to-one encoder, a head for each modality, and a linear regression of expression.

    Parameters
    ----------
    image_encoder
        The many-to-one encoder.
    n_genes
        Width of the gene panel.
    dim
        Width of the joint space.
    dropout
        Of the heads.
    linear
        Plain linear heads in place of BLEEP's residual ones.
    """

    def __init__(
        self,
        image_encoder: PatchEncoder,
        *,
        n_genes: int,
        dim: int = 256,
        dropout: float = 0.1,
        linear: bool = False,
    ) -> None:
        super().__init__(image_encoder, n_genes=n_genes, dim=dim, dropout=dropout, linear=linear)
        self.regression = nn.Linear(image_encoder.dim, n_genes)

    def regress(self, features: Tensor) -> Tensor:
        """Map features ``(batch, feature_dim)`` to scaled expression ``(batch, n_genes)``."""
        return cast("Tensor", self.regression(self.scale_features(features)))

    @torch.no_grad()
    def start_regression(
        self, linear_map: npt.NDArray[np.floating], offset: npt.NDArray[np.floating]
    ) -> None:
        """Let the regression head compute a linear map of standardised features.

        Parameters
        ----------
        linear_map
            ``(feature_dim, n_genes)``.
        offset
            ``(n_genes,)``.
        """
        weight = np.ascontiguousarray(linear_map.T, dtype=np.float32)
        self.regression.weight.copy_(torch.from_numpy(weight))
        self.regression.bias.copy_(torch.from_numpy(np.asarray(offset, dtype=np.float32)))
