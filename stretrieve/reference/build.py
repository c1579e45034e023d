"""Building a reference from measured sections."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from stretrieve import keys, training
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.embedders import create_embedder, load_embedder
from stretrieve.embedders.base import Embedder, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.errors import InputError
from stretrieve.reference.cache import LazyPatches, SectionCache
from stretrieve.reference.commit import Made, commit_version, embedder_entry
from stretrieve.reference.derive import MODALITIES
from stretrieve.reference.embed import section_record, spot_rows
from stretrieve.reference.layout import Layout
from stretrieve.reference.reference import Reference
from stretrieve.reference.settings import BuildSettings
from stretrieve.reference.source import SectionSource, open_source
from stretrieve.reference.workfolder import WorkFolder, open_work
from stretrieve.spots import Section
from stretrieve.store import SpotStore


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
    cache = SectionCache(work.sections)
    try:
        _read(source, cache, progress)
    except InputError:
        shutil.rmtree(work.path)
        raise

    def open_one(name: str) -> SectionPatches:
        return collect_patches(
            cache.get(name),
            embedder.spec,
            cache=work.patches,
            batch_size=settings.batch_size,
            workers=settings.workers,
            progress=progress,
        )

    patches = LazyPatches(source.names, open_one)
    fitted = _fit(work, embedder, patches, settings, progress)
    store = _open_store(work.reference, fitted, (cache.get(name) for name in source.names))
    write_sections(store, fitted, patches, settings, progress=progress)
    made = Made(settings_to_dict(settings), embedder_entry(fitted, work.reference), settings.recipe)
    commit_version(work.reference, store, made, change="built", uri=keys.LANCE, progress=progress)


def _read(source: SectionSource, cache: SectionCache, progress: Progress) -> None:
    """Read and validate every section once."""
    with progress.task("reading sections", len(source.names)) as task:
        for name in source.names:
            if name not in cache:
                cache.put(source.read(name))
            task.advance(note=name)


def _fit(
    work: WorkFolder,
    embedder: Embedder,
    patches: Sequence[SectionPatches],
    settings: BuildSettings,
    progress: Progress,
) -> Embedder:
    """Fit the embedder and save it; what an interrupted build has saved is used."""
    folder = work.reference.embedder
    if not folder.is_dir():
        train = settings.train
        training.fit_embedder(
            embedder,
            patches,
            settings=train if train.seed else replace(train, seed=settings.seed),
            checkpoint=work.checkpoint,
            progress=progress,
        )
        crash_point("save the embedder")
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            embedder.save(temporary)
        crash_point("saved the embedder")
    return load_embedder(folder)


def _open_store(layout: Layout, embedder: Embedder, sections: Iterable[Section]) -> SpotStore:
    uri = layout.store_uri(keys.LANCE)
    if SpotStore.exists(uri):
        store = SpotStore(uri)
        store.discard_uncommitted()
        return store
    dims = dict.fromkeys(MODALITIES.values(), embedder.dim)
    return SpotStore.create(uri, dims=dims, genes=gene_union(sections))


def gene_union(sections: Iterable[Section]) -> pd.DataFrame:
    """Return every gene that a section measures, sorted by key.

    Parameters
    ----------
    sections
        The sections, in the order in which they are asked for a gene's names.

    Returns
    -------
    pandas.DataFrame
        Index = gene key; ``gene_id`` and ``gene_symbol`` as the first section that knows them has
        them.
    """
    columns = [keys.GENE_ID, keys.GENE_SYMBOL]
    names: dict[str, list[str]] = {}
    for section in sections:
        table = section.genes
        for key, gene_id, symbol in zip(
            table.index, table[columns[0]], table[columns[1]], strict=True
        ):
            known = names.setdefault(str(key), ["", ""])
            known[0] = known[0] or str(gene_id)
            known[1] = known[1] or str(symbol)
    union = pd.DataFrame.from_dict(names, orient="index", columns=columns).sort_index()
    union.index.name = "gene"
    return union


def write_sections(
    store: SpotStore,
    embedder: Embedder,
    patches: Iterable[SectionPatches],
    settings: BuildSettings,
    *,
    progress: Progress = SILENT,
) -> None:
    """Embed and store one section after the other; those that are there already are left alone.

    Parameters
    ----------
    store
        Where they go.
    embedder
        Fitted embedder.
    patches
        The sections and the patches under their spots.
    settings
        ``batch_size`` and ``thumbnail_px`` are used.
    progress
        Told of every section.
    """
    done = {record.section for record in store.sections()}
    with progress.task(
        "embedding sections", len(patches) if isinstance(patches, Sequence) else None
    ) as task:
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
