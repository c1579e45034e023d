"""How far a phase of a training has come."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from stretrieve.training.checkpoint import Checkpoint
from stretrieve.training.report import EpochRecord, Phase


@dataclass(frozen=True)
class PhaseState:
    """How far a phase has come.

    Parameters
    ----------
    phase
        Which.
    epoch
        Passes made in it.
    history
        Records of this and earlier phases.
    best_epoch, best_score
        The best epoch so far by retrieval on held-out sections.
    best
        Trained tensors of the best epoch.
    """

    phase: Phase
    epoch: int = 0
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0
    best_score: float = -math.inf
    best: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> PhaseState:
        """Return the state that a checkpoint keeps."""
        data = checkpoint.state
        history = tuple(
            EpochRecord(**{**record, "phase": Phase(record["phase"])}) for record in data["history"]
        )
        score = data["best_score"]
        return cls(
            Phase(data["phase"]),
            data["epoch"],
            history,
            data["best_epoch"],
            -math.inf if score is None else score,
            checkpoint.best,
        )

    def to_checkpoint(
        self, key: str, network: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]
    ) -> Checkpoint:
        """Return the checkpoint of this state."""
        state = {
            "phase": self.phase.value,
            "epoch": self.epoch,
            "history": [dataclasses.asdict(record) for record in self.history],
            "best_epoch": self.best_epoch,
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
        }
        return Checkpoint(key, state, network, optimiser, self.best)

    def after(
        self,
        record: EpochRecord,
        *,
        score: float | None,
        tensors: Callable[[], Mapping[str, Tensor]],
    ) -> PhaseState:
        """Return the state after an epoch; ``tensors`` is asked when it is the best."""
        state = dataclasses.replace(self, epoch=record.epoch, history=(*self.history, record))
        if score is None or score <= self.best_score:
            return state
        return dataclasses.replace(state, best_epoch=record.epoch, best_score=score, best=tensors())
