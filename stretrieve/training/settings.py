"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, explain


class Precision(StrEnum):
    """Arithmetic of the forward pass."""

    AUTO = "auto"
    """bfloat16 on a GPU that has it, float32 elsewhere."""
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Monitor(StrEnum):
    """What decides which epoch is best, measured on held-out patients."""

    RECALL = "recall"
    """Recall@k of a spot's own expression among its section's, over chance."""
    RANK = "rank"
    """Mean share of the section's spots that rank below a spot's own expression."""


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation of patches; only networks that read pixels while training see it.

    Parameters
    ----------
    flips
        Mirror and turn by quarters, the same for all views of a spot.
    stain
        Standard deviation of the scaling of each stain's density, the same for all views of a spot;
        0 leaves colours as they are.
    """

    flips: bool = True
    stain: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.stain < 1:
            raise ConfigError(explain("augment.stain", got=self.stain, expected="0 to below 1"))


@dataclass(frozen=True)
class TrainSettings:
    """Settings of :func:`~stretrieve.training.fit_embedder`.

    Parameters
    ----------
    epochs
        At most this many passes over the training spots; 0 keeps the embedder's start.
    batch_size
        Spots that are contrasted with each other, over all processes.
    micro_batch
        Spots encoded at a time; gradients are those of the whole batch. 0 encodes it in one piece.
    seed
        Of batches, dropout and augmentation.
    learning_rate_scale
        Multiplies the step sizes that the embedder asks for.
    warmup_steps
        Steps over which the step size rises linearly.
    clip_norm
        Bound on the norm of the gradient; 0 for none.
    early_stopping
        Choose the number of epochs on held-out patients. With one patient there is nobody to hold
        out: sections are held out instead, and with one section all epochs are run.
    validation_patients
        Patients to hold out; empty chooses those that come nearest to ``validation_fraction``.
    validation_fraction
        Share of the spots to hold out.
    patience
        Epochs without improvement before stopping.
    monitor
        What improvement is.
    recall_k
        Neighbours that recall looks at; at most a fifth of a section.
    refit
        Train again on all sections for the number of epochs that was best.
    augment
        Augmentation of patches.
    precision
        Arithmetic of the forward pass; always float32 on the CPU.
    device
        ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    epochs: int = 10
    batch_size: int = 256
    micro_batch: int = 0
    seed: int = 0
    learning_rate_scale: float = 1.0
    warmup_steps: int = 0
    clip_norm: float = 1.0
    early_stopping: bool = True
    validation_patients: tuple[str, ...] = ()
    validation_fraction: float = 0.25
    patience: int = 3
    monitor: Monitor = Monitor.RECALL
    recall_k: int = 50
    refit: bool = True
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    precision: Precision = Precision.AUTO
    device: str = "auto"

    def __post_init__(self) -> None:
        take_choices(self)
        lows = {
            "epochs": 0,
            "batch_size": 2,
            "micro_batch": 0,
            "seed": 0,
            "warmup_steps": 0,
            "clip_norm": 0,
            "patience": 1,
            "recall_k": 1,
        }
        for name, low in lows.items():
            if getattr(self, name) < low:
                raise ConfigError(explain(name, got=getattr(self, name), expected=f"{low} or more"))
        if not self.learning_rate_scale > 0:
            raise ConfigError(
                explain(
                    "learning_rate_scale",
                    got=self.learning_rate_scale,
                    expected="a number above 0",
                )
            )
        if not 0 < self.validation_fraction < 1:
            raise ConfigError(
                explain(
                    "validation_fraction",
                    got=self.validation_fraction,
                    expected="between 0 and 1",
                )
            )
