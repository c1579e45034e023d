"""One phase of a training: epochs over some sections, validated on others, checkpointed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stretrieve._progress import Progress
from stretrieve.embedders.base import SectionPatches
from stretrieve.embedders.trainable import TrainableEmbedder, TrainBatch
from stretrieve.errors import ConfigError, explain
from stretrieve.training.batches import Spots, TrainingData, plan_epoch
from stretrieve.training.checkpoint import (
    Checkpoint,
    optimiser_tensors,
    restore_optimiser,
    trained_tensors,
)
from stretrieve.training.parallel import World
from stretrieve.training.phase_state import PhaseState
from stretrieve.training.report import EpochRecord, Phase
from stretrieve.training.settings import Monitor, TrainSettings
from stretrieve.training.step import Arithmetic, accumulate_gradients
from stretrieve.training.validate import RetrievalQuality, validate

_STEPS_APART = 1_000_000


class PhaseRunner:
    """Runs phases of one training.

    Parameters
    ----------
    embedder
        What is trained.
    settings
        Of the training.
    key
        Digest that marks its checkpoints.
    folder
        Where they go; ``None`` for nowhere.
    world
        Processes that share batches.
    arithmetic
        Device and precision.
    progress
        Told of every batch.
    """

    def __init__(
        self,
        embedder: TrainableEmbedder,
        settings: TrainSettings,
        key: str,
        folder: Path | None,
        *,
        world: World,
        arithmetic: Arithmetic,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.resumed = False
        self._embedder = embedder
        self._key = key
        self._folder = folder
        self._world = world
        self._arithmetic = arithmetic
        self._progress = progress

    def run(
        self,
        state: PhaseState,
        found: Checkpoint | None,
        train: list[SectionPatches],
        held_out: list[SectionPatches],
        *,
        epochs: int,
    ) -> PhaseState:
        """Fit on ``train``, then run epochs until done or no longer better on ``held_out``.

        Parameters
        ----------
        state
            Where to begin.
        found
            Checkpoint of this phase to take up.
        train, held_out
            Sections.
        epochs
            At most this many passes.
        """
        embedder, settings = self._embedder, self.settings
        embedder.fit(train, progress=self._progress)
        optimiser = self._optimiser()
        if found is not None:
            self.load(found.network)
            restore_optimiser(optimiser, found.optimiser)
            self.resumed = True
        elif held_out:
            state = self._judge(EpochRecord(state.phase, 0), state, held_out)
        if self._finished(state, held_out, epochs):
            return state
        data = TrainingData.collect(embedder, train, augment=settings.augment, seed=settings.seed)
        label = "training" if state.phase is Phase.REFIT else "training, some patients held out"
        with self._progress.task(label, epochs - state.epoch) as task:
            while not self._finished(state, held_out, epochs):
                loss = self._epoch(data, optimiser, state.epoch + 1)
                record = EpochRecord(state.phase, state.epoch + 1, loss)
                state = self._judge(record, state, held_out)
                self._save(state, optimiser)
                task.advance(note=state.history[-1].note())
        return state

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put trained tensors into the network."""
        self._embedder.network.load_state_dict(dict(tensors), strict=False)

    def take_best(self, state: PhaseState) -> None:
        """Go back to the best epoch of a phase."""
        if state.best:
            self.load(state.best)

    def _finished(self, state: PhaseState, held_out: Sequence[SectionPatches], epochs: int) -> bool:
        stale = bool(held_out) and state.epoch - state.best_epoch >= self.settings.patience
        return stale or state.epoch >= epochs

    def _optimiser(self) -> torch.optim.AdamW:
        scale = self.settings.learning_rate_scale
        groups = [
            {
                "params": list(group.parameters),
                "lr": group.learning_rate * scale,
                "base_lr": group.learning_rate * scale,
                "weight_decay": group.weight_decay,
            }
            for group in self._embedder.parameter_groups()
        ]
        if not groups:
            name = self._embedder.name
            raise ConfigError(explain(f"embedder {name!r}", got="nothing that can be trained"))
        return torch.optim.AdamW(groups)

    def _epoch(self, data: TrainingData, optimiser: torch.optim.AdamW, epoch: int) -> float:
        settings = self.settings
        plan = plan_epoch(
            data.sizes,
            unit=self._embedder.batch_unit,
            batch_size=settings.batch_size,
            seed=settings.seed,
            epoch=epoch,
        )
        self._embedder.train_mode(training=True)
        losses = []
        for number, spots in enumerate(plan):
            step = (epoch - 1) * len(plan) + number
            self._warm_up(optimiser, step)
            losses.append(self._step(data, optimiser, spots, epoch=epoch, number=number))
        self._embedder.train_mode(training=False)
        return float(np.mean(losses))

    def _warm_up(self, optimiser: torch.optim.AdamW, step: int) -> None:
        factor = min(1.0, (step + 1) / max(self.settings.warmup_steps, 1))
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _step(
        self,
        data: TrainingData,
        optimiser: torch.optim.AdamW,
        spots: Spots,
        *,
        epoch: int,
        number: int,
    ) -> float:
        own = self._world.share(spots)
        size = self.settings.micro_batch or len(own)
        parts: list[Callable[[], TrainBatch]] = [
            partial(data.batch, own[start : start + size], epoch=epoch)
            for start in range(0, len(own), size)
        ]
        optimiser.zero_grad(set_to_none=True)
        loss = accumulate_gradients(
            self._embedder,
            parts,
            seed=self.settings.seed * _STEPS_APART * 1000 + epoch * _STEPS_APART + number,
            total=len(spots),
            world=self._world,
            arithmetic=self._arithmetic,
        )
        if not math.isfinite(loss):
            raise ConfigError(
                explain("training loss", got=loss, remedy="lower learning_rate_scale")
            )
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self._world.sum_gradients(parameters)
        if self.settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        optimiser.step()
        return loss

    def _judge(
        self, record: EpochRecord, state: PhaseState, held_out: Sequence[SectionPatches]
    ) -> PhaseState:
        score = None
        if held_out:
            quality = validate(self._embedder, held_out, k=self.settings.recall_k)
            record = dataclasses.replace(record, **dataclasses.asdict(quality))
            score = _score(quality, self.settings.monitor)
        return state.after(
            record, score=score, tensors=lambda: trained_tensors(self._embedder.network)
        )

    def _save(self, state: PhaseState, optimiser: torch.optim.AdamW) -> None:
        if self._folder is not None and self._world.is_first:
            network = trained_tensors(self._embedder.network)
            state.to_checkpoint(self._key, network, optimiser_tensors(optimiser)).write(
                self._folder
            )
        self._world.wait()


def _score(quality: RetrievalQuality, monitor: Monitor) -> float:
    return quality.recall / quality.chance if monitor is Monitor.RECALL else quality.rank
