"""M2OST: one expression profile from several fields of view around the same spot.

Each level is an image of the same number of pixels and twice the field of the one before. Level
*i* is cut into squares of ``patch_px`` over its whole field, of half the side over its central half,
of a quarter over its central quarter and so on, so that all levels see the spot itself at one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stretrieve.errors import ConfigError, ShapeError, explain
from stretrieve.models.m2ost_blocks import (
    ChannelMixing,
    CrossScaleAttention,
    IntraScaleAttention,
    Levels,
    PatchEmbedding,
    SharedMlp,
    centre_crop,
)
from stretrieve.specs import MAX_VIEWS

PUBLISHED_PARAMETERS = 6_810_000
"""Parameters at depth 4 as the paper states them; the released code counts 7.04 M."""
PUBLISHED_FLOPS = 2_240_000_000
"""FLOPs of one spot as the paper states them."""


@dataclass(frozen=True, slots=True)
class M2ostSettings:
    """Sizes of the network; the defaults are the published ones.

    Parameters
    ----------
    n_levels
        Fields of view, 1 to 4 (published: 3).
    image_px
        Side of each level's image.
    patch_px
        Side of the largest squares.
    width
        Width of a token; the output is ``n_levels * width`` wide.
    depth
        Number of blocks.
    heads
        Heads of the attention within a level (the released code's ``heads`` is for three levels).
    cross_heads
        Heads of the attention across levels.
    dim_head
        Width of a head.
    mlp_hidden
        Hidden width of the token-wise network.
    gate_hidden
        Hidden width of the channel gate; 0 for two thirds of the output width, as published.
    dropout
        Share of hidden units dropped in training.
    mask
        Share of a level's tokens that a token does not see in training (the paper's random mask
        self-attention; 0 as in the released code).
    """

    n_levels: int = 3
    image_px: int = 224
    patch_px: int = 16
    width: int = 192
    depth: int = 4
    heads: int = 3
    cross_heads: int = 3
    dim_head: int = 64
    mlp_hidden: int = 128
    gate_hidden: int = 0
    dropout: float = 0.0
    mask: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mask < 1:
            raise ConfigError(explain("M2OST mask", got=self.mask, expected="0 to below 1"))
        if not 1 <= self.n_levels <= MAX_VIEWS:
            raise ConfigError(explain("n_levels", got=self.n_levels, expected=f"1 to {MAX_VIEWS}"))
        sizes = (
            self.width,
            self.depth,
            self.heads,
            self.cross_heads,
            self.dim_head,
            self.mlp_hidden,
        )
        if min(sizes) < 1 or self.gate_hidden < 0:
            raise ConfigError(explain("M2OST sizes", got=sizes, expected="numbers above 0"))
        finest = 1 << (self.n_levels - 1)
        if self.patch_px % finest or self.image_px % self.patch_px or self.image_px % (2 * finest):
            raise ConfigError(
                explain(
                    "M2OST patch_px and image_px",
                    got=f"{self.patch_px} and {self.image_px}",
                    expected=f"patch_px a multiple of {finest}, image_px of it and of {2 * finest}",
                )
            )

    @property
    def dim(self) -> int:
        """Width of the output before the regression head."""
        return self.n_levels * self.width

    @property
    def n_squares(self) -> int:
        """Squares of one grain, the same for every grain."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def n_tokens(self) -> tuple[int, ...]:
        """Tokens of each level, its class token included."""
        return tuple((i + 1) * self.n_squares + 1 for i in range(self.n_levels))

    @property
    def gate_width(self) -> int:
        """Hidden width of the channel gate."""
        return self.gate_hidden or 2 * self.dim // 3


class M2ostBlock(nn.Module):
    """Mixing within levels, across levels and of channels."""

    def __init__(self, settings: M2ostSettings) -> None:
        super().__init__()
        s = settings
        self.intra = IntraScaleAttention(
            s.n_levels, s.width, heads=s.heads, dim_head=s.dim_head, mask=s.mask
        )
        self.mlp = SharedMlp(s.width, hidden=s.mlp_hidden, dropout=s.dropout)
        self.cross: nn.Module = nn.Identity()
        if s.n_levels > 1:
            self.cross = CrossScaleAttention(
                s.n_levels, s.width, heads=s.cross_heads, dim_head=s.dim_head
            )
        self.channels = ChannelMixing(s.dim, hidden=s.gate_width, dropout=s.dropout)

    def forward(self, levels: Levels) -> Levels:
        """Return the levels after one block."""
        mixed: Levels = self.channels(self.cross(self.mlp(self.intra(levels))))
        return mixed


class M2ost(nn.Module):
    """The many-to-one transformer without its regression head.

    Parameters
    ----------
    settings
        Sizes.
    """

    def __init__(self, settings: M2ostSettings) -> None:
        super().__init__()
        s = settings
        self.settings = s
        self.grains = nn.ModuleList(
            PatchEmbedding(s.patch_px >> j, hidden=max(s.dim >> j, 1), width=s.width)
            for j in range(s.n_levels)
        )
        self.class_token = nn.Parameter(torch.randn(1, 1, s.width))
        self.positions = nn.ParameterList(torch.randn(1, n, s.width) for n in s.n_tokens)
        self.blocks = nn.ModuleList(M2ostBlock(s) for _ in range(s.depth))
        self.norm = nn.LayerNorm(s.width)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Return the joined class tokens.

        Parameters
        ----------
        views
            One tensor a level, finest first, ``(batch, 3, image_px, image_px)``.

        Returns
        -------
        Tensor
            ``(batch, n_levels * width)``.

        Raises
        ------
        ShapeError
            When the number or the shape of the views is wrong.
        """
        self._check(views)
        levels = [self._tokens(i, view) for i, view in enumerate(views)]
        for block in self.blocks:
            levels = block(levels)
        return torch.cat([self.norm(x[:, 0]) for x in levels], dim=-1)

    def _tokens(self, level: int, view: Tensor) -> Tensor:
        """Return class token and squares of a level, smallest squares first, plus positions."""
        squares = [self.grains[j](centre_crop(view, j)) for j in range(level, -1, -1)]
        first = self.class_token.expand(len(view), -1, -1)
        position: Tensor = self.positions[level]
        return torch.cat([first, *squares], dim=1) + position

    def _check(self, views: Sequence[Tensor]) -> None:
        side = self.settings.image_px
        shapes = [tuple(v.shape[1:]) for v in views]
        if len(views) != self.settings.n_levels or any(s != (3, side, side) for s in shapes):
            raise ShapeError(
                explain(
                    "M2OST views",
                    got=shapes,
                    expected=f"{self.settings.n_levels} of (3, {side}, {side}) each",
                )
            )


class M2ostRegressor(nn.Module):
    """M2OST with its linear regression head, as published.

    Parameters
    ----------
    settings
        Sizes of the network.
    n_outputs
        Number of genes.
    """

    def __init__(self, settings: M2ostSettings, *, n_outputs: int) -> None:
        super().__init__()
        self.encoder = M2ost(settings)
        self.head = nn.Linear(settings.dim, n_outputs)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Return ``(batch, n_outputs)`` from views as in :meth:`M2ost.forward`."""
        out: Tensor = self.head(self.encoder(views))
        return out
