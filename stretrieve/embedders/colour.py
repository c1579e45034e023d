"""The ``colour`` embedder: colour and texture statistics, no weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from stretrieve._files import sha256_text
from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.embedders.base import Embeddings
from stretrieve.embedders.closed_form import ClosedFormEmbedder
from stretrieve.embedders.memo import keeps_features, shared_memo
from stretrieve.errors import ConfigError, explain
from stretrieve.models import colour
from stretrieve.models.joint import JointSettings
from stretrieve.slides.types import PatchBatch
from stretrieve.specs import PatchSpec


@dataclass(frozen=True)
class ColourSettings:
    """Settings of :class:`ColourEmbedder`.

    Parameters
    ----------
    patch_px
        Side of a patch in pixels.
    side_um
        Side of a patch in microns.
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
        if self.patch_px < 16:
            raise ConfigError(explain("patch_px", got=self.patch_px, expected="16 or more"))
        if self.n_genes < 1:
            raise ConfigError(explain("n_genes", got=self.n_genes, expected="1 or more"))


class ColourEmbedder(ClosedFormEmbedder):
    """Colour and texture statistics with a closed-form joint space; learns in seconds.

    Parameters
    ----------
    settings
        See :class:`ColourSettings`.
    """

    name: ClassVar[str] = "colour"
    needs: ClassVar[str] = "one view; no weights"

    def __init__(self, settings: ColourSettings | None = None) -> None:
        self.settings = settings or ColourSettings()
        super().__init__(n_genes=self.settings.n_genes, joint=self.settings.joint)

    @property
    def spec(self) -> PatchSpec:
        """One view."""
        return PatchSpec.single(self.settings.patch_px, side_um=self.settings.side_um)

    def _features(self, batch: PatchBatch) -> Embeddings:
        if not keeps_features():
            return colour.colour_statistics(batch.views[0])
        return shared_memo(_code_digest()).encode(
            batch.views, lambda views: colour.colour_statistics(views[0])
        )

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self.settings)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build an unfitted embedder.

        Raises
        ------
        ConfigError
            When a setting is unknown or wrong.
        """
        return cls(settings_from_dict(ColourSettings, config, where=cls.name))


@functools.cache
def _code_digest() -> str:
    """Return what kept statistics are known by: there are no weights, the code decides them."""
    return sha256_text(inspect.getsource(colour))
