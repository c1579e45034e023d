"""Does anything of the test patient reach training: an audit that fails the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import MismatchError, explain
from stretrieve.evaluation.cohort import Fold, Sample
from stretrieve.evaluation.gene_sets import GeneSets, freeze_gene_sets
from stretrieve.evaluation.inputs import Inputs
from stretrieve.evaluation.training_data import Matrix
from stretrieve.specs import PatchSpec

MAX_CORRELATION: Final = 0.99
"""Two spots whose expression correlates higher than this are one measurement."""

_MAX_RESIDUAL: Final = 0.9
_THUMBNAIL: Final = 16
_MAX_GREY: Final = 2.0
_MIN_TEXTURE: Final = 4.0
_MIN_GENES: Final = 50
_BLOCK: Final = 512


class LeakError(MismatchError):
    """The audit found something of the test patient in training."""


@dataclass(frozen=True)
class Finding:
    """One kind of leak, looked for in one fold.

    Parameters
    ----------
    fold
        What is held out.
    check
        ``patients``, ``images``, ``expression`` or ``genes``.
    n
        How much was found; 0 is clean.
    detail
        Where.
    """

    fold: str
    check: str
    n: int
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON data."""
        return {"fold": self.fold, "check": self.check, "n": self.n, "detail": self.detail}


ImageTraces = tuple[tuple[bytes, ...], npt.NDArray[np.float32]]
"""Digests and thumbnails of a section's patches."""


@dataclass(frozen=True)
class Traces:
    """What spots of a section are recognised by.

    Parameters
    ----------
    digests
        ``(n_spots,)`` exact digest of each patch; empty without images.
    thumbnails
        ``(n_spots, 768)`` 16 × 16 RGB thumbnails; empty without images.
    expression
        ``(n_spots, n_genes)`` log1p CP10k of the genes that vary or are high.
    """

    digests: tuple[bytes, ...]
    thumbnails: npt.NDArray[np.float32]
    expression: Matrix


def trace_images(sample: Sample, *, inputs: Inputs | None, spec: PatchSpec | None) -> ImageTraces:
    """Return what the patches of a section are recognised by; nothing without images."""
    if inputs is None or spec is None:
        return (), np.zeros((0, 3 * _THUMBNAIL**2), np.float32)
    view = inputs.patches(sample, spec).views[0]
    digests = [
        hashlib.blake2b(np.ascontiguousarray(patch).data, digest_size=16).digest() for patch in view
    ]
    return tuple(digests), np.stack([_thumbnail(np.asarray(patch)) for patch in view])


def trace_expression(sample: Sample, sets: GeneSets) -> Matrix:
    """Return what the spots of a section are recognised by: HVG200 and HEG50 of the fold."""
    genes = sorted({*sets.hvg200, *sets.heg50})
    return np.nan_to_num(sample.truth(genes)).astype(np.float64)


def _thumbnail(patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    side = patch.shape[0]
    cuts = np.linspace(0, side, _THUMBNAIL + 1).astype(int)[:-1]
    rows = np.add.reduceat(patch.astype(np.float32), cuts, axis=0)
    cells = np.add.reduceat(rows, cuts, axis=1)
    sizes = np.diff(np.append(cuts, side)).astype(np.float32)
    return np.asarray((cells / (sizes[:, None, None] * sizes[None, :, None])).ravel(), np.float32)


def audit_fold(
    fold: Fold,
    samples: Sequence[Sample],
    traces: Sequence[Traces],
    *,
    sets: GeneSets,
    n_genes: int,
    markers: Sequence[str] = (),
    same_patient: bool = False,
) -> tuple[Finding, ...]:
    """Look for the test patient in the training sections of one fold.

    Parameters
    ----------
    fold
        The split.
    samples, traces
        All sections of the cohort and what their spots are recognised by.
    sets
        Gene sets in use.
    n_genes, markers
        As the sets were asked for.
    same_patient
        Whether sections of the test patient may be in training (labelled optimistic).

    Returns
    -------
    tuple of Finding
        One a check, with ``n`` = 0 where nothing was found.
    """
    found = [
        _genes(fold, samples, sets, n_genes=n_genes, markers=markers),
        _images(fold, samples, traces),
        _expression(fold, samples, traces),
    ]
    if not same_patient:
        found.insert(0, _patients(fold, samples))
    return tuple(found)


def _patients(fold: Fold, samples: Sequence[Sample]) -> Finding:
    test = {samples[i].patient for i in fold.test}
    both = sorted(test & {samples[i].patient for i in fold.train})
    return Finding(fold.name, "patients", len(both), ", ".join(both))


def _genes(
    fold: Fold,
    samples: Sequence[Sample],
    sets: GeneSets,
    *,
    n_genes: int,
    markers: Sequence[str],
) -> Finding:
    training = [samples[i].section for i in fold.train]
    own = freeze_gene_sets(training, n_genes=n_genes, markers=markers)
    different = [name for name, genes in own.named().items() if sets.named().get(name) != genes]
    return Finding(fold.name, "genes", len(different), ", ".join(different))


def _images(fold: Fold, samples: Sequence[Sample], traces: Sequence[Traces]) -> Finding:
    known = {d: samples[i].name for i in fold.train for d in traces[i].digests}
    places: list[str] = []
    n = 0
    for i in fold.test:
        same = [d in known for d in traces[i].digests]
        near = np.zeros(len(same), dtype=bool)
        for j in fold.train:
            near |= _near(traces[i].thumbnails, traces[j].thumbnails)
        hits = int((np.asarray(same, dtype=bool) | near).sum())
        n += hits
        if hits:
            places.append(f"{hits} patches of {samples[i].name}")
    return Finding(fold.name, "images", n, ", ".join(places))


def _near(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return which thumbnails have a textured twin, within two grey levels on average."""
    found = np.zeros(len(left), dtype=bool)
    if not len(left) or not len(right):
        return found
    textured = left.reshape(len(left), -1, 3).std(axis=1).mean(axis=1) > _MIN_TEXTURE
    squares = (right**2).sum(axis=1)
    limit = _MAX_GREY**2 * 1.6 * left.shape[1]  # squared distance that a mean of two levels implies
    for start in range(0, len(left), _BLOCK):
        rows = slice(start, start + _BLOCK)
        part = left[rows]
        distance = (part**2).sum(axis=1)[:, None] + squares - 2 * part @ right.T
        nearest = distance.argmin(axis=1)
        close = distance[np.arange(len(part)), nearest] <= limit
        mean = np.abs(part - right[nearest]).mean(axis=1)
        found[rows] = close & (mean <= _MAX_GREY)
    return np.asarray(found & textured, dtype=np.bool_)


def _expression(fold: Fold, samples: Sequence[Sample], traces: Sequence[Traces]) -> Finding:
    train = np.concatenate([traces[i].expression for i in fold.train])
    if train.shape[1] < _MIN_GENES:
        return Finding(fold.name, "expression", 0, f"not judged: under {_MIN_GENES} genes")
    profile = train.mean(axis=0)
    places, n = [], 0
    for i in fold.test:
        hits = int(_same_profile(traces[i].expression, train, profile).sum())
        n += hits
        if hits:
            places.append(f"{hits} spots of {samples[i].name}")
    return Finding(fold.name, "expression", n, ", ".join(places))


def _same_profile(test: Matrix, train: Matrix, profile: Matrix) -> npt.NDArray[np.bool_]:
    """Return which spots have a twin: correlation above 0.99, also beyond the mean profile."""
    found = np.zeros(len(test), dtype=bool)
    raw, residual = _standard(train), _standard(train - profile)
    for start in range(0, len(test), _BLOCK):
        rows = slice(start, start + _BLOCK)
        same = _standard(test[rows]) @ raw.T > MAX_CORRELATION
        alike = _standard(test[rows] - profile) @ residual.T > _MAX_RESIDUAL
        found[rows] = (same & alike).any(axis=1)
    return found


def _standard(values: Matrix) -> npt.NDArray[np.float32]:
    centred = values - values.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(norm > 0, norm, 1.0), dtype=np.float32)


def check_audit(findings: Sequence[Finding]) -> None:
    """Fail when anything leaks.

    Raises
    ------
    LeakError
        Naming every leak.
    """
    leaks = [finding for finding in findings if finding.n]
    if not leaks:
        return
    told = "; ".join(f"{f.check} in fold {f.fold!r} ({f.detail})" for f in leaks[:6])
    raise LeakError(
        explain(
            "leak audit",
            got=f"{told}{'; and more' if len(leaks) > 6 else ''}",
            expected="nothing of the test patient in training",
            remedy="give both sections one patient, or remove the copies from the sheet",
        )
    )
