"""The ``bleep`` embedder: bi-modal contrastive learning of patches and expression."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.embedders.bimodal import BimodalEmbedder
from stretrieve.embedders.bimodal_settings import (
    BimodalSettings,
    ExpressionInput,
    Head,
    Start,
    TrainingRates,
)
from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.losses import ContrastiveSettings


@dataclass(frozen=True)
class BleepSettings(BimodalSettings):
    """Settings of :class:`BleepEmbedder`.

    Parameters
    ----------
    compat
        The published method: expression as it is, random heads, all of the tower trained, raw dot
        products at temperature 1, AdamW 1e-3 with decay 1e-3. Overrides the settings that say
        otherwise.
    """

    compat: bool = False

    def effective(self) -> BleepSettings:
        """Return the settings in force: the published ones under ``compat``."""
        if not self.compat:
            return self
        return dataclasses.replace(
            self,
            expression_input=ExpressionInput.LOG,
            expression_width=0,
            head=Head.MLP,
            start=Start.RANDOM,
            loss=ContrastiveSettings.published(),
            backbone_stages=-1,
            rates=TrainingRates(heads=1e-3, backbone=1e-3, weight_decay=1e-3),
        )


class BleepEmbedder(BimodalEmbedder):
    """BLEEP with any image tower, and defaults that learn from a few hundred spots.

    The heads start from the closed-form joint space and are refined by contrast over a frozen
    tower; see ``docs/embedders.md`` for the figures behind the defaults, and ``compat`` for the
    published form.

    Parameters
    ----------
    settings
        See :class:`BleepSettings`.
    encoder
        The image tower, when it has been built already.

    References
    ----------
    Xie et al., "Spatially Resolved Gene Expression Prediction from H&E Histology Images via
    Bi-modal Contrastive Learning", NeurIPS 2023.
    """

    name: ClassVar[str] = "bleep"
    needs: ClassVar[str] = "one view; weights of a timm or open_clip tower; seconds of training"

    def __init__(
        self, settings: BleepSettings | None = None, *, encoder: PatchEncoder | None = None
    ) -> None:
        self._asked = settings or BleepSettings()
        super().__init__(self._asked.effective(), encoder=encoder)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self._asked)

    @classmethod
    def _build(cls, config: Mapping[str, Any], encoder: PatchEncoder | None) -> Self:
        return cls(settings_from_dict(BleepSettings, config, where=cls.name), encoder=encoder)
