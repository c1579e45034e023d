"""Making the present state of the store a version: derive, tag, and the manifest last."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import Embedder
from stretrieve.reference.artefacts import file_digests, genes_entry, records_digest
from stretrieve.reference.derive import derive
from stretrieve.reference.layout import Layout, is_remote, version_name
from stretrieve.reference.manifest import CALIBRATION, Manifest, library_versions, section_entry
from stretrieve.reference.storefiles import read_store_files, store_files, write_store_files
from stretrieve.reference.versions import publish
from stretrieve.store import SpotStore

_ID_LENGTH = 16


@dataclass(frozen=True)
class Made:
    """What a reference was made with; the same for all its versions.

    Parameters
    ----------
    settings
        Settings of the build, as plain data.
    embedder
        The manifest's entry for the embedder.
    recipe
        Index recipe, or ``"auto"``.
    embedders
        The manifest's entries for further embedders, by label.
    """

    settings: Mapping[str, Any]
    embedder: Mapping[str, Any]
    recipe: str
    embedders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def uncalibrated(self) -> Made:
        """Return the same without calibrations, which do not outlive the rows they were made with."""
        bare = {
            label: {name: value for name, value in entry.items() if name != CALIBRATION}
            for label, entry in self.embedders.items()
        }
        return replace(self, embedders=bare)


def embedder_entry(embedder: Embedder, folder: Path, dtype: str) -> dict[str, Any]:
    """Return what the manifest says about an embedder saved in a folder, and its embeddings."""
    return {
        "name": embedder.name,
        "config": embedder.to_config(),
        "dim": embedder.dim,
        "dtype": dtype,
        "patch_spec": embedder.spec.to_dict(),
        "gene_names": list(embedder.gene_names),
        "encoder": dict(embedder.encoder_facts),
        "files": file_digests(folder),
    }


def commit_version(
    layout: Layout,
    store: SpotStore,
    made: Made,
    *,
    change: str,
    uri: str,
    before: Manifest | None = None,
    reference_id: str = "",
    calibration: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Publish the present state of the store as the next version.

    Parameters
    ----------
    layout
        Where the reference is.
    store
        Its tables, with everything written.
    made
        What the reference was made with.
    change
        What made this version, in words without names of people.
    uri
        The store's URI, relative to the reference where it lies inside.
    before
        The version before, if any.
    reference_id
        Name of the reference; that of the version before, or made from the content.
    calibration
        What still holds of the calibration.
    progress
        Told of every step.
    """
    number = before.version + 1 if before else 1
    derived = derive(
        store,
        layout.indexes(number),
        recipe=made.recipe,
        labels=made.embedders,
        progress=progress,
    )
    store.index_metadata()
    store.tag(version_name(number))
    records = store.sections()
    digest = records_digest(records)
    manifest = Manifest(
        reference_id=reference_id or (before.reference_id if before else digest[:_ID_LENGTH]),
        version=number,
        created=now(),
        change=change,
        settings=made.settings,
        embedder=made.embedder,
        store={
            "uri": uri,
            "tables": store.versions.to_dict(),
            "files_sha256": _list_files(layout, uri, number, before),
        },
        sections=tuple(section_entry(record) for record in records),
        genes=genes_entry(store.genes),
        content_digest=digest,
        spots_sha256=derived.spots_sha256,
        indexes=derived.indexes,
        calibration=calibration,
        libraries=library_versions(),
        embedders=made.embedders,
    )
    publish(layout, manifest)
    return manifest


def commit_same_rows(layout: Layout, before: Manifest, *, change: str, **fields: Any) -> Manifest:
    """Publish a version that differs from the one before only in fields of the manifest."""
    number = before.version + 1
    _link_folder(layout.indexes(before.version), layout.indexes(number))
    uri = str(before.store["uri"])
    listed = {**before.store, "files_sha256": _list_files(layout, uri, number, before)}
    manifest = replace(before, version=number, created=now(), change=change, store=listed, **fields)
    publish(layout, manifest)
    return manifest


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _list_files(layout: Layout, uri: str, number: int, before: Manifest | None) -> str:
    """Write the list of the store's files and return its SHA-256; empty for an object store."""
    if is_remote(uri):
        return ""
    known = None
    if before is not None and before.store["uri"] == uri:
        known = read_store_files(layout.files(before.version), before.store["files_sha256"])
    return write_store_files(layout.files(number), store_files(layout.root / uri, known))


def _link_folder(old: Path, new: Path) -> None:
    """Give the immutable derived files of one version to the next."""
    if not old.is_dir() or new.is_dir():
        return
    with atomic_path(new) as temporary:
        temporary.mkdir()
        for path in sorted(old.iterdir()):
            crash_point(f"link {path.name}")
            (temporary / path.name).hardlink_to(path)
