"""The similarity-adjusted contrastive loss and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, ShapeError, explain


class TargetSpace(StrEnum):
    """Where the similarities that soften the target are measured."""

    IDENTITY = "identity"
    """No softening: each spot's only target is its own patch (CLIP)."""
    POST_PROJECTION = "post-projection"
    """In the joint space, as published."""
    PRE_PROJECTION = "pre-projection"
    """Between backbone features and between expression inputs: the target cannot collapse."""


@dataclass(frozen=True)
class ContrastiveSettings:
    """Settings of :func:`contrastive_loss`.

    Parameters
    ----------
    tau_logits
        Temperature of the cross-modal similarities.
    tau_target
        Temperature of the target's similarities; they are divided by it.
    target_space
        Where the target's similarities are measured.
    normalize
        Compare directions (cosine) rather than raw dot products.
    stop_gradient
        Hold the target fixed while differentiating.
    transpose_target
        Use the target's transpose for the image side, without renormalising its rows (published
        form); otherwise each side has its own row-normalised target.
    """

    tau_logits: float = 0.1
    tau_target: float = 0.1
    target_space: TargetSpace = TargetSpace.IDENTITY
    normalize: bool = True
    stop_gradient: bool = True
    transpose_target: bool = False

    def __post_init__(self) -> None:
        take_choices(self)
        for name in ("tau_logits", "tau_target"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    explain(name, got=getattr(self, name), expected="a number above 0")
                )

    @classmethod
    def published(cls, *, temperature: float = 1.0) -> ContrastiveSettings:
        """Return BLEEP's published form: raw dot products, moving target, its transpose reused."""
        return cls(
            tau_logits=temperature,
            tau_target=temperature,
            target_space=TargetSpace.POST_PROJECTION,
            normalize=False,
            stop_gradient=False,
            transpose_target=True,
        )


def contrastive_loss(
    image: Tensor,
    expression: Tensor,
    *,
    settings: ContrastiveSettings,
    image_features: Tensor | None = None,
    expression_features: Tensor | None = None,
) -> Tensor:
    r"""Return the similarity-adjusted contrastive loss of paired embeddings.

    With logits :math:`L = S I^\top / \tau_{logits}` and target
    :math:`T = \mathrm{softmax}(\frac{1}{2}(I I^\top + S S^\top) / \tau_{target})` over rows, the
    loss is the mean over the batch of the two cross-entropies (rows of ``L`` against ``T``; rows of
    ``L`` transposed against the image side's target) divided by two.

    Parameters
    ----------
    image, expression
        ``(batch, dim)`` embeddings; row ``i`` of both belongs to the same spot.
    settings
        Temperatures, scale and target.
    image_features, expression_features
        ``(batch, ·)`` inputs of the projection heads; needed by ``pre-projection`` targets only.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    ShapeError
        When the two sides differ in shape, or features are needed and missing.

    References
    ----------
    Xie et al., NeurIPS 2023, equations 1-3; ``pre-projection`` targets as in H&Enium (2025).
    """
    if image.shape != expression.shape or image.ndim != 2:
        got = f"{tuple(image.shape)} and {tuple(expression.shape)}"
        raise ShapeError(explain("paired embeddings", got=got, expected="two arrays (batch, dim)"))
    if settings.normalize:
        image, expression = (
            functional.normalize(image, dim=1),
            functional.normalize(expression, dim=1),
        )
    logits = expression @ image.T / settings.tau_logits
    target = _target(image, expression, image_features, expression_features, settings)
    image_target = target.T if settings.transpose_target else target
    spot_loss = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)
    image_loss = -(image_target * functional.log_softmax(logits.T, dim=1)).sum(dim=1)
    return ((spot_loss + image_loss) / 2).mean()


def _target(
    image: Tensor,
    expression: Tensor,
    image_features: Tensor | None,
    expression_features: Tensor | None,
    settings: ContrastiveSettings,
) -> Tensor:
    """Return the row-normalised target ``(batch, batch)``; its similarities are symmetric."""
    if settings.target_space is TargetSpace.IDENTITY:
        return torch.eye(len(image), dtype=image.dtype, device=image.device)
    if settings.target_space is TargetSpace.PRE_PROJECTION:
        image, expression = _directions(image_features), _directions(expression_features)
    similarity = (image @ image.T + expression @ expression.T) / 2
    target = functional.softmax(similarity / settings.tau_target, dim=1)
    return target.detach() if settings.stop_gradient else target


def _directions(features: Tensor | None) -> Tensor:
    if features is None:
        raise ShapeError(
            explain("pre-projection target", got="no features", expected="features of both sides")
        )
    return functional.normalize(features - features.mean(dim=0), dim=1)
