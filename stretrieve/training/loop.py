"""The one training loop: seeded, resumable, stopped by retrieval on held-out patients."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from stretrieve._files import canonical_json, sha256_text
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.embedders.base import Embedder, SectionPatches
from stretrieve.embedders.trainable import as_trainable
from stretrieve.errors import ConfigError, InputError, explain
from stretrieve.training.checkpoint import Checkpoint, read_checkpoint
from stretrieve.training.parallel import World, open_world
from stretrieve.training.phase import PhaseRunner
from stretrieve.training.phase_state import PhaseState
from stretrieve.training.report import EpochRecord, Phase, TrainReport
from stretrieve.training.settings import Precision, TrainSettings
from stretrieve.training.split import HoldOut, hold_out
from stretrieve.training.step import Arithmetic


def fit_embedder(
    embedder: Embedder,
    sections: Sequence[SectionPatches],
    *,
    settings: TrainSettings | None = None,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> TrainReport:
    """Fit an embedder: in closed form, or by gradients where it has any.

    Part of the patients are held out to find the number of epochs after which patches find their
    own expression best (epoch 0, the embedder's start, takes part); then all patients are trained
    on for that long.

    Parameters
    ----------
    embedder
        Changed in place.
    sections
        Training sections with their patches.
    settings
        See :class:`TrainSettings`.
    checkpoint
        Folder for the state after every epoch. A training that was killed goes on from there and
        ends with the same weights as one that was not.
    progress
        Told of every batch, with loss and recall against chance.

    Returns
    -------
    TrainReport
        What was done.

    Raises
    ------
    InputError
        When there is no section.
    ConfigError
        When settings do not fit the data, or the loss is no longer a number.
    MismatchError
        When the checkpoint belongs to other settings or data.
    """
    settings = settings or TrainSettings()
    if not sections:
        raise InputError(explain("training sections", got="none", expected="one or more"))
    trainable = as_trainable(embedder)
    if trainable is None or settings.epochs == 0:
        embedder.fit(sections, progress=progress)
        return TrainReport()
    arithmetic = _arithmetic(settings)
    devices = [arithmetic.device] if arithmetic.device.type == "cuda" else []
    key = _key(embedder, sections, settings)
    trainable.to(str(arithmetic.device))
    with torch.random.fork_rng(devices=devices), open_world(arithmetic.device) as world:
        runner = PhaseRunner(
            trainable,
            settings,
            key,
            checkpoint,
            world=world,
            arithmetic=arithmetic,
            progress=progress,
        )
        report = _run(runner, sections, _take_up(checkpoint, key, world))
        trainable.end_training()
    trainable.to("cpu")
    return report


def _run(
    runner: PhaseRunner, sections: Sequence[SectionPatches], found: Checkpoint | None
) -> TrainReport:
    plan = hold_out(sections, runner.settings)
    state = PhaseState.from_checkpoint(found) if found else None
    epochs = runner.settings.epochs
    history: tuple[EpochRecord, ...] = ()
    if plan.held_out:
        if state is None or state.phase is Phase.SELECT:
            select = state or PhaseState(Phase.SELECT)
            state = runner.run(select, found, *_parts(sections, plan), epochs=epochs)
            found = None
        epochs, history = state.best_epoch, state.history
        if not runner.settings.refit:
            runner.take_best(state)
            return TrainReport(history, epochs, plan.names, runner.resumed)
    if state is None or state.phase is Phase.SELECT:
        state = PhaseState(Phase.REFIT, history=history, best_epoch=epochs)
    state = runner.run(state, found, list(sections), [], epochs=epochs)
    return TrainReport(state.history, epochs, plan.names, runner.resumed)


def _parts(
    sections: Sequence[SectionPatches], plan: HoldOut
) -> tuple[list[SectionPatches], list[SectionPatches]]:
    return [sections[i] for i in plan.train], [sections[i] for i in plan.held_out]


def _take_up(checkpoint: Path | None, key: str, world: World) -> Checkpoint | None:
    found = read_checkpoint(checkpoint, key=key) if checkpoint else None
    world.wait()
    return found


def _key(embedder: Embedder, sections: Sequence[SectionPatches], settings: TrainSettings) -> str:
    facts = {
        "embedder": [embedder.name, embedder.to_config()],
        "settings": settings_to_dict(settings),
        "sections": [
            [
                s.section.meta.section,
                s.section.meta.patient,
                s.section.n_spots,
                s.section.n_genes,
                int(s.section.library_size.sum()),
            ]
            for s in sections
        ],
    }
    return sha256_text(canonical_json(facts))


@contextlib.contextmanager
def shared_training(settings: TrainSettings) -> Iterator[World]:
    """Join the processes of a ``torchrun`` job before, and for, :func:`fit_embedder`.

    Parameters
    ----------
    settings
        The same in all processes; ``device`` decides how they talk.
    """
    with open_world(_arithmetic(settings).device) as world:
        yield world


def _arithmetic(settings: TrainSettings) -> Arithmetic:
    name = settings.device
    if name == "auto":
        own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        name = own if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            explain("device", got=repr(name), expected="auto, cpu, cuda or cuda:N")
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(explain("device", got=name, expected="a machine with a CUDA GPU"))
    on_gpu = device.type == "cuda"
    wanted = settings.precision
    reduced = on_gpu and (
        wanted is Precision.BFLOAT16
        or (wanted is Precision.AUTO and torch.cuda.is_bf16_supported())
    )
    return Arithmetic(device, reduced)
