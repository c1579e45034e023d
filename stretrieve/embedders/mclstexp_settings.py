"""Settings of the ``mclstexp`` embedder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from stretrieve.embedders.bimodal_settings import (
    BimodalSettings,
    ExpressionInput,
    Head,
    Start,
    TrainingRates,
)
from stretrieve.errors import ConfigError, explain
from stretrieve.models.losses import ContrastiveSettings, TargetSpace
from stretrieve.models.section_transformer import TransformerSettings


@dataclass(frozen=True)
class MclstexpSettings(BimodalSettings):
    """Settings of :class:`~stretrieve.embedders.mclstexp.MclstexpEmbedder`; more in the base class.

    Parameters
    ----------
    transformer
        Sizes of the spot transformer.
    compat
        The published method: genes as they are into the transformer, attention over the random
        batch (in training), random heads and tables, the whole tower trained, raw dot products
        against identity at temperature 1, AdamW 1e-4 with decay 1e-3. Overrides the settings that
        say otherwise.
    """

    feeds_heads_directly: ClassVar[bool] = False

    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    compat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expression_width:
            raise ConfigError(
                explain("expression_width", got=self.expression_width, expected="0 for mclstexp")
            )
        components, width = self.joint.n_components, self.transformer.width
        if self.start is Start.CLOSED_FORM and 0 < width < components:
            raise ConfigError(
                explain(
                    "transformer.width",
                    got=width,
                    expected=f"at least {components}, as joint.n_components, or start = 'random'",
                )
            )

    def effective(self) -> MclstexpSettings:
        """Return the settings in force: the published ones under ``compat``."""
        if not self.compat:
            return self
        return dataclasses.replace(
            self,
            transformer=dataclasses.replace(self.transformer, width=0),
            expression_input=ExpressionInput.LOG,
            head=Head.MLP,
            dropout=0.0,
            start=Start.RANDOM,
            loss=ContrastiveSettings(
                tau_logits=1.0,
                tau_target=1.0,
                target_space=TargetSpace.IDENTITY,
                normalize=False,
            ),
            backbone_stages=-1,
            rates=TrainingRates(heads=1e-4, backbone=1e-4, weight_decay=1e-3),
        )
