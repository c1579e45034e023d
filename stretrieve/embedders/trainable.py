"""What an embedder offers so that the one training loop can drive it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor, nn

from stretrieve._progress import Progress
from stretrieve.embedders.base import Embedder, Embeddings, SectionPatches
from stretrieve.specs import PatchSpec


class BatchUnit(StrEnum):
    """What a training batch is drawn from."""

    SPOT = "spot"
    """Spots of all sections, shuffled."""
    SECTION = "section"
    """Spots of one section at a time, shuffled within it."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share their optimiser settings.

    Parameters
    ----------
    name
        For messages and reports.
    parameters
        What is trained.
    learning_rate
        AdamW step size.
    weight_decay
        AdamW decoupled decay.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class TrainBatch:
    """Some spots, as the loop hands them to :meth:`TrainableEmbedder.encode_batch`.

    Parameters
    ----------
    sections
        ``(batch,)`` position of each spot's section among the training sections.
    rows
        ``(batch,)`` position of each spot within its section.
    inputs
        Rows of what :meth:`TrainableEmbedder.spot_inputs` gave, by name, each ``(batch, …)``.
    views
        Augmented patches, one ``(batch, patch_px, patch_px, 3)`` uint8 tensor a view; empty unless
        :attr:`TrainableEmbedder.trains_pixels`.
    """

    sections: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    inputs: Mapping[str, Tensor]
    views: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


class TrainableEmbedder(Protocol):
    """An embedder whose network learns by gradients.

    The loop calls :meth:`fit` on the training sections (gene panel, scalers, starting weights),
    then :meth:`spot_inputs` once a section, then for every batch :meth:`encode_batch` on parts of
    it and :meth:`loss` on the whole. Parts may be encoded twice (cached contrastive batches), so
    :meth:`encode_batch` must be a function of the weights, the batch and torch's random state.
    """

    name: ClassVar[str]

    @property
    def spec(self) -> PatchSpec:
        """The patches it wants to see."""

    @property
    def wants_training(self) -> bool:
        """Whether its settings leave anything to the loop; without, :meth:`fit` is all."""

    @property
    def trains_pixels(self) -> bool:
        """Whether :meth:`encode_batch` reads ``batch.views``."""

    @property
    def batch_unit(self) -> BatchUnit:
        """What batches are drawn from."""

    @property
    def network(self) -> nn.Module:
        """Holds everything that is trained; its ``state_dict`` is what checkpoints keep."""

    def fit(self, sections: Sequence[SectionPatches], *, progress: Progress = ...) -> None:
        """Learn what needs no gradients and (re)set the network to its seeded start."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return what is trained, and how fast."""

    def spot_inputs(self, patches: SectionPatches) -> Mapping[str, npt.NDArray[Any]]:
        """Return what each spot brings beside its patches, by name, each ``(n_spots, …)``."""

    def train_mode(self, *, training: bool) -> None:
        """Switch dropout and the like on or off; frozen parts stay off."""

    def encode_batch(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Return everything that :meth:`loss` reads, by name, each ``(batch, ·)``."""

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of a whole batch from its :meth:`encode_batch` outputs."""

    def section_features(self, patches: SectionPatches) -> Embeddings:
        """Return ``(n_spots, feature_dim)`` features as they are now, for validation."""

    def project_patches(self, features: Embeddings, xy_um: npt.NDArray[np.float64]) -> Embeddings:
        """Map features of a whole slide into the joint space."""

    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts of one section into the joint space."""

    def to(self, device: str) -> None:
        """Move the network, fitted or not, to a device; :meth:`fit` and all else runs there."""

    def end_training(self) -> None:
        """Drop what was kept for training and settle into inference mode."""


_NEEDED: Final = ("encode_batch", "loss", "parameter_groups", "spot_inputs", "wants_training")


def as_trainable(embedder: Embedder) -> TrainableEmbedder | None:
    """Return the embedder as a trainable one; ``None`` when it has nothing to train."""
    if not all(hasattr(type(embedder), name) for name in _NEEDED):
        return None
    trainable = cast("TrainableEmbedder", embedder)
    return trainable if trainable.wants_training else None
