"""What is evaluated, and how; stored with every result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, explain
from stretrieve.training import TrainSettings


class LeaveOut(StrEnum):
    """What is held out at a time."""

    PATIENT = "patient"
    SECTION = "section"
    """Sister sections of the same patient stay in training: every figure is optimistic."""


class Query(StrEnum):
    """What a test spot is known by."""

    IMAGE = "image"
    """Its H&E patch."""
    EXPRESSION = "expression"
    """Half of the genes that are not scored: how well retrieval does with a molecular query."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of :func:`~stretrieve.evaluation.evaluate`.

    Parameters
    ----------
    embedders
        Embedders to evaluate, each in all its forms, or single forms such as ``bleep-ours`` and
        ``bleep-compat``.
    seeds
        Seeds of everything random. Lines without chance run once.
    single_seed
        Embedders (or single lines) too costly for more than the first seed; the tables say so.
    leave_out
        What is held out at a time.
    query
        What a test spot is known by.
    backbone
        Image tower of the baselines and of every embedder that takes one: ``encoder``,
        ``patch_px`` and ``side_um`` of the ``frozen`` embedder. ``None`` for colour statistics.
    embedder_config
        Further settings of single lines, by line name.
    train
        The training loop of embedders in our form.
    compat_epochs
        Epochs of embedders in their published form, which stop nowhere by themselves.
    n_genes
        Least size of the panel that is scored, chosen on training sections.
    markers
        Genes of interest, scored as a set of their own.
    top_k
        Neighbours that retrieval averages.
    metrics
        Metrics to compute; all when empty.
    engine
        Whether the full engine is in the table.
    controls
        Whether negative controls run.
    workers
        Processes that work on folds at the same time.
    """

    embedders: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    single_seed: tuple[str, ...] = ()
    leave_out: LeaveOut = LeaveOut.PATIENT
    query: Query = Query.IMAGE
    backbone: Mapping[str, Any] | None = None
    embedder_config: Mapping[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    compat_epochs: int = 4
    n_genes: int = 1000
    markers: tuple[str, ...] = ()
    top_k: int = 50
    metrics: tuple[str, ...] = ()
    engine: bool = True
    controls: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        take_choices(self)
        lows = {"n_genes": 1, "top_k": 1, "workers": 1, "compat_epochs": 0}
        faults = [
            explain(name, got=getattr(self, name), expected=f"{low} or more")
            for name, low in lows.items()
            if getattr(self, name) < low
        ]
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            faults.append(explain("seeds", got=list(self.seeds), expected="one or more, distinct"))
        if faults:
            raise ConfigError("; ".join(faults))

    def seeds_of(self, *names: str) -> tuple[int, ...]:
        """Return the seeds of a line with chance, known by any of these names."""
        return self.seeds[:1] if set(names) & set(self.single_seed) else self.seeds

    @property
    def optimistic(self) -> bool:
        """Whether training may hold sections of the test patient."""
        return self.leave_out is LeaveOut.SECTION
