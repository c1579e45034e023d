"""Building a reference from measured sections."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from stretrieve import keys, training
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.embedders import create_embedder, load_embedder
from stretrieve.embedders.base import Embedder, Embeddings, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.errors import InputError, OutputExistsError, StretrieveError, explain
from stretrieve.reference.artefacts import check_embedder
from stretrieve.reference.cache import LazyPatches, SectionCache
from stretrieve.reference.commit import Made, commit_version, embedder_entry
from stretrieve.reference.derive import MODALITIES
from stretrieve.reference.embed import section_record, spot_rows
from stretrieve.reference.layout import delete
from stretrieve.reference.reference import Reference
from stretrieve.reference.settings import BuildSettings
from stretrieve.reference.source import SectionSource, open_source
from stretrieve.reference.versions import publish
from stretrieve.reference.workfolder import WorkFolder, open_work
from stretrieve.spots import Section
from stretrieve.store import SpotStore

Finish = Callable[[Reference, Sequence[SectionPatches], Progress], Mapping[str, Any] | None]
"""Last step of a build; see :func:`build_reference`."""


def build_reference(
    sections: Sequence[Section] | Path | str,
    out: Path | str,
    *,
    settings: BuildSettings | None = None,
    resume: bool = False,
    storage_options: Mapping[str, str] | None = None,
    finish: Finish | None = None,
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
    storage_options
        Credentials and endpoint when ``settings.store_uri`` names an object store.
    finish
        Called with the reference and its sections with their patches before the reference gets its
        name; what it returns becomes the calibration in the manifest.
        :func:`~stretrieve.query.calibrate_built` is one; nothing is calibrated when ``None``.
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
    embedder = _embedder(settings)
    with open_work(out, source=source.digest(), settings=plain, resume=resume) as work:
        if not out.exists() and not work.reference.manifest.is_file():
            _check_store_place(work, settings, storage_options)
            _build(work, source, embedder, settings, storage_options, progress)
        if finish is not None and not out.exists():
            patches = _patches(work, source, embedder, settings, progress)
            _finish(work, finish, patches, storage_options, progress)
        work.finish()
    return Reference.open(out, storage_options=storage_options)


def assist_build(
    sections: Sequence[Section] | Path | str,
    out: Path | str,
    *,
    settings: BuildSettings | None = None,
) -> None:
    """Share in the training of a build that the first process of a ``torchrun`` job runs.

    For the job's other processes. They read the patches which the first one has decoded, train
    beside it, and write nothing.

    Parameters
    ----------
    sections, out, settings
        As given to :func:`build_reference` in the first process.
    """
    settings = settings or BuildSettings()
    source, embedder = open_source(sections), _embedder(settings)
    work = WorkFolder(Path(out).absolute())
    with training.shared_training(settings.train) as world:
        if world.agree(wanted=False):
            _train(
                work, embedder, _patches(work, source, embedder, settings, SILENT), settings, SILENT
            )


def _embedder(settings: BuildSettings) -> Embedder:
    """Return the fitted embedder that is taken over, or an unfitted one."""
    if settings.embedder_from:
        return load_embedder(_embedder_folder(settings))
    return create_embedder(settings.embedder, settings.embedder_config)


def _embedder_folder(settings: BuildSettings) -> Path:
    place = Path(settings.embedder_from)
    if (place / keys.MANIFEST).is_file():
        opened = Reference.open(place)
        check_embedder(opened.layout, opened.manifest)
        return opened.layout.embedder
    return place


def _check_store_place(
    work: WorkFolder, settings: BuildSettings, storage_options: Mapping[str, str] | None
) -> None:
    """Refuse an object store that holds other tables, or on which commits can be lost."""
    uri = settings.store_uri
    if not uri or work.resumed:
        return
    try:
        if SpotStore.is_occupied(uri, storage_options=storage_options):
            raise OutputExistsError(
                explain(
                    "store", got=f"{uri}, which holds tables", remedy="choose another store_uri"
                )
            )
        SpotStore.probe(uri, storage_options=storage_options)
    except StretrieveError:
        delete(work.path)
        raise


def _build(
    work: WorkFolder,
    source: SectionSource,
    embedder: Embedder,
    settings: BuildSettings,
    storage_options: Mapping[str, str] | None,
    progress: Progress,
) -> None:
    cache = SectionCache(work.sections)
    try:
        _read(source, cache, progress)
    except InputError:
        delete(work.path)
        raise

    patches = _patches(work, source, embedder, settings, progress)
    fitted = _fit(work, embedder, patches, settings, progress)
    uri = settings.store_uri or keys.LANCE
    sections = (cache.get(name) for name in source.names)
    place = work.reference.store_uri(uri)
    store = _open_store(place, fitted, sections, settings.embedding_dtype, storage_options)
    write_sections(store, fitted, patches, settings, progress=progress)
    entry = embedder_entry(fitted, work.reference.embedder, settings.embedding_dtype)
    made = Made(settings_to_dict(settings), entry, settings.recipe)
    commit_version(work.reference, store, made, change="built", uri=uri, progress=progress)


def _patches(
    work: WorkFolder,
    source: SectionSource,
    embedder: Embedder,
    settings: BuildSettings,
    progress: Progress,
) -> LazyPatches:
    cache = SectionCache(work.sections)

    def open_one(name: str) -> SectionPatches:
        return collect_patches(
            cache.get(name),
            embedder.spec,
            cache=work.patches,
            batch_size=settings.batch_size,
            workers=settings.workers,
            progress=progress,
        )

    return LazyPatches(source.names, open_one)


def _finish(
    work: WorkFolder,
    finish: Finish,
    patches: Sequence[SectionPatches],
    storage_options: Mapping[str, str] | None,
    progress: Progress,
) -> None:
    """Complete the manifest of a reference that nobody can have opened yet."""
    with Reference.open(work.reference.root, storage_options=storage_options) as reference:
        if reference.manifest.calibration is None:
            found = finish(reference, patches, progress)
            if found is not None:
                publish(work.reference, replace(reference.manifest, calibration=dict(found)))


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
    """Fit the embedder and save it, or take another's; what an interrupted build saved is used."""
    folder = work.reference.embedder
    if settings.embedder_from and not folder.is_dir():
        with atomic_path(folder) as temporary:
            shutil.copytree(_embedder_folder(settings), temporary)
    with training.shared_training(settings.train) as world:
        if world.size > 1:
            deque(patches, maxlen=0)  # decoded once, for all
        if world.agree(wanted=not folder.is_dir()):
            _train(work, embedder, patches, settings, progress)
    if not folder.is_dir():
        crash_point("save the embedder")
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            embedder.save(temporary)
        crash_point("saved the embedder")
    return load_embedder(folder)


def _train(
    work: WorkFolder,
    embedder: Embedder,
    patches: Sequence[SectionPatches],
    settings: BuildSettings,
    progress: Progress,
) -> None:
    train = settings.train
    training.fit_embedder(
        embedder,
        patches,
        settings=train if train.seed else replace(train, seed=settings.seed),
        checkpoint=work.checkpoint,
        progress=progress,
    )


def _open_store(
    uri: str,
    embedder: Embedder,
    sections: Iterable[Section],
    dtype: str,
    storage_options: Mapping[str, str] | None,
) -> SpotStore:
    if SpotStore.exists(uri, storage_options=storage_options):
        store = SpotStore(uri, storage_options=storage_options)
        store.discard_uncommitted()
        return store
    dims = dict.fromkeys(MODALITIES.values(), embedder.dim)
    genes = gene_union(sections)
    return SpotStore.create(
        uri,
        dims=dims,
        genes=genes,
        dtypes=dict.fromkeys(dims, dtype),
        storage_options=storage_options,
    )


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
    more: Callable[[Section], Mapping[str, Embeddings]] | None = None,
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
    more
        Gives the embedding columns of further embedders.
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
                if more is not None:
                    rows = replace(rows, embeddings={**rows.embeddings, **more(one.section)})
                store.append_section(record, rows)
            task.advance(note=record.section)
