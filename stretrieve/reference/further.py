"""Further embedders of a reference: their embeddings lie in columns beside the first ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stretrieve import training
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path, temporary_sibling
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_from_dict
from stretrieve.embedders import create_embedder, load_embedder
from stretrieve.embedders.base import Embedder, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.errors import ConfigError, SectionError, explain
from stretrieve.reference.artefacts import check_embedder
from stretrieve.reference.cache import LazyPatches
from stretrieve.reference.commit import embedder_entry
from stretrieve.reference.derive import MODALITIES
from stretrieve.reference.embed import further_embeddings
from stretrieve.reference.layout import Layout, check_label, delete
from stretrieve.reference.manifest import Manifest
from stretrieve.reference.settings import BuildSettings, check_dtype
from stretrieve.reference.source import SectionSource, open_source
from stretrieve.reference.writer import Writer, open_writer
from stretrieve.spots import Section
from stretrieve.store import SectionRecord, SpotRows
from stretrieve.store.schema import embedding_column
from stretrieve.training import TrainSettings

_MADE_ANEW = frozenset({"thumbnail"})


@dataclass(frozen=True)
class FurtherSettings:
    """How an embedder is added to a reference.

    Parameters
    ----------
    embedder
        Name of the embedder.
    embedder_config
        Its own settings; left out ones take its defaults.
    train
        Settings of the training loop.
    embedding_dtype
        How its embeddings are stored, ``"float32"`` or ``"float16"``.
    """

    embedder: str
    embedder_config: Mapping[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    embedding_dtype: str = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.embedding_dtype)


def add_embedder(
    root: Path | str,
    sections: Any,
    settings: FurtherSettings,
    *,
    label: str = "",
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Manifest:
    """Fit another embedder on a reference's sections and store its embeddings beside the first ones.

    Nothing that is stored is written anew: the columns are files of their own.

    Parameters
    ----------
    root
        The reference folder.
    sections
        The sections that the reference holds, with their images: in memory, or the path of a
        samplesheet.
    settings
        Which embedder and how it is fitted.
    label
        What ``Reference.open(…, embedder=label)`` calls it; the embedder's name when empty.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every step.

    Raises
    ------
    ConfigError
        When the label is malformed or taken.
    SectionError
        When a section is missing, or is not what the reference holds under its name.
    BusyError
        When another process is writing to the reference.
    """
    label = check_label(label or settings.embedder)
    embedder = create_embedder(settings.embedder, settings.embedder_config)
    source = open_source(sections)
    with open_writer(root, storage_options=storage_options, wait_s=wait_s) as writer:
        _check_new(writer.manifest, label)
        _check_sections(writer, source)
        folder = temporary_sibling(writer.layout.root / "patches")
        try:
            patches = _patches(source, embedder, writer, folder, progress)
            fitted = _fit(writer.layout.embedder_of(label), embedder, patches, settings, progress)
            _fill(writer, fitted, patches, label, settings.embedding_dtype, progress)
        finally:
            delete(folder)
        place = writer.layout.embedder_of(label)
        entry = embedder_entry(fitted, place, settings.embedding_dtype)
        made = replace(writer.made, embedders={**writer.made.embedders, label: entry})
        kept = writer.manifest.calibration
        return writer.commit(
            f"added embedder {label}", made=made, calibration=kept, progress=progress
        )


def remove_embedder(
    root: Path | str,
    label: str,
    *,
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Manifest:
    """Drop a further embedder and its columns from the newest version.

    Parameters
    ----------
    root
        The reference folder.
    label
        Its label.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every step.

    Raises
    ------
    ConfigError
        When there is no embedder of that label.
    """
    with open_writer(root, storage_options=storage_options, wait_s=wait_s) as writer:
        writer.manifest.seen_by(check_label(label))
        writer.store.embeddings.drop(_columns(label), writer.store.sections())
        left = {name: e for name, e in writer.made.embedders.items() if name != label}
        kept = writer.manifest.calibration
        made = replace(writer.made, embedders=left)
        return writer.commit(
            f"removed embedder {label}", made=made, calibration=kept, progress=progress
        )


def load_further(layout: Layout, manifest: Manifest) -> dict[str, Embedder]:
    """Return every further embedder of a version by its label, its files checked."""
    for label in manifest.embedders:
        check_embedder(layout, manifest, label=label)
    return {label: load_embedder(layout.embedder_of(label)) for label in manifest.embedders}


def _columns(label: str) -> list[str]:
    return [embedding_column(column, label) for column in MODALITIES.values()]


def _check_new(manifest: Manifest, label: str) -> None:
    if label in manifest.embedders:
        raise ConfigError(
            explain(
                "label of an embedder",
                got=f"{label!r}, which is taken",
                remedy="give another with --label, or remove the old one first",
            )
        )


def _check_sections(writer: Writer, source: SectionSource) -> None:
    """Check that the source holds the reference's sections, all of them and as they are stored."""
    there = {record.section: record for record in writer.store.sections()}
    missing = sorted(set(there) - set(source.names))
    strange = sorted(set(source.names) - set(there))
    if missing or strange:
        raise SectionError(
            explain(
                "sections to embed",
                got=f"none named {missing[0]!r}" if missing else f"{strange[0]!r} as well",
                expected="exactly those that the reference holds",
            )
        )
    for name, record in there.items():
        _check_same(record, source.read(name))


def _check_same(record: SectionRecord, section: Section) -> None:
    found = _bare_rows(section).sorted(record.section).digests(record.section)
    wrong = [k for k, v in found.items() if k not in _MADE_ANEW and v != record.digests.get(k)]
    if wrong:
        raise SectionError(
            explain(
                f"section {record.section!r}",
                got=f"other {', '.join(sorted(wrong))} than the reference holds",
                remedy="embed the section that was added to the reference",
            )
        )


def _bare_rows(section: Section, embeddings: Mapping[str, Any] | None = None) -> SpotRows:
    names = [str(spot_id) for spot_id in section.spot_ids]
    return SpotRows(
        names,
        section.xy,
        section.xy_um,
        section.array_xy,
        section.counts,
        section.gene_names,
        embeddings or {},
        [b""] * len(names),
    )


def _patches(
    source: SectionSource, embedder: Embedder, writer: Writer, folder: Path, progress: Progress
) -> LazyPatches:
    settings = settings_from_dict(BuildSettings, writer.manifest.settings)

    def open_one(name: str) -> SectionPatches:
        return collect_patches(
            source.read(name),
            embedder.spec,
            cache=folder,
            batch_size=settings.batch_size,
            workers=settings.workers,
            progress=progress,
        )

    return LazyPatches(source.names, open_one)


def _fit(
    folder: Path,
    embedder: Embedder,
    patches: LazyPatches,
    settings: FurtherSettings,
    progress: Progress,
) -> Embedder:
    training.fit_embedder(embedder, patches, settings=settings.train, progress=progress)
    crash_point("save the further embedder")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        embedder.save(temporary)
    crash_point("saved the further embedder")
    return load_embedder(folder)


def _fill(
    writer: Writer,
    embedder: Embedder,
    patches: LazyPatches,
    label: str,
    dtype: str,
    progress: Progress,
) -> None:
    """Add the columns and fill them, one section a commit, then say so in the sections table."""
    store = writer.store
    settings = settings_from_dict(BuildSettings, writer.manifest.settings)
    store.embeddings.add(dict.fromkeys(_columns(label), embedder.dim), dtype=dtype)
    records = []
    with progress.task("embedding sections", len(patches)) as task:
        for record in store.sections():
            one = patches[patches.names.index(record.section)]
            columns = further_embeddings(embedder, one, label=label, batch_size=settings.batch_size)
            digests = store.embeddings.fill(record.section, _bare_rows(one.section, columns))
            records.append(replace(record, digests={**record.digests, **digests}))
            task.advance(note=record.section)
    store.embeddings.set_digests(records)
