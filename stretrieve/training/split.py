"""Which patients are held out to choose the number of epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from stretrieve.embedders.base import SectionPatches
from stretrieve.errors import ConfigError, explain
from stretrieve.training.settings import TrainSettings

_EXHAUSTIVE = 12


@dataclass(frozen=True)
class HoldOut:
    """A split of sections.

    Parameters
    ----------
    train, held_out
        Positions among the sections.
    names
        Patients (or sections) that are held out.
    """

    train: tuple[int, ...]
    held_out: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


def hold_out(sections: Sequence[SectionPatches], settings: TrainSettings) -> HoldOut:
    """Choose the patients to hold out; whole sections of one patient when there is only one.

    Raises
    ------
    ConfigError
        When a patient that was asked for is not there, or nobody would be left to train on.
    """
    everything = HoldOut(tuple(range(len(sections))))
    if not settings.early_stopping or settings.epochs == 0:
        return everything
    patients = [s.section.meta.patient for s in sections]
    if settings.validation_patients:
        return _asked(patients, settings.validation_patients)
    names = patients
    if len(set(patients)) == 1:
        names = [s.section.meta.section for s in sections]
    if len(set(names)) < 2:
        return everything
    sizes = dict.fromkeys(names, 0)
    for name, patches in zip(names, sections, strict=True):
        sizes[name] += patches.section.n_spots
    return _split(names, _nearest(sizes, settings.validation_fraction))


def _asked(patients: Sequence[str], asked: Sequence[str]) -> HoldOut:
    unknown = sorted(set(asked) - set(patients))
    if unknown or set(asked) == set(patients):
        raise ConfigError(
            explain(
                "validation_patients",
                got=", ".join(unknown or asked),
                expected=f"some but not all of {', '.join(sorted(set(patients)))}",
            )
        )
    return _split(patients, tuple(sorted(set(asked))))


def _nearest(sizes: dict[str, int], fraction: float) -> tuple[str, ...]:
    """Return the names whose spots together come nearest to a fraction of all; ties by name."""
    names, goal = sorted(sizes), fraction * sum(sizes.values())
    largest = len(names) - 1 if len(names) <= _EXHAUSTIVE else 2
    choices = [c for n in range(1, largest + 1) for c in combinations(names, n)]
    return min(choices, key=lambda c: (abs(sum(sizes[name] for name in c) - goal), len(c), c))


def _split(names: Sequence[str], out: tuple[str, ...]) -> HoldOut:
    train = tuple(i for i, name in enumerate(names) if name not in out)
    held = tuple(i for i, name in enumerate(names) if name in out)
    return HoldOut(train, held, out)
