"""Settings of the embedders built from an image tower and two heads."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, explain
from stretrieve.models.encoders import EncoderSettings
from stretrieve.models.joint import JointSettings
from stretrieve.models.losses import ContrastiveSettings, TargetSpace


class Head(StrEnum):
    """What maps features into the joint space."""

    CLOSED_FORM = "closed-form"
    """The maps of :mod:`stretrieve.models.joint`; nothing is trained."""
    LINEAR = "linear"
    """A linear map, trained."""
    MLP = "mlp"
    """BLEEP's residual head, trained."""


class Start(StrEnum):
    """Where training starts."""

    CLOSED_FORM = "closed-form"
    RANDOM = "random"


class ExpressionInput(StrEnum):
    """How log1p CP10k enters the expression side."""

    SECTION = "section"
    """Centred on its own section, scaled by training statistics."""
    TRAINING = "training"
    """Centred and scaled by training statistics."""
    LOG = "log"
    """As it is (published form)."""


@dataclass(frozen=True)
class TrainingRates:
    """Step sizes of AdamW, one for each part.

    Parameters
    ----------
    heads
        Of both heads and the expression encoder.
    backbone
        Of the image tower's trained stages.
    weight_decay
        Decoupled decay of all parts.
    """

    heads: float = 1e-4
    backbone: float = 1e-5
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.heads, self.backbone) <= 0 or self.weight_decay < 0:
            raise ConfigError(explain("learning rates", got=self, expected="numbers above 0"))


@dataclass(frozen=True)
class BimodalSettings:
    """Settings of :class:`~stretrieve.embedders.bimodal.BimodalEmbedder`.

    Parameters
    ----------
    encoder
        The image tower and its weights.
    patch_px, side_um
        Side of a patch in pixels and in microns.
    n_genes
        Size of the gene panel.
    expression_input
        How expression is centred and scaled.
    expression_width
        Width of an expression encoder before its head; 0 for none, as published.
    head
        What maps features into the joint space.
    dim
        Width of the joint space of ``mlp`` heads; linear ones have ``joint.n_components``.
    dropout
        Of ``mlp`` heads.
    start
        Where training starts. A closed-form start needs ``dim >= 2 * joint.n_components``.
    joint
        The closed-form joint space.
    loss
        The contrastive loss.
    backbone_stages
        How many of the tower's last stages are trained; 0 keeps it frozen, −1 trains all of it.
    rates
        Step sizes.
    store_backbone
        Whether the tower's weights are saved with the embedder. Without them, loading fetches them
        again from where they came and refuses any others.
    seed
        Of random starts.
    """

    feeds_heads_directly: ClassVar[bool] = True
    """Whether nothing lies between the tower's features and the image head."""

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    patch_px: int = 224
    side_um: float = 200.0
    n_genes: int = 1000
    expression_input: ExpressionInput = ExpressionInput.SECTION
    expression_width: int = 0
    head: Head = Head.MLP
    dim: int = 256
    dropout: float = 0.1
    start: Start = Start.CLOSED_FORM
    joint: JointSettings = field(default_factory=JointSettings)
    loss: ContrastiveSettings = field(
        default_factory=lambda: ContrastiveSettings(target_space=TargetSpace.PRE_PROJECTION)
    )
    backbone_stages: int = 0
    rates: TrainingRates = field(default_factory=TrainingRates)
    store_backbone: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        take_choices(self)
        for name in ("patch_px", "n_genes", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(explain(name, got=getattr(self, name), expected="1 or more"))
        if not self.side_um > 0:
            raise ConfigError(explain("side_um", got=self.side_um, expected="a number above 0"))
        if not 0 <= self.dropout < 1:
            raise ConfigError(explain("dropout", got=self.dropout, expected="0 to below 1"))
        if self.backbone_stages < -1:
            raise ConfigError(
                explain("backbone_stages", got=self.backbone_stages, expected="-1, 0 or more")
            )
        if not self.store_backbone and self.backbone_stages != 0:
            raise ConfigError(
                explain("store_backbone", got="false", expected="true for a trained backbone")
            )
        self._check_start()

    @property
    def width(self) -> int:
        """Width of the joint space, as far as it is known before fitting."""
        return self.dim if self.head is Head.MLP else self.joint.n_components

    def _check_start(self) -> None:
        closed = self.feeds_heads_directly and self.head is Head.CLOSED_FORM
        if not self.joint.is_linear and not closed:
            raise ConfigError(
                explain(
                    "joint.method",
                    got=self.joint.method.value,
                    expected="'ridge', 'cca' or 'pca' where something is trained",
                )
            )
        linear = self.start is Start.CLOSED_FORM
        if linear and self.head is Head.MLP and self.dim < 2 * self.joint.n_components:
            raise ConfigError(
                explain(
                    "dim",
                    got=self.dim,
                    expected=f"at least {2 * self.joint.n_components} for a closed-form start",
                )
            )
        if linear and self.expression_width and self.head is not Head.CLOSED_FORM:
            raise ConfigError(
                explain("expression_width", got=self.expression_width, expected="start = 'random'")
            )
