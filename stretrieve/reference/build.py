"""Building a reference from measured sections."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.embedders import create_embedder, load_embedder
from stretrieve.embedders.base import Embedder, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.reference.artefacts import file_digests, genes_entry, records_digest
from stretrieve.reference.derive import MODALITIES, derive
from stretrieve.reference.embed import section_record, spot_rows
from stretrieve.reference.layout import Layout, version_name
from stretrieve.reference.manifest import Manifest, library_versions, section_entry
from stretrieve.reference.reference import Reference
from stretrieve.reference.settings import BuildSettings
from stretrieve.reference.source import SectionSource, open_source
from stretrieve.reference.versions import publish
from stretrieve.reference.workfolder import WorkFolder, open_work
from stretrieve.spots import Section
from stretrieve.store import SpotStore
from stretrieve.training import fit_embedder

_ID_LENGTH = 16


def build_reference(
    sections: Sequence[Section] | Path | str,
    out: Path | str,
    *,
    settings: BuildSettings | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Reference:
    """Build a reference: patches, embedder, embeddings, store, indexes, and last the manifest.

    Everything is made in a sibling folder; ``out`` appears when the reference is complete.

    Parameters
    ----------
    sections
        Sections in memory, or the path of a samplesheet.
    out
        Folder of the new reference.
    settings
        How to build it.
    resume
        Go on with an interrupted build of the same input.
    progress
        Told of every step.

    Returns
    -------
    Reference
        The new reference, open.

    Raises
    ------
    InputError
        When the sheet or a section is unusable, ``out`` exists, or an interrupted build is in the
        way and ``resume`` is off.
    """
    settings = settings or BuildSettings()
    out = Path(out).absolute()
    source = open_source(sections)
    plain = settings_to_dict(settings)
    embedder = create_embedder(settings.embedder, settings.embedder_config)
    with open_work(out, source=source.digest(), settings=plain, resume=resume) as work:
        if not out.exists() and not work.reference.manifest.is_file():
            _build(work, source, embedder, settings, progress)
        work.finish()
    return Reference.open(out)


def _build(
    work: WorkFolder,
    source: SectionSource,
    embedder: Embedder,
    settings: BuildSettings,
    progress: Progress,
) -> None:
    sections = _read(source, progress)
    patches = [
        collect_patches(
            section,
            embedder.spec,
            cache=work.patches,
            batch_size=settings.batch_size,
            workers=settings.workers,
            progress=progress,
        )
        for section in sections
    ]
    fitted = _fit(work, embedder, patches, settings, progress)
    store = _open_store(work.reference, fitted, sections)
    _write_sections(store, fitted, patches, settings, progress)
    _complete(work.reference, store, fitted, settings, progress)


def _read(source: SectionSource, progress: Progress) -> list[Section]:
    sections = []
    with progress.task("reading sections", len(source.names)) as task:
        for name in source.names:
            sections.append(source.read(name))
            task.advance(note=name)
    return sections


def _fit(
    work: WorkFolder,
    embedder: Embedder,
    patches: Sequence[SectionPatches],
    settings: BuildSettings,
    progress: Progress,
) -> Embedder:
    """Fit the embedder and save it; what an interrupted build has saved is used."""
    folder = work.reference.embedder
    if folder.is_dir():
        return load_embedder(folder)
    fit_embedder(
        embedder, patches, settings=settings.train, checkpoint=work.checkpoint, progress=progress
    )
    crash_point("save the embedder")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        embedder.save(temporary)
    crash_point("saved the embedder")
    return embedder


def _open_store(layout: Layout, embedder: Embedder, sections: Sequence[Section]) -> SpotStore:
    uri = layout.store_uri(keys.LANCE)
    if SpotStore.exists(uri):
        store = SpotStore(uri)
        store.discard_uncommitted()
        return store
    dims = dict.fromkeys(MODALITIES.values(), embedder.dim)
    return SpotStore.create(uri, dims=dims, genes=gene_union(sections))


def gene_union(sections: Sequence[Section]) -> pd.DataFrame:
    """Return every gene that a section measures, sorted by key.

    Parameters
    ----------
    sections
        The sections.

    Returns
    -------
    pandas.DataFrame
        Index = gene key; ``gene_id`` and ``gene_symbol`` as the first section by name that knows
        them has them.
    """
    columns = [keys.GENE_ID, keys.GENE_SYMBOL]
    ordered = sorted(sections, key=lambda section: section.meta.section)
    stacked = pd.concat([section.genes[columns].astype(str) for section in ordered])
    known = stacked.where(stacked != "")
    union = known.groupby(level=0, sort=True).first().fillna("")
    union.index.name = "gene"
    return union


def _write_sections(
    store: SpotStore,
    embedder: Embedder,
    patches: Sequence[SectionPatches],
    settings: BuildSettings,
    progress: Progress,
) -> None:
    """Embed and store one section after the other; those that are there already are left alone."""
    done = {record.section for record in store.sections()}
    with progress.task("embedding sections", len(patches)) as task:
        for one in patches:
            record = section_record(one.section)
            if record.section not in done:
                rows = spot_rows(
                    embedder,
                    one,
                    batch_size=settings.batch_size,
                    thumbnail_px=settings.thumbnail_px,
                )
                store.append_section(record, rows)
            task.advance(note=record.section)


def _complete(
    layout: Layout,
    store: SpotStore,
    embedder: Embedder,
    settings: BuildSettings,
    progress: Progress,
) -> None:
    """Derive the indexes, tag the tables and write the manifest."""
    order = store.spot_table()["_rowid"].to_numpy()
    entries = derive(store, order, layout.indexes(1), recipe=settings.recipe, progress=progress)
    store.tag(version_name(1))
    records = store.sections()
    digest = records_digest(records)
    manifest = Manifest(
        reference_id=digest[:_ID_LENGTH],
        version=1,
        created=now(),
        change="built",
        settings=settings_to_dict(settings),
        embedder=embedder_entry(embedder, layout),
        store={"uri": keys.LANCE, "tables": store.versions.to_dict()},
        sections=tuple(section_entry(record) for record in records),
        genes=genes_entry(store.genes),
        content_digest=digest,
        indexes=entries,
        libraries=library_versions(),
    )
    publish(layout, manifest)


def embedder_entry(embedder: Embedder, layout: Layout) -> dict[str, Any]:
    """Return what the manifest says about the embedder."""
    return {
        "name": embedder.name,
        "config": embedder.to_config(),
        "dim": embedder.dim,
        "patch_spec": embedder.spec.to_dict(),
        "gene_names": list(embedder.gene_names),
        "files": file_digests(layout.embedder),
    }


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
