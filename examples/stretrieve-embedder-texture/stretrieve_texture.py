"""The ``texture`` embedder: local binary patterns with a closed-form joint space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.embedders import Embeddings
from stretrieve.embedders.closed_form import ClosedFormEmbedder
from stretrieve.errors import ConfigError, explain
from stretrieve.models.joint import JointSettings
from stretrieve.slides.types import PatchBatch
from stretrieve.specs import PatchSpec

SCALES = (1, 2, 4)
N_PATTERNS = 10
FEATURE_DIM = len(SCALES) * (N_PATTERNS + 2)
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_NOISE = 2.0


@dataclass(frozen=True)
class TextureSettings:
    """Settings of :class:`TextureEmbedder`.

    Parameters
    ----------
    patch_px, side_um
        Side of a patch in pixels and in microns.
    n_genes
        Size of the gene panel.
    joint
        The joint space.
    """

    patch_px: int = 64
    side_um: float = 200.0
    n_genes: int = 1000
    joint: JointSettings = field(default_factory=JointSettings)

    def __post_init__(self) -> None:
        if self.patch_px < 3 * max(SCALES):
            expected = f"{3 * max(SCALES)} or more"
            raise ConfigError(explain("patch_px", got=self.patch_px, expected=expected))


class TextureEmbedder(ClosedFormEmbedder):
    """Rotation-invariant local binary patterns at three scales; no weights, no colour.

    Parameters
    ----------
    settings
        See :class:`TextureSettings`.

    References
    ----------
    Ojala et al., "Multiresolution Gray-Scale and Rotation Invariant Texture Classification with
    Local Binary Patterns", TPAMI 2002.
    """

    name: ClassVar[str] = "texture"
    needs: ClassVar[str] = "nothing; closed form"

    def __init__(self, settings: TextureSettings | None = None) -> None:
        self.settings = settings or TextureSettings()
        super().__init__(n_genes=self.settings.n_genes, joint=self.settings.joint)

    @property
    def spec(self) -> PatchSpec:
        """One view."""
        return PatchSpec.single(self.settings.patch_px, side_um=self.settings.side_um)

    def _features(self, batch: PatchBatch) -> Embeddings:
        return texture_statistics(batch.views[0])

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self.settings)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build an unfitted embedder from plain data."""
        return cls(settings_from_dict(TextureSettings, config, where=cls.name))


def texture_statistics(patches: npt.NDArray[np.uint8]) -> Embeddings:
    """Return ``(n_patches, FEATURE_DIM)``: pattern shares, mean and deviation at each scale.

    Parameters
    ----------
    patches
        ``(n_patches, patch_px, patch_px, 3)`` uint8 RGB.
    """
    if len(patches) == 0:
        return np.zeros((0, FEATURE_DIM), dtype=np.float32)
    grey = patches.mean(axis=3, dtype=np.float32)
    parts = []
    for scale in SCALES:
        image = _shrink(grey, scale)
        moments = np.stack([image.mean(axis=(1, 2)), image.std(axis=(1, 2))], axis=1)
        parts += [_pattern_shares(image), moments]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _shrink(images: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    side = images.shape[1] // factor
    cut = images[:, : side * factor, : side * factor]
    return cut.reshape(len(images), side, factor, side, factor).mean(axis=(2, 4))


def _pattern_shares(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the share of pixels of each pattern: 0 to 8 brighter neighbours in one run, others."""
    side = images.shape[1]
    centre = images[:, 1:-1, 1:-1]
    brighter = np.stack(
        [
            images[:, 1 + dy : side - 1 + dy, 1 + dx : side - 1 + dx] >= centre + _NOISE
            for dy, dx in _AROUND
        ]
    )
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    pattern = np.where(changes <= 2, brighter.sum(axis=0), N_PATTERNS - 1)
    flat = pattern.reshape(len(images), -1)
    return np.stack([(flat == p).mean(axis=1) for p in range(N_PATTERNS)], axis=1)
