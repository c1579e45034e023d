"""Hilbert-Schmidt independence criterion, and the bottleneck that ST-GCHB builds of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stretrieve.errors import ConfigError, ShapeError, explain


def gaussian_kernel(x: Tensor, *, sigma: float) -> Tensor:
    """Return ``exp(-|x_i - x_j|² / σ²)``, ``(n, n)``, of samples ``(n, width)``.

    Parameters
    ----------
    x
        Samples.
    sigma
        Bandwidth; 0 takes the median distance of the batch instead, which suits any width and scale
        (and is held fixed while differentiating).
    """
    squares = x.square().sum(dim=1)
    distances = (squares[:, None] + squares[None, :] - 2 * x @ x.T).clamp_min(0)
    if sigma > 0:
        return torch.exp(-distances / sigma**2)
    upper = torch.triu_indices(len(x), len(x), offset=1)
    typical = distances.detach()[upper[0], upper[1]].median().clamp_min(1e-12)
    return torch.exp(-distances / typical)


def _centred(kernel: Tensor) -> Tensor:
    """Return ``H K H`` with ``H = I - 11ᵀ/n``.

    Centring one kernel of a product would do on paper; centring both keeps a digit more in float32,
    since kernels of wide samples differ from 1 by little.
    """
    rows = kernel.mean(dim=0, keepdim=True)
    return kernel - rows - kernel.mean(dim=1, keepdim=True) + kernel.mean()


def _check(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y) or len(x) < 2:
        raise ShapeError(
            explain("HSIC samples", got=f"{len(x)} and {len(y)}", expected="the same number, >= 2")
        )


def hsic(x: Tensor, y: Tensor, *, sigma: float) -> Tensor:
    """Return the biased estimate ``tr(K_x H K_y H) / (n - 1)²``.

    Parameters
    ----------
    x, y
        ``(n, ·)`` samples of two variables, paired by row.
    sigma
        Bandwidth, see :func:`gaussian_kernel`.

    References
    ----------
    Gretton et al., "Measuring statistical dependence with Hilbert-Schmidt norms", ALT 2005.
    """
    _check(x, y)
    first, second = (_centred(gaussian_kernel(v, sigma=sigma)) for v in (x, y))
    return (first * second).sum() / (len(x) - 1) ** 2


def normalised_hsic(x: Tensor, y: Tensor, *, sigma: float) -> Tensor:
    """Return ``HSIC(x, y) / (√(1 + HSIC(x, x)) √(1 + HSIC(y, y)))`` of samples ``(n, ·)``."""
    _check(x, y)
    kernels = [_centred(gaussian_kernel(v, sigma=sigma)) for v in (x, y)]
    scale = (len(x) - 1) ** 2
    cross, first, second = (
        (kernels[a] * kernels[b]).sum() / scale for a, b in ((0, 1), (0, 0), (1, 1))
    )
    return cross / (torch.sqrt(1 + first) * torch.sqrt(1 + second))


@dataclass(frozen=True, slots=True)
class BottleneckSettings:
    """Settings of :func:`bottleneck_loss`.

    Parameters
    ----------
    sigma
        Bandwidth of the kernels (published: 10); 0 for the median distance of each batch.
    beta
        Weight of what the embeddings keep against what the codes forget (published: 25).
    mixed
        Leave the image side's second term unnormalised, as published (most likely a slip).
    """

    sigma: float = 10.0
    beta: float = 25.0
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.sigma < 0 or self.beta < 0:
            raise ConfigError(
                explain("sigma and beta", got=(self.sigma, self.beta), expected="0 or more")
            )

    @classmethod
    def published(cls) -> BottleneckSettings:
        """Return ST-GCHB's settings."""
        return cls(sigma=10.0, beta=25.0, mixed=True)


def bottleneck_loss(
    inputs: Tensor,
    codes: Tensor,
    embeddings: Tensor,
    *,
    settings: BottleneckSettings,
    image_side: bool = False,
) -> Tensor:
    """Return ``nHSIC(x, z) - β nHSIC(e, z)``: forget the input, keep what the joint space needs.

    Parameters
    ----------
    inputs
        ``(n, ·)`` input *x* of the graph convolution.
    codes
        ``(n, ·)`` its output *z*.
    embeddings
        ``(n, dim)`` embeddings *e*.
    settings
        Bandwidth, weight, form.
    image_side
        Whether this is the image side, which the published form treats differently.

    References
    ----------
    ST-GCHB (arXiv 2406.12229) and its released code.
    """
    s = settings
    kept = hsic if s.mixed and image_side else normalised_hsic
    forgotten = normalised_hsic(inputs, codes, sigma=s.sigma)
    return forgotten - s.beta * kept(embeddings, codes, sigma=s.sigma)
