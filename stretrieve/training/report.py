"""What a training did, for logs, manifests and tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Phase(StrEnum):
    """Part of a training."""

    SELECT = "select"
    """On some patients, to find the number of epochs on the others."""
    REFIT = "refit"
    """On all sections, for that number of epochs."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch; epoch 0 is the start.

    Parameters
    ----------
    phase
        Part of the training.
    epoch
        Number of passes made.
    loss
        Mean over the epoch's batches; ``None`` at the start.
    recall, chance, rank
        Retrieval on held-out sections: recall@k, the same by chance, mean rank share; ``None``
        where nothing was held out.
    """

    phase: Phase
    epoch: int
    loss: float | None = None
    recall: float | None = None
    chance: float | None = None
    rank: float | None = None

    def note(self) -> str:
        """Return a short line for progress displays."""
        parts = [f"loss {self.loss:.3f}"] if self.loss is not None else []
        if self.recall is not None and self.chance is not None:
            parts.append(f"recall {self.recall:.3f} (chance {self.chance:.3f})")
        return ", ".join(parts)


@dataclass(frozen=True)
class TrainReport:
    """The whole training.

    Parameters
    ----------
    history
        Every epoch that was run.
    epochs
        Passes behind the final weights.
    held_out
        Patients (or sections, with one patient) that chose the number of epochs; empty when none.
    resumed
        Whether a checkpoint was taken up.
    """

    history: tuple[EpochRecord, ...] = ()
    epochs: int = 0
    held_out: tuple[str, ...] = ()
    resumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        data = dataclasses.asdict(self)
        data["history"] = [dict(record) for record in data["history"]]
        data["held_out"] = list(self.held_out)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a report from :meth:`to_dict`."""
        history = tuple(
            EpochRecord(**{**record, "phase": Phase(record["phase"])}) for record in data["history"]
        )
        return cls(history, int(data["epochs"]), tuple(data["held_out"]), bool(data["resumed"]))
