"""mclSTExp's spot transformer: expression and position of a section's spots under attention.

Source: Min et al., "Multimodal contrastive learning for spatial gene expression prediction using
histology images" (Briefings in Bioinformatics, 2024), attention form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every torch user reads

from stretrieve.errors import EmbedderMismatchError, ShapeError, explain

_QUERY_BLOCK = 2048


class SpotAttentionBlock(nn.Module):
    """Attention among spots, then a token-wise network, each after normalisation and added.

    Parameters
    ----------
    width
        Width of a spot.
    heads, dim_head
        Number of heads and their width.
    dropout
        Share of hidden units dropped in training.
    """

    def __init__(self, width: int, *, heads: int, dim_head: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim_head
        inner = heads * dim_head
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_hidden = nn.Linear(width, width)
        self.mlp_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, spots: Tensor) -> Tensor:
        """Return ``(n_spots, width)`` from spots of one section ``(n_spots, width)``."""
        spots = spots + self.dropout(self.out(self._attend(self.attention_norm(spots))))
        hidden = self.dropout(F.gelu(self.mlp_hidden(self.mlp_norm(spots))))
        out: Tensor = spots + self.dropout(self.mlp_out(hidden))
        return out

    def _attend(self, spots: Tensor) -> Tensor:
        """Attend in blocks of queries, so that memory grows with the number of spots only."""
        shape = (len(spots), 3, self.heads, self.dim_head)
        query, key, value = self.qkv(spots).reshape(shape).permute(1, 2, 0, 3)
        blocks = [
            F.scaled_dot_product_attention(part[None], key[None], value[None])[0]
            for part in query.split(_QUERY_BLOCK, dim=1)
        ]
        return torch.cat(blocks, dim=1).transpose(0, 1).flatten(1)


class SpotTransformer(nn.Module):
    """Adds learned row and column positions to expression and mixes the spots of a section.

    Parameters
    ----------
    width
        Width of a spot: the number of genes as published, or of a linear map of them.
    n_positions
        Length of each position table (published: 65,536).
    heads, dim_head
        Heads of each attention block and their width (published: 8 and 64).
    depth
        Number of attention blocks (published: 2).
    dropout
        Share of hidden units dropped in training (published: 0).
    """

    def __init__(
        self,
        width: int,
        *,
        n_positions: int,
        heads: int,
        dim_head: int,
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.n_positions = width, n_positions
        self.x_embed = nn.Embedding(n_positions, width)
        self.y_embed = nn.Embedding(n_positions, width)
        self.blocks = nn.ModuleList(
            SpotAttentionBlock(width, heads=heads, dim_head=dim_head, dropout=dropout)
            for _ in range(depth)
        )

    def forward(self, expression: Tensor, positions: Tensor) -> Tensor:
        """Return ``(n_spots, width)``.

        Parameters
        ----------
        expression
            ``(n_spots, width)``, all spots of one section.
        positions
            ``(n_spots, 2)`` integers (column, row) from 0 to ``n_positions - 1``.

        Raises
        ------
        ShapeError
            When the arrays do not fit each other, or a position lies outside the tables.
        """
        if positions.shape != (len(expression), 2) or expression.shape[1] != self.width:
            got = f"{tuple(expression.shape)} and {tuple(positions.shape)}"
            raise ShapeError(
                explain("expression and positions", got=got, expected=f"(n, {self.width}), (n, 2)")
            )
        outside = (positions < 0) | (positions >= self.n_positions)
        if bool(outside.any()):
            raise ShapeError(
                explain(
                    "spot positions",
                    got=f"{int(positions.min())} to {int(positions.max())}",
                    expected=f"0 to {self.n_positions - 1}",
                )
            )
        spots = expression + self.x_embed(positions[:, 0]) + self.y_embed(positions[:, 1])
        for block in self.blocks:
            spots = block(spots)
        return cast("Tensor", spots)


_BLOCK_NAMES = {
    "attention_norm.weight": "attn.norm.weight",
    "attention_norm.bias": "attn.norm.bias",
    "qkv.weight": "attn.fn.to_qkv.weight",
    "out.weight": "attn.fn.to_out.0.weight",
    "out.bias": "attn.fn.to_out.0.bias",
    "mlp_norm.weight": "ff.norm.weight",
    "mlp_norm.bias": "ff.norm.bias",
    "mlp_hidden.weight": "ff.fn.net.0.weight",
    "mlp_hidden.bias": "ff.fn.net.0.bias",
    "mlp_out.weight": "ff.fn.net.3.weight",
    "mlp_out.bias": "ff.fn.net.3.bias",
}


def published_names(depth: int) -> dict[str, str]:
    """Return the names of all weights of :class:`SpotTransformer`: ours to the released code's."""
    return dict(_names(depth))


def _names(depth: int) -> Iterator[tuple[str, str]]:
    for table in ("x_embed.weight", "y_embed.weight"):
        yield table, table
    for block in range(depth):
        for ours, theirs in _BLOCK_NAMES.items():
            yield f"blocks.{block}.{ours}", f"spot_encoder.{block}.{theirs}"


def from_published(state: Mapping[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """Return the released code's weights of the spot transformer under our names.

    Raises
    ------
    EmbedderMismatchError
        When a weight is missing.
    """
    names = published_names(depth)
    missing = [theirs for theirs in names.values() if theirs not in state]
    if missing:
        raise EmbedderMismatchError(
            explain("mclSTExp weights", got=f"no {missing[0]!r}", expected=f"{len(names)} arrays")
        )
    return {ours: state[theirs] for ours, theirs in names.items()}
