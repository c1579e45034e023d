"""Settings of the ``stgchb`` embedder."""

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
from stretrieve.models.hsic import BottleneckSettings
from stretrieve.models.losses import ContrastiveSettings
from stretrieve.spots.graph import GraphSettings


@dataclass(frozen=True)
class InfomaxSettings:
    """Pre-training of the graph convolutions by Deep Graph Infomax.

    Parameters
    ----------
    epochs
        Steps on each training section, per modality (published: 50); 0 for none.
    learning_rate
        Of Adam (published: 1e-3, from random weights; smaller here, so that what the closed-form
        start put into the convolutions is kept).
    """

    epochs: int = 50
    learning_rate: float = 1e-5

    def __post_init__(self) -> None:
        if self.epochs < 0 or not self.learning_rate > 0:
            raise ConfigError(
                explain("infomax", got=self, expected="0 or more epochs, a rate above 0")
            )


@dataclass(frozen=True)
class StgchbSettings(BimodalSettings):
    """Settings of :class:`~stretrieve.embedders.stgchb.StgchbEmbedder`; more in the base class.

    Parameters
    ----------
    graph
        Which spots are neighbours, on sections and on query slides alike, and how much a patch
        itself weighs (published: as much as one neighbour).
    expression_self_weight
        How much a spot's own expression weighs beside each neighbour's. Context helps to read a
        patch; expression that is averaged over neighbours is a blurred target and a blurred answer.
    expression_components
        Principal components of expression that enter the graph convolution (published: 813).
    code_width
        Width of the graph convolutions' outputs.
    infomax
        Pre-training of the graph convolutions.
    bottleneck
        The HSIC bottleneck.
    bottleneck_weight
        Weight of the bottleneck beside the contrastive loss; 0 for none.
    compat
        The published method: directed unnormalised graph, expression as it is in 813 components,
        random heads, last stage of the tower trained, raw dot products at temperature 1, σ 10, β 25
        with the mixed bottleneck, AdamW 1e-3 with decay 1e-3, batches of one section. Overrides the
        settings that say otherwise.
    """

    feeds_heads_directly: ClassVar[bool] = False

    dim: int = 128
    dropout: float = 0.4
    graph: GraphSettings = field(default_factory=lambda: GraphSettings(self_weight=16.0))
    expression_self_weight: float = 256.0
    expression_components: int = 128
    code_width: int = 256
    infomax: InfomaxSettings = field(default_factory=InfomaxSettings)
    bottleneck: BottleneckSettings = field(default_factory=lambda: BottleneckSettings(sigma=0.0))
    bottleneck_weight: float = 1.0
    rates: TrainingRates = field(default_factory=lambda: TrainingRates(heads=1e-5))
    compat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("expression_components", "code_width"):
            if getattr(self, name) < 1:
                raise ConfigError(explain(name, got=getattr(self, name), expected="1 or more"))
        if self.bottleneck_weight < 0:
            raise ConfigError(
                explain("bottleneck_weight", got=self.bottleneck_weight, expected="0 or more")
            )
        self.expression_graph()
        if self.expression_width:
            raise ConfigError(
                explain("expression_width", got=self.expression_width, expected="0 for stgchb")
            )

    def expression_graph(self) -> GraphSettings:
        """Return the graph that expression is gathered over."""
        return dataclasses.replace(self.graph, self_weight=self.expression_self_weight)

    def effective(self) -> StgchbSettings:
        """Return the settings in force: the published ones under ``compat``."""
        if not self.compat:
            return self
        return dataclasses.replace(
            self,
            graph=GraphSettings.published(n_neighbors=self.graph.n_neighbors),
            expression_self_weight=1.0,
            expression_input=ExpressionInput.LOG,
            expression_components=813,
            head=Head.MLP,
            start=Start.RANDOM,
            loss=ContrastiveSettings.published(),
            infomax=dataclasses.replace(self.infomax, learning_rate=1e-3),
            bottleneck=BottleneckSettings.published(),
            bottleneck_weight=1.0,
            backbone_stages=1,
            rates=TrainingRates(heads=1e-3, backbone=1e-3, weight_decay=1e-3),
        )
