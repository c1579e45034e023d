"""Calibrating a stored reference, and finding what a calibration left in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stretrieve import keys
from stretrieve._logging import get_logger
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders import create_embedder
from stretrieve.embedders.base import Embedder, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.embedders.trainable import as_trainable
from stretrieve.errors import InputError, ManifestError, explain
from stretrieve.query.calibrate import (
    MIN_PATIENTS,
    calibrate,
    calibration_pool,
    in_sample_folds,
)
from stretrieve.query.calibration import Calibration, digest_genes
from stretrieve.query.choose import HeldOut
from stretrieve.query.pool import ArrayPool
from stretrieve.reference import Manifest, Reference, set_calibration
from stretrieve.reference.embed import embed_images
from stretrieve.reference.settings import BuildSettings
from stretrieve.reference.source import open_source
from stretrieve.spots import Section

_log = get_logger(__name__)


def stored_calibration(reference: Reference) -> Calibration | None:
    """Return a reference's calibration; ``None``, with a warning in the log, when it is unusable."""
    data = reference.manifest.calibration
    if data is None:
        return None
    try:
        calibration = Calibration.from_dict(data)
    except ManifestError as error:
        _log.warning("querying without the calibration: %s", error)
        return None
    if calibration.genes_digest != digest_genes([str(gene) for gene in reference.genes.index]):
        _log.warning("querying without the calibration: it was made for other genes")
        return None
    return calibration


def calibrate_reference(
    root: Path | str,
    *,
    sections: Sequence[Section] | Path | str | None = None,
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Manifest:
    """Calibrate a reference on its own patients and store the outcome as a new version.

    Parameters
    ----------
    root
        The reference folder.
    sections
        The sections that the reference was built from, or their samplesheet. With them, embedders in
        closed form are fitted again without each held-out patient; without, the embedder has seen the
        patients it is judged on, and every output says so.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every step.

    Raises
    ------
    InputError
        When the reference has fewer than three patients, or ``sections`` are not its sections.
    """
    with Reference.open(root, storage_options=storage_options) as reference:
        patches = None if sections is None else list(_patches(reference, sections, progress))
        found = calibrate_open(reference, patches, progress=progress)
    return set_calibration(root, found.to_dict(), wait_s=wait_s)


def calibrate_built(
    reference: Reference, patches: Sequence[SectionPatches], progress: Progress
) -> dict[str, Any] | None:
    """Calibrate a reference that is being built; ``None`` for fewer than three patients.

    For ``finish`` of :func:`~stretrieve.reference.build_reference`.
    """
    if reference.spots[keys.PATIENT].nunique() < MIN_PATIENTS:
        return None
    return calibrate_open(reference, patches, progress=progress).to_dict()


def calibrate_open(
    reference: Reference,
    patches: Sequence[SectionPatches] | None = None,
    *,
    progress: Progress = SILENT,
) -> Calibration:
    """Calibrate an open reference.

    Parameters
    ----------
    reference
        The reference; it is not changed.
    patches
        Its sections with their patches, for fitting embedders again.
    progress
        Told of every step.
    """
    pool = calibration_pool(reference)
    folds = in_sample_folds(pool)
    refit = patches is not None and can_refit(reference)
    if patches is not None and refit:
        with progress.task("fitting embedders without a patient", len(folds)) as task:
            refitted = []
            for fold in folds:
                refitted.append(_refit(reference, fold, patches))
                task.advance(note=fold.name)
        folds = refitted
    return calibrate(folds, refitted=refit, progress=progress)


def can_refit(reference: Reference) -> bool:
    """Whether the embedder is fitted in closed form, so that fitting it again costs little.

    One that was taken over from elsewhere cannot be fitted again.
    """
    made = reference.manifest.embedder
    embedder = create_embedder(made["name"], made["config"])
    settings = reference.manifest.settings
    epochs = settings.get("train", {}).get("epochs", BuildSettings().train.epochs)
    if settings.get("embedder_from"):
        return False
    return as_trainable(embedder) is None or epochs == 0


def _refit(reference: Reference, fold: HeldOut, patches: Sequence[SectionPatches]) -> HeldOut:
    """Return a fold whose embeddings come from an embedder that has not seen its patients."""
    made = reference.manifest.embedder
    embedder = create_embedder(made["name"], made["config"])
    names = set(fold.pool.spots[keys.PATIENT].to_numpy(dtype=object)[fold.members])
    embedder.fit([one for one in patches if one.section.meta.patient not in names])
    return HeldOut(fold.name, _embedded(fold.pool, embedder, patches), fold.members, fold.others)


def _embedded(pool: ArrayPool, embedder: Embedder, patches: Sequence[SectionPatches]) -> ArrayPool:
    uids = pool.spots[keys.SPOT_UID].to_numpy(dtype=object)
    place = {uid: i for i, uid in enumerate(uids)}
    vectors = {
        name: np.full((len(uids), embedder.dim), np.nan, dtype=np.float32)
        for name in ("image", "expression")
    }
    for one in patches:
        section = one.section
        known = [place.get(f"{section.meta.section}/{spot}", -1) for spot in section.spot_ids]
        rows = np.asarray(known, dtype=np.int64)
        kept = rows >= 0
        image = embed_images(embedder, one, batch_size=BuildSettings().batch_size)
        expression = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
        vectors["image"][rows[kept]] = image[kept]
        vectors["expression"][rows[kept]] = expression[kept]
    missing = np.isnan(vectors["image"]).any(axis=1)
    if missing.any():
        raise InputError(
            explain(
                "sections to calibrate with",
                got=f"no spot {uids[np.argmax(missing)]!r}",
                expected="the sections that the reference was built from",
            )
        )
    return pool.with_vectors(vectors)


def _patches(
    reference: Reference, sections: Sequence[Section] | Path | str, progress: Progress
) -> Iterator[SectionPatches]:
    source = open_source(sections)
    held = set(reference.sections().index)
    missing = sorted(held - set(source.names))
    if missing:
        raise InputError(
            explain(
                "sections to calibrate with",
                got=f"no section {missing[0]!r}",
                expected="the sections that the reference was built from",
            )
        )
    spec = reference.embedder.spec
    for name in source.names:
        if name in held:
            yield collect_patches(source.read(name), spec, progress=progress)
