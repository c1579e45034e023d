"""Settings of the ``m2ost`` embedder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from stretrieve.embedders.bimodal_settings import (
    BimodalSettings,
    ExpressionInput,
    Head,
    Start,
    TrainingRates,
)
from stretrieve.errors import ConfigError, explain
from stretrieve.models.encoders import EncoderSettings
from stretrieve.models.m2ost import M2ostSettings
from stretrieve.specs import PatchSpec, PatchView


class Objective(StrEnum):
    """What M2OST is trained for."""

    CONTRASTIVE = "contrastive"
    """A joint space with expression, as an image embedder."""
    REGRESSION = "regression"
    """Its own regression head, as published; the joint space is expression itself."""
    BOTH = "both"
    """The joint space, with the regression head beside it."""


@dataclass(frozen=True)
class M2ostEmbedderSettings(BimodalSettings):
    """Settings of :class:`~stretrieve.embedders.m2ost.M2ostEmbedder`; more in the base class.

    ``encoder`` has no use here: the network is M2OST itself.

    Parameters
    ----------
    network
        Sizes of the network; its ``image_px`` follows ``patch_px``.
    side_um
        Side of the finest field of view; each further level sees twice as far (published: 224, 448
        and 896 pixels of the full-resolution image, here 112, 224 and 448 µm).
    objective
        What the network is trained for.
    regression_weight
        Weight of the regression beside the contrastive loss when both are trained.
    compat
        The published regressor: expression as log1p of counts per million *of the panel*, mean
        squared error, random start, 250 genes, Adam 1e-4 without decay. Overrides the settings that
        say otherwise; the joint space is then expression itself.
    """

    feeds_heads_directly: ClassVar[bool] = False

    network: M2ostSettings = field(default_factory=M2ostSettings)
    side_um: float = 112.0
    objective: Objective = Objective.CONTRASTIVE
    regression_weight: float = 1.0
    backbone_stages: int = -1
    rates: TrainingRates = field(
        default_factory=lambda: TrainingRates(heads=1e-4, backbone=1e-4, weight_decay=1e-2)
    )
    compat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network.image_px not in (M2ostSettings().image_px, self.patch_px):
            raise ConfigError(
                explain("network.image_px", got=self.network.image_px, expected="that of patch_px")
            )
        if self.encoder != EncoderSettings() or self.expression_width:
            raise ConfigError(explain("encoder and expression_width", expected="none for m2ost"))
        if self.backbone_stages != -1 and self.head is not Head.CLOSED_FORM:
            raise ConfigError(
                explain("backbone_stages", got=self.backbone_stages, expected="-1 for m2ost")
            )
        if not self.regression_weight >= 0:
            raise ConfigError(
                explain("regression_weight", got=self.regression_weight, expected="0 or more")
            )
        self.sizes()

    def sizes(self) -> M2ostSettings:
        """Return the sizes of the network for patches of ``patch_px``."""
        return dataclasses.replace(self.network, image_px=self.patch_px)

    def spec(self) -> PatchSpec:
        """Return the fields of view, finest first."""
        px, side = self.patch_px, self.side_um
        levels = range(self.network.n_levels)
        return PatchSpec(tuple(PatchView(px, side * 2**level / px) for level in levels))

    def effective(self) -> M2ostEmbedderSettings:
        """Return the settings in force: the published ones under ``compat``."""
        if not self.compat:
            return self
        return dataclasses.replace(
            self,
            n_genes=min(self.n_genes, 250),
            expression_input=ExpressionInput.LOG,
            objective=Objective.REGRESSION,
            head=Head.MLP,
            start=Start.RANDOM,
            rates=TrainingRates(heads=1e-4, backbone=1e-4, weight_decay=0.0),
        )
