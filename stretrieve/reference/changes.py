"""Changing a reference: every change is a new version, readers keep theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stretrieve import keys
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_from_dict
from stretrieve.embedders import load_embedder
from stretrieve.embedders.base import Embedder, Embeddings, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.errors import InputError, OutputExistsError, SectionError, explain
from stretrieve.reference.artefacts import check_embedder
from stretrieve.reference.build import gene_union, write_sections
from stretrieve.reference.commit import commit_same_rows
from stretrieve.reference.embed import further_embeddings
from stretrieve.reference.further import load_further
from stretrieve.reference.layout import check_tag
from stretrieve.reference.manifest import CALIBRATION, Manifest
from stretrieve.reference.settings import BuildSettings
from stretrieve.reference.source import open_source
from stretrieve.reference.versions import find_manifest, read_tags, write_tags
from stretrieve.reference.writer import open_writer, prune_derived
from stretrieve.spots import Section


@dataclass(frozen=True)
class Removed:
    """What a removal took out.

    Parameters
    ----------
    manifest
        The new version.
    sections
        Names of the sections that are gone from it.
    """

    manifest: Manifest
    sections: tuple[str, ...]


def add_sections(
    root: Path | str,
    sections: Sequence[Section] | Path | str,
    *,
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Manifest:
    """Embed new sections with the reference's own embedder and append them.

    Parameters
    ----------
    root
        The reference folder.
    sections
        Sections in memory, or the path of a samplesheet.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every step.

    Raises
    ------
    SectionError
        When a section of that name is there already; nothing is added then.
    BusyError
        When another process is writing to the reference.
    """
    source = open_source(sections)
    with open_writer(root, storage_options=storage_options, wait_s=wait_s) as writer:
        there = {str(section[keys.SECTION]) for section in writer.manifest.sections}
        twice = sorted(there & set(source.names))
        if twice:
            raise SectionError(
                explain(
                    f"section {twice[0]!r}",
                    got="a section that is already in the reference",
                    remedy="give it another name, or remove the old one first",
                )
            )
        check_embedder(writer.layout, writer.manifest)
        embedder = load_embedder(writer.layout.embedder)
        settings = settings_from_dict(BuildSettings, writer.manifest.settings)
        writer.store.add_genes(gene_union(source.read(name) for name in source.names))
        others = load_further(writer.layout, writer.manifest)
        read = (source.read(name) for name in source.names)
        write_sections(
            writer.store,
            embedder,
            (_patches(section, embedder, settings, progress) for section in read),
            settings,
            more=lambda section: _more(section, others, settings, progress),
            progress=progress,
        )
        change = f"added {len(source.names)} sections"
        return writer.commit(change, made=writer.made.uncalibrated(), progress=progress)


def _more(
    section: Section, others: Mapping[str, Embedder], settings: BuildSettings, progress: Progress
) -> dict[str, Embeddings]:
    """Return the columns of further embedders for one section."""
    columns: dict[str, Embeddings] = {}
    for label, embedder in others.items():
        patches = _patches(section, embedder, settings, progress)
        columns |= further_embeddings(
            embedder, patches, label=label, batch_size=settings.batch_size
        )
    return columns


def _patches(
    section: Section, embedder: Embedder, settings: BuildSettings, progress: Progress
) -> SectionPatches:
    return collect_patches(
        section,
        embedder.spec,
        batch_size=settings.batch_size,
        workers=settings.workers,
        progress=progress,
    )


def remove_sections(
    root: Path | str,
    *,
    sections: Sequence[str] = (),
    patients: Sequence[str] = (),
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Removed:
    """Delete sections, or all sections of patients, from the newest version.

    Older versions still hold them until :func:`~stretrieve.reference.compact.compact_reference`. The
    embedder's weights, if it was trained with them, stay as they are.

    Parameters
    ----------
    root
        The reference folder.
    sections, patients
        What to remove; at least one name.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every step.

    Raises
    ------
    InputError
        When a section or patient is not there, or nothing would be left.
    BusyError
        When another process is writing to the reference.
    """
    with open_writer(root, storage_options=storage_options, wait_s=wait_s) as writer:
        gone = _matching(writer.manifest, sections, patients)
        if len(gone) == len(writer.manifest.sections):
            raise InputError(
                explain(
                    "sections to remove",
                    got="all of them",
                    remedy="delete the folder of the reference instead",
                )
            )
        writer.store.remove_sections(gone)
        change, made = f"removed {len(gone)} sections", writer.made.uncalibrated()
        return Removed(writer.commit(change, made=made, progress=progress), gone)


def _matching(
    manifest: Manifest, sections: Sequence[str], patients: Sequence[str]
) -> tuple[str, ...]:
    gone: set[str] = set()
    for column, wanted in ((keys.SECTION, sections), (keys.PATIENT, patients)):
        known = {str(section[column]) for section in manifest.sections}
        unknown = sorted(set(wanted) - known)
        if unknown:
            raise InputError(
                explain(
                    f"{column} to remove", got=f"{unknown[0]!r}, which the reference does not hold"
                )
            )
        gone |= {
            str(section[keys.SECTION])
            for section in manifest.sections
            if section[column] in set(wanted)
        }
    if not gone:
        raise InputError(
            explain("sections to remove", got="none", expected="a section or a patient")
        )
    return tuple(sorted(gone))


def tag_version(
    root: Path | str,
    name: str,
    *,
    version: str | None = None,
    move: bool = False,
    wait_s: float = 0.0,
) -> Manifest:
    """Give a version a name by which it can be opened; compaction keeps it.

    Parameters
    ----------
    root
        The reference folder.
    name
        The tag: letters, digits, ``.``, ``-`` and ``_``.
    version
        A version such as ``"v000001"`` or another tag; the newest when ``None``.
    move
        Whether a tag of that name may be taken from another version.
    wait_s
        Seconds to wait for another writer.

    Raises
    ------
    OutputExistsError
        When the tag names another version and ``move`` is off.
    """
    check_tag(name)
    with open_writer(root, wait_s=wait_s) as writer:
        manifest = find_manifest(writer.layout, version)
        tags = read_tags(writer.layout)
        if tags.get(name, manifest.version) != manifest.version and not move:
            raise OutputExistsError(
                explain(
                    f"tag {name!r}",
                    got=f"a tag of version {tags[name]}",
                    remedy="choose another name, or move it with --move",
                )
            )
        write_tags(writer.layout, {**tags, name: manifest.version})
        return manifest


def rebuild_indexes(
    root: Path | str,
    *,
    recipe: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Manifest:
    """Derive vectors and indexes again from the store, as a new version with the same rows.

    Parameters
    ----------
    root
        The reference folder.
    recipe
        Index recipe from now on; the present one when ``None``.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every step.
    """
    with open_writer(root, storage_options=storage_options, wait_s=wait_s) as writer:
        made = writer.made
        if recipe is not None:
            made = replace(made, settings={**made.settings, "recipe": recipe}, recipe=recipe)
        kept = writer.manifest.calibration
        return writer.commit("rebuilt the indexes", made=made, calibration=kept, progress=progress)


def set_calibration(
    root: Path | str,
    calibration: Mapping[str, Any],
    *,
    embedder: str = "",
    wait_s: float = 0.0,
) -> Manifest:
    """Store a calibration, plain JSON data, as a new version with the same rows.

    It holds until sections are added or removed.

    Parameters
    ----------
    root
        The reference folder.
    calibration
        What calibration found.
    embedder
        Label of the embedder that it was made with; the reference's own when empty.
    wait_s
        Seconds to wait for another writer.
    """
    with open_writer(root, wait_s=wait_s) as writer:
        before, held = writer.manifest, dict(calibration)
        before.seen_by(embedder)
        fields: dict[str, Any] = {"calibration": held}
        if embedder:
            entry = {**before.embedders[embedder], CALIBRATION: held}
            fields = {"embedders": {**before.embedders, embedder: entry}}
        manifest = commit_same_rows(writer.layout, before, change="calibrated", **fields)
        prune_derived(writer.layout)
        return manifest
