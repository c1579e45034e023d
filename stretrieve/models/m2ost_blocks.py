"""The parts of M2OST: patch embeddings of three grains, and the mixing within and across scales.

All modules carry one token sequence a level, each ``(batch, n_tokens, width)``, as a list.
Source: "M2OST: Many-to-one Regression for Predicting Spatial Transcriptomics from Digital Pathology
Images" (arXiv 2409.15092) and the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every torch user reads

Levels = list[Tensor]


def centre_crop(images: Tensor, halvings: int) -> Tensor:
    """Return the central part of images, its side halved ``halvings`` times.

    The released code cuts the centre *quarter* of the coarsest level off-centre and too large,
    which makes its forward pass fail; here it spans 3/8 to 5/8 of the side.

    Parameters
    ----------
    images
        ``(batch, channels, side, side)``, ``side`` divisible by ``2 ** (halvings + 1)``.
    halvings
        0 keeps the whole image.
    """
    side = images.shape[-1]
    size = side >> halvings
    start = (side - size) // 2
    return images[..., start : start + size, start : start + size]


class PatchEmbedding(nn.Module):
    """Cuts an image into squares and maps each to a token (one grain of the decoupled embedding).

    Parameters
    ----------
    patch_px
        Side of a square in pixels.
    hidden
        Width of the hidden layer.
    width
        Width of a token.
    """

    def __init__(self, patch_px: int, *, hidden: int, width: int) -> None:
        super().__init__()
        self.patch_px = patch_px
        inputs = 3 * patch_px * patch_px
        self.norm_in = nn.LayerNorm(inputs)
        self.hidden = nn.Linear(inputs, hidden)
        self.out = nn.Linear(hidden, width)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(batch, n_squares, width)`` of images ``(batch, 3, side, side)``, row by row."""
        batch, channels, side, _ = images.shape
        n, p = side // self.patch_px, self.patch_px
        squares = images.reshape(batch, channels, n, p, n, p).permute(0, 2, 4, 3, 5, 1)
        pixels = squares.reshape(batch, n * n, p * p * channels)
        tokens: Tensor = self.norm_out(self.out(F.gelu(self.hidden(self.norm_in(pixels)))))
        return tokens


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, seen: Tensor | None = None
) -> Tensor:
    """Return scaled dot-product attention with ``heads`` heads.

    Parameters
    ----------
    query
        ``(batch, n_query, heads * dim_head)``.
    key, value
        ``(batch, n_key, heads * dim_head)``.
    heads
        Number of heads; the scale is ``dim_head ** -0.5``.
    seen
        ``(batch, 1, n_query, n_key)`` which keys a query sees; ``None`` for all.

    Returns
    -------
    Tensor
        ``(batch, n_query, heads * dim_head)``.
    """
    query, key, value = (_split_heads(x, heads) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return mixed.transpose(1, 2).flatten(2)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    batch, n_tokens, inner = x.shape
    return x.reshape(batch, n_tokens, heads, inner // heads).transpose(1, 2)


class IntraScaleAttention(nn.Module):
    """Self-attention within each level, added to its input (ITMM; no normalisation before it).

    Parameters
    ----------
    n_levels
        Number of levels, each with weights of its own.
    width
        Width of a token.
    heads, dim_head
        Heads per level and their width.
    mask
        Share of the other tokens that a token does not see in training, drawn anew each time (the
        paper's random mask self-attention, which the released code leaves out).
    """

    def __init__(
        self, n_levels: int, width: int, *, heads: int, dim_head: int, mask: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.mask = mask
        inner = heads * dim_head
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * inner, bias=False) for _ in range(n_levels))
        self.out = nn.ModuleList(nn.Linear(inner, width) for _ in range(n_levels))

    def forward(self, levels: Levels) -> Levels:
        """Return the levels after attention."""
        mixed = []
        for tokens, qkv, out in zip(levels, self.qkv, self.out, strict=True):
            query, key, value = qkv(tokens).chunk(3, dim=-1)
            seen = self._draw(tokens)
            mixed.append(tokens + out(attend(query, key, value, heads=self.heads, seen=seen)))
        return mixed

    def _draw(self, tokens: Tensor) -> Tensor | None:
        """Return which tokens each token sees; itself always."""
        if not self.training or self.mask == 0:
            return None
        n = tokens.shape[1]
        drawn = torch.rand(len(tokens), 1, n, n, device=tokens.device) >= self.mask
        return drawn | torch.eye(n, dtype=torch.bool, device=tokens.device)


class SharedMlp(nn.Module):
    """Token-wise network shared by all levels, ``x + GELU(W2 GELU(W1 LN x))``.

    Parameters
    ----------
    width, hidden
        Width of a token and of the hidden layer.
    dropout
        Share of hidden units dropped in training.
    """

    def __init__(self, width: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, width)

    def forward(self, levels: Levels) -> Levels:
        """Return the levels after the network."""
        return [x + self._residual(x) for x in levels]

    def _residual(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.gelu(self.hidden(self.norm(x))))
        return F.gelu(self.out(hidden))


class CrossScaleAttention(nn.Module):
    """Every level attends to every other one (CTMM; it replaces its input, as published).

    Parameters
    ----------
    n_levels
        Number of levels, two or more.
    width
        Width of a token.
    heads, dim_head
        Heads and their width.
    """

    def __init__(self, n_levels: int, width: int, *, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * dim_head
        self.norm = nn.LayerNorm(width)
        self.query = _linears(n_levels, width, inner)
        self.key = _linears(n_levels, width, inner)
        self.value = _linears(n_levels, width, inner)
        self.out = nn.ModuleList(nn.Linear((n_levels - 1) * inner, width) for _ in range(n_levels))

    def forward(self, levels: Levels) -> Levels:
        """Return the levels after attention to the others, in ascending order of level."""
        normed = [self.norm(x) for x in levels]
        queries = [layer(x) for layer, x in zip(self.query, normed, strict=True)]
        keys = [layer(x) for layer, x in zip(self.key, normed, strict=True)]
        values = [layer(x) for layer, x in zip(self.value, normed, strict=True)]
        mixed = []
        for i, out in enumerate(self.out):
            seen = [
                attend(queries[i], keys[j], values[j], heads=self.heads)
                for j in range(len(levels))
                if j != i
            ]
            mixed.append(out(torch.cat(seen, dim=-1)))
        return mixed


def _linears(n: int, width: int, inner: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, inner, bias=False) for _ in range(n))


class ChannelMixing(nn.Module):
    """Gates every channel by the mean tokens of all levels, ``x (1 + g)`` (CCMM).

    Parameters
    ----------
    dim
        Width of all levels together.
    hidden
        Width of the hidden layer.
    dropout
        Share of hidden units dropped in training.
    """

    def __init__(self, dim: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, dim)

    def forward(self, levels: Levels) -> Levels:
        """Return the gated levels."""
        means = torch.cat([x.mean(dim=1) for x in levels], dim=-1)
        hidden = self.dropout(F.gelu(self.hidden(self.norm(means))))
        gates = torch.sigmoid(self.out(hidden)).chunk(len(levels), dim=-1)
        return [x * (1 + g.unsqueeze(1)) for x, g in zip(levels, gates, strict=True)]
