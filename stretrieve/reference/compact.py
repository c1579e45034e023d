"""Writing a reference anew without what was removed, and forgetting old versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stretrieve._failpoints import crash_point
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import ChecksumError, explain
from stretrieve.reference.artefacts import records_digest
from stretrieve.reference.commit import commit_version
from stretrieve.reference.manifest import Manifest
from stretrieve.reference.versions import read_tags, write_tags
from stretrieve.reference.writer import (
    Writer,
    delete_store,
    delete_version,
    drop_unused_embedders,
    kept_versions,
    next_store_uri,
    open_writer,
    prune_derived,
    versions_in_use,
)
from stretrieve.store import SpotStore


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Parameters
    ----------
    manifest
        The new version.
    forgotten
        Versions that are gone.
    kept
        Older versions that are still there, and why; what was removed from the newest version is
        still in them.
    """

    manifest: Manifest
    forgotten: tuple[int, ...]
    kept: Mapping[int, str]


def compact_reference(
    root: Path | str,
    *,
    drop_tags: bool = False,
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress = SILENT,
) -> Compacted:
    """Copy the newest version into a fresh store, section by section, and delete old versions.

    Every row is checked on the way. Versions with a tag and versions open in a reader stay.

    Parameters
    ----------
    root
        The reference folder.
    drop_tags
        Drop the tags of older versions, so that these can go.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.
    progress
        Told of every section.

    Raises
    ------
    ChecksumError
        When a row is not what was written; the reference is left as it is.
    """
    with open_writer(root, storage_options=storage_options, wait_s=wait_s) as writer:
        uri = next_store_uri(str(writer.manifest.store["uri"]), writer.manifest.version + 1)
        fresh = copy_store(
            writer.store,
            writer.layout.store_uri(uri),
            storage_options=writer.storage_options,
            progress=progress,
        )
        manifest = commit_version(
            writer.layout,
            fresh,
            writer.made,
            change="compacted",
            uri=uri,
            before=writer.manifest,
            calibration=writer.manifest.calibration,
            progress=progress,
        )
        if drop_tags:
            tags = read_tags(writer.layout)
            write_tags(writer.layout, {k: v for k, v in tags.items() if v == manifest.version})
        return _forget(writer, manifest)


def copy_store(
    store: SpotStore,
    uri: str,
    *,
    storage_options: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> SpotStore:
    """Copy a store into a fresh one, its sections in order, every row checked.

    Genes that no section measures any more are left out.

    Parameters
    ----------
    store
        The store to copy.
    uri
        Where the copy goes; what is there is replaced.
    storage_options
        Credentials and endpoint of an object store.
    progress
        Told of every section.
    """
    genes = store.genes[store.measured().any(axis=0)]
    crash_point("create the fresh store")
    fresh = SpotStore.create(
        uri, dims=store.dims, genes=genes, dtypes=store.dtypes, storage_options=storage_options
    )
    records = store.sections()
    with progress.task("copying sections", len(records)) as task:
        for record in records:
            written = fresh.append_section(record, store.section_rows(record.section))
            if written.digest != record.digest:
                raise ChecksumError(
                    explain(
                        f"section {record.section!r}",
                        got="rows that fail their checksum",
                        remedy="run `stretrieve ref verify`, then restore the store from a copy",
                    )
                )
            task.advance(note=record.section)
    if records_digest(fresh.sections()) != records_digest(records):
        raise ChecksumError(explain("copied store", got="other sections than the original"))
    return fresh


def _forget(writer: Writer, manifest: Manifest) -> Compacted:
    """Delete the versions that nobody refers to, then the stores that only they used."""
    layout = writer.layout
    reasons = versions_in_use(layout)
    before = kept_versions(layout)
    forgotten = tuple(
        number for number in before if number not in reasons and delete_version(layout, number)
    )
    needed = {str(version.store["uri"]) for version in kept_versions(layout).values()}
    for uri in sorted({str(before[number].store["uri"]) for number in forgotten} - needed):
        crash_point(f"delete store {uri}")
        delete_store(layout, uri, writer.storage_options)
    drop_unused_embedders(layout)
    prune_derived(layout)
    kept = {
        number: reasons.get(number, "open in a reader")
        for number in kept_versions(layout)
        if number != manifest.version
    }
    return Compacted(manifest, forgotten, kept)
