"""Augmentation that treats all views of a spot alike, each spot by its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stretrieve.training.settings import AugmentSettings

_STAINS: Final = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Absorption of haematoxylin, eosin and residual in R, G, B (Ruifrok and Johnston, 2001)."""


def augment_views(
    views: Sequence[Tensor],
    *,
    settings: AugmentSettings,
    seed: int,
    epoch: int,
    sections: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> tuple[Tensor, ...]:
    """Mirror, turn and re-stain patches.

    What happens to a spot follows from seed, epoch, section and row alone, so it does not depend on
    how spots are batched or on how many processes share them.

    Parameters
    ----------
    views
        One ``(batch, patch_px, patch_px, 3)`` uint8 tensor a view.
    settings
        What to do.
    seed, epoch
        Of the training.
    sections, rows
        ``(batch,)`` which spot each row is.

    Returns
    -------
    tuple of Tensor
        The same shapes.
    """
    draws = [
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, s, r])))
        for s, r in zip(sections.tolist(), rows.tolist(), strict=True)
    ]
    turns = [int(draw.integers(8)) for draw in draws]
    scales = torch.tensor(
        np.array([draw.normal(1.0, 1.0, size=3) for draw in draws]).reshape(-1, 3),
        dtype=torch.float32,
    )
    result = tuple(views)
    if settings.flips:
        result = tuple(_turn(view, turns) for view in result)
    if settings.stain > 0:
        factors = 1 + settings.stain * (scales - 1).clamp(-3, 3)
        result = tuple(_stain(view, factors) for view in result)
    return result


def _turn(view: Tensor, turns: Sequence[int]) -> Tensor:
    """Apply one of the eight symmetries of the square to each patch."""
    turned = [
        torch.rot90(patch.flip(1) if turn >= 4 else patch, turn % 4, dims=(0, 1))
        for patch, turn in zip(view, turns, strict=True)
    ]
    return torch.stack(turned) if turned else view


def _stain(view: Tensor, factors: Tensor) -> Tensor:
    """Scale each stain's optical density by ``factors`` ``(batch, 3)``."""
    stains = torch.tensor(_STAINS)
    mixing = torch.linalg.inv(stains) @ (factors[:, :, None] * stains)
    light = view.flatten(1, 2).float().clamp_(min=1).div_(255).log_()  # minus the density
    restained = torch.bmm(light, mixing).exp_().mul_(255).round_().clamp_(0, 255)
    return restained.to(torch.uint8).view_as(view)
