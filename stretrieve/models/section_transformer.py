"""mclSTExp's network: an image tower, a spot transformer over a section, and a head on each side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stretrieve.errors import ConfigError, explain
from stretrieve.models.bimodal import BimodalModel
from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.mclstexp import SpotTransformer
from stretrieve.models.projection import LinearHead, ProjectionHead


@dataclass(frozen=True)
class TransformerSettings:
    """Sizes of the spot transformer.

    Parameters
    ----------
    width
        Width of a spot inside it: a linear map of the genes; 0 for the genes themselves, as
        published.
    n_positions
        Length of each position table (published: 65,536); positions beyond it share the last entry.
    position_um
        Microns per entry.
    heads, dim_head
        Heads of each attention block and their width (published: 8 and 64).
    depth
        Attention blocks (published: 2).
    """

    width: int = 128
    n_positions: int = 512
    position_um: float = 100.0
    heads: int = 8
    dim_head: int = 64
    depth: int = 2

    def __post_init__(self) -> None:
        sizes = (self.n_positions, self.heads, self.dim_head, self.depth)
        if min(sizes) < 1 or self.width < 0 or not self.position_um > 0:
            raise ConfigError(explain("transformer", got=self, expected="numbers above 0"))


class SectionTransformerModel(BimodalModel):
    """An image tower with a head, and expression of a whole section through a spot transformer.

    Parameters
    ----------
    image_encoder
        Tower for patches.
    n_genes
        Width of the gene panel.
    transformer
        Sizes of the spot transformer.
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
        transformer: TransformerSettings,
        dim: int = 256,
        dropout: float = 0.1,
        linear: bool = False,
    ) -> None:
        super().__init__(image_encoder, n_genes=n_genes, dim=dim, dropout=dropout, linear=linear)
        width = transformer.width or n_genes
        self.reduce: nn.Module = (
            nn.Linear(n_genes, width, bias=False) if transformer.width else nn.Identity()
        )
        self.spot_transformer = SpotTransformer(
            width,
            n_positions=transformer.n_positions,
            heads=transformer.heads,
            dim_head=transformer.dim_head,
            depth=transformer.depth,
        )
        self.expression_projection = (
            LinearHead(width, dim=dim)
            if linear
            else ProjectionHead(width, dim=dim, dropout=dropout)
        )

    def section_codes(self, expression: Tensor, positions: Tensor) -> Tensor:
        """Return ``(n_spots, width)`` of all spots that shall see each other.

        Parameters
        ----------
        expression
            ``(n_spots, n_genes)`` scaled expression.
        positions
            ``(n_spots, 2)`` entries of the position tables.
        """
        return cast("Tensor", self.spot_transformer(self.reduce(expression), positions))

    @torch.no_grad()
    def start_near_identity(self, directions: npt.NDArray[np.floating]) -> None:
        """Make the transformer return expression components, to be refined from there.

        Both residual branches of every block start at zero and positions small.

        Parameters
        ----------
        directions
            ``(n_genes, n)`` principal directions of expression, ``n`` up to the width.
        """
        if isinstance(self.reduce, nn.Linear):
            nn.init.zeros_(self.reduce.weight)
            n = min(directions.shape[1], self.reduce.out_features)
            start = torch.from_numpy(np.asarray(directions[:, :n].T, dtype=np.float32))
            self.reduce.weight[:n] = start
        for table in (self.spot_transformer.x_embed, self.spot_transformer.y_embed):
            nn.init.zeros_(table.weight)
        for block in self.spot_transformer.blocks:
            for name in ("out", "mlp_out"):
                layer = getattr(block, name)
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def reduced_map(self, linear_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return a linear map of genes ``(n_genes, n)`` as one of reduced spots ``(width, n)``."""
        if not isinstance(self.reduce, nn.Linear):
            return linear_map
        weight = self.reduce.weight.cpu().numpy()
        return np.asarray(weight @ linear_map, dtype=np.float32)


def table_positions(
    xy_um: npt.NDArray[np.float64], settings: TransformerSettings
) -> npt.NDArray[np.int64]:
    """Return the entries ``(n_spots, 2)`` of the position tables for spots of one section.

    Positions count from the middle of the section, so that sections of any size and offset use the
    same entries.

    Parameters
    ----------
    xy_um
        ``(n_spots, 2)`` centres in microns.
    settings
        Pitch and length of the tables.
    """
    if len(xy_um) == 0:
        return np.empty((0, 2), dtype=np.int64)
    middle = (xy_um.min(axis=0) + xy_um.max(axis=0)) / 2
    entries = np.round((xy_um - middle) / settings.position_um) + settings.n_positions // 2
    return np.asarray(np.clip(entries, 0, settings.n_positions - 1), dtype=np.int64)
