"""A reference open for writing: alone, with the remains of an interrupted write cleared away."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import ManifestError
from stretrieve.reference.commit import Made, commit_version
from stretrieve.reference.layout import EMBEDDERS, Layout, delete, is_remote, version_name
from stretrieve.reference.locks import claimed, writer_lock
from stretrieve.reference.manifest import Manifest, read_manifest
from stretrieve.reference.resources import typed_os_errors
from stretrieve.reference.versions import find_manifest, read_tags
from stretrieve.store import SpotStore

_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]+")
_NUMBER = re.compile(r"v(\d{6,})")


@dataclass(frozen=True)
class Writer:
    """The newest version of a reference and its tables, to be changed.

    Parameters
    ----------
    layout
        Where the reference is.
    manifest
        The newest version.
    store
        Its tables, at that version.
    storage_options
        Credentials and endpoint when the store is in an object store.
    """

    layout: Layout
    manifest: Manifest
    store: SpotStore
    storage_options: Mapping[str, str]

    @property
    def made(self) -> Made:
        """What the reference was made with."""
        settings = self.manifest.settings
        recipe = str(settings["recipe"])
        return Made(settings, self.manifest.embedder, recipe, self.manifest.embedders)

    def commit(
        self,
        change: str,
        *,
        made: Made | None = None,
        calibration: Mapping[str, Any] | None = None,
        progress: Progress = SILENT,
    ) -> Manifest:
        """Publish what was written as the next version and drop derived files nobody needs."""
        manifest = commit_version(
            self.layout,
            self.store,
            made or self.made,
            change=change,
            uri=str(self.manifest.store["uri"]),
            before=self.manifest,
            calibration=calibration,
            progress=progress,
        )
        prune_derived(self.layout)
        return manifest


@contextlib.contextmanager
def open_writer(
    root: Path | str,
    *,
    storage_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
) -> Iterator[Writer]:
    """Open a reference for writing.

    Parameters
    ----------
    root
        The reference folder.
    storage_options
        Credentials and endpoint when the store is in an object store.
    wait_s
        Seconds to wait for another writer.

    Raises
    ------
    BusyError
        When another process is writing to it.
    ReferenceNotFoundError
        When there is no reference.
    """
    layout = Layout(Path(root))
    find_manifest(layout)
    what = f"reference {layout.root}"
    with typed_os_errors(what), writer_lock(layout.lock, what=what, wait_s=wait_s):
        manifest = find_manifest(layout)
        options = dict(storage_options or {})
        clear_remains(layout, manifest)
        uri = layout.store_uri(str(manifest.store["uri"]))
        store = SpotStore(uri, storage_options=options)
        if store.versions != manifest.table_versions:
            store.restore(manifest.table_versions)
        yield Writer(layout, manifest, store, options)


def clear_remains(layout: Layout, manifest: Manifest) -> None:
    """Delete what an interrupted write has left: temporary files, later versions, unused stores."""
    for folder in (layout.root, layout.versions, layout.root / keys.INDEXES):
        for path in folder.iterdir() if folder.is_dir() else ():
            if _TEMPORARY.fullmatch(path.name) or _number(path) > manifest.version:
                crash_point(f"clear {path.name}")
                delete(path)
    drop_unused_stores(layout)
    drop_unused_embedders(layout)


def drop_unused_stores(layout: Layout) -> list[str]:
    """Delete local stores that no version refers to and return their names."""
    used = {str(version.store["uri"]) for version in kept_versions(layout).values()}
    dropped = []
    for path in sorted(layout.root.glob(f"{keys.LANCE}*")):
        if path.is_dir() and path.name not in used:
            crash_point(f"drop store {path.name}")
            delete(path)
            dropped.append(path.name)
    return dropped


def drop_unused_embedders(layout: Layout) -> None:
    """Delete the files of further embedders that no version refers to."""
    used = {label for version in kept_versions(layout).values() for label in version.embedders}
    folder = layout.root / EMBEDDERS
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in used:
            crash_point(f"drop embedder {path.name}")
            delete(path)


def kept_versions(layout: Layout) -> dict[int, Manifest]:
    """Return the manifests of all versions that are kept, by number.

    Raises
    ------
    ManifestError
        When one of them is damaged; nothing is deleted then.
    """
    found = {}
    for path in sorted(layout.versions.glob("v*.json")):
        if _NUMBER.fullmatch(path.stem):
            found[_number(path)] = read_manifest(path)
    if not found:
        raise ManifestError(f"reference {layout.root}: no version under {layout.versions.name}/")
    return found


def versions_in_use(layout: Layout) -> dict[int, str]:
    """Return why each version that must stay does: newest, tagged, or open in a reader."""
    newest = find_manifest(layout).version
    reasons = {newest: "the newest"}
    for name, number in sorted(read_tags(layout).items()):
        reasons.setdefault(number, f"tagged {name!r}")
    for number in kept_versions(layout):
        if number not in reasons:
            with claimed(layout.version(number)) as free:
                if not free:
                    reasons[number] = "open in a reader"
    return reasons


def prune_derived(layout: Layout) -> None:
    """Delete derived files of versions that nobody refers to; they can be derived again."""
    needed = {version_name(number) for number in versions_in_use(layout)}
    folder = layout.root / keys.INDEXES
    for path in sorted(folder.iterdir()):
        if _NUMBER.fullmatch(path.name) and path.name not in needed:
            crash_point(f"prune {path.name}")
            delete(path)


def delete_version(layout: Layout, number: int) -> bool:
    """Forget a version: derived files, list of files, and last its manifest.

    Returns
    -------
    bool
        False when a reader has it open; nothing is deleted then.
    """
    with claimed(layout.version(number)) as free:
        if free:
            for path in (layout.indexes(number), layout.files(number), layout.version(number)):
                crash_point(f"forget {path.name}")
                delete(path)
        return free


def next_store_uri(uri: str, number: int) -> str:
    """Return where the store of a rewritten version goes."""
    base = re.sub(r"-v\d{6,}$", "", uri.rstrip("/"))
    return f"{base}-{version_name(number)}"


def delete_store(layout: Layout, uri: str, storage_options: Mapping[str, str]) -> None:
    """Delete a store that no version refers to any more."""
    if is_remote(uri):
        SpotStore.drop(uri, storage_options=storage_options)
    else:
        delete(layout.root / uri)


def _number(path: Path) -> int:
    match = _NUMBER.match(path.name)
    return int(match.group(1)) if match else 0
