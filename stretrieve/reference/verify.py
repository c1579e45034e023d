"""Recomputing every checksum of a reference and comparing its parts with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stretrieve._progress import SILENT, Progress
from stretrieve.errors import ChecksumError, ManifestError, StretrieveError, explain
from stretrieve.indexes.recall import index_recall_at_k
from stretrieve.reference.artefacts import check_embedder, content_digest, genes_entry
from stretrieve.reference.derive import index_columns, load_searcher
from stretrieve.reference.layout import Layout, is_remote, version_name
from stretrieve.reference.manifest import Manifest, read_manifest, section_entry
from stretrieve.reference.rows import FILE, checked_vectors, map_spots, read_spots
from stretrieve.reference.storefiles import faults_in_files, read_store_files
from stretrieve.reference.versions import find_manifest, read_tags
from stretrieve.store import SectionRecord, SpotStore

_REBUILD = "stretrieve ref rebuild-indexes"
_RESTORE = "restore it from a copy, or open an older version with @v000001"
_QUERIES = 100
_K = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Parameters
    ----------
    part
        Which part of the reference.
    problem
        What is wrong with it.
    repair
        What to do.
    """

    part: str
    problem: str
    repair: str


@dataclass(frozen=True)
class Verified:
    """Outcome of a verification.

    Parameters
    ----------
    version
        The version that was read.
    content_digest
        SHA-256 over all rows, computed anew; empty when rows cannot be read.
    faults
        Everything that is wrong.
    notes
        What is unusual but harmless.
    """

    version: int
    content_digest: str
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def raise_if_damaged(self) -> None:
        """Raise when something is wrong.

        Raises
        ------
        ChecksumError
            With the number of faults and the first of them.
        """
        if self.faults:
            first = self.faults[0]
            raise ChecksumError(
                explain(
                    f"reference with {len(self.faults)} faults",
                    got=f"{first.part}: {first.problem}",
                    remedy=first.repair,
                )
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON data."""
        return {
            "ok": self.ok,
            "version": self.version,
            "content_digest": self.content_digest,
            "faults": [asdict(fault) for fault in self.faults],
            "notes": list(self.notes),
        }


def verify_reference(
    root: Path | str,
    *,
    tag: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> Verified:
    """Recompute every checksum and cross-check store, indexes and manifest; nothing is written.

    Parameters
    ----------
    root
        The reference folder.
    tag
        The version to verify; the newest when ``None``.
    storage_options
        Credentials and endpoint when the store is in an object store.
    progress
        Told of every section.

    Raises
    ------
    ReferenceNotFoundError
        When there is no reference.
    ManifestError
        When the manifest itself cannot be read.
    """
    layout = Layout(Path(root))
    manifest = find_manifest(layout, tag)
    faults = [
        *_history(layout, manifest),
        *_embedders(layout, manifest),
        *_files(layout, manifest),
    ]
    digest = ""
    try:
        uri = layout.store_uri(str(manifest.store["uri"]))
        store = SpotStore(uri, versions=manifest.table_versions, storage_options=storage_options)
        digest, found = _store(store, manifest, progress)
        faults += found
        faults += _derived(layout, manifest, store)
    except StretrieveError as error:
        faults.append(Fault("store", str(error), _RESTORE))
    except Exception as error:  # noqa: BLE001 (damaged bytes make libraries raise anything)
        what = f"damaged data ({type(error).__name__}: {str(error)[:200]})"
        faults.append(Fault("store", what, _RESTORE))
    return Verified(manifest.version, digest, tuple(faults), _notes(layout, manifest))


def _caught(part: str, repair: str, check: Callable[[], object]) -> Iterator[Fault]:
    try:
        check()
    except StretrieveError as error:
        yield Fault(part, str(error), repair)


def _embedders(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    for label in ("", *sorted(manifest.embedders)):
        part = f"embedder {label}".strip()
        yield from _caught(
            part,
            _RESTORE,
            lambda label=label: check_embedder(layout, manifest, label=label),  # type: ignore[misc] # a default of a lambda
        )


def _history(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    """Check the manifests of all versions, the tags, and that manifest.json is one of the former."""
    repair = "delete it if the version is not needed, else restore it from a copy"
    for path in sorted(layout.versions.glob("v*.json")):
        if not path.name.endswith(".files.json"):
            yield from _caught(f"versions/{path.name}", repair, lambda p=path: read_manifest(p))  # type: ignore[misc] # a default of a lambda
    own = layout.version(manifest.version)
    if not own.is_file():
        yield Fault(f"versions/{own.name}", "no such file", f"copy {layout.manifest.name} there")
    try:
        tags = read_tags(layout)
    except ManifestError as error:
        yield Fault("tags", str(error), "tag the versions again")
        return
    for name, number in tags.items():
        if not layout.version(number).is_file():
            problem = f"{name!r} names {version_name(number)}, which is not there"
            yield Fault("tags", problem, "tag another version with --move")


def _files(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    uri = str(manifest.store["uri"])
    if is_remote(uri):
        return
    try:
        path = layout.files(manifest.version)
        files = read_store_files(path, str(manifest.store["files_sha256"]))
    except ManifestError as error:
        yield Fault("list of store files", str(error), _RESTORE)
        return
    for line in faults_in_files(layout.root / uri, files):
        yield Fault("store file", line, _RESTORE)


def _store(store: SpotStore, manifest: Manifest, progress: Progress) -> tuple[str, list[Fault]]:
    faults = []
    if genes_entry(store.genes) != dict(manifest.genes):
        faults.append(Fault("genes", "the table differs from the manifest", _RESTORE))
    records = store.sections()
    if [section_entry(record) for record in records] != [dict(s) for s in manifest.sections]:
        faults.append(Fault("sections", "the table differs from the manifest", _RESTORE))
    if store.n_spots != sum(record.n_spots for record in records):
        problem = f"{store.n_spots} rows, {manifest.n_spots} in the manifest"
        faults.append(Fault("spots", problem, _RESTORE))
    digests = []
    with progress.task("verifying sections", len(records)) as task:
        for record in records:
            digest, problem = _section(store, record)
            digests.append((record.section, digest))
            if problem:
                faults.append(Fault(f"section {record.section!r}", problem, _RESTORE))
            task.advance(note=record.section)
    found = content_digest(digests)
    if found != manifest.content_digest:
        faults.append(Fault("content", f"digest {found[:16]}… is not the manifest's", _RESTORE))
    return found, faults


def _section(store: SpotStore, record: SectionRecord) -> tuple[str, str]:
    """Return the digest computed anew, and what is wrong if anything."""
    try:
        rows = store.section_rows(record.section)
    except ChecksumError as error:
        return "", str(error)
    digests = rows.digests(record.section)
    wrong = sorted(name for name in digests if digests[name] != record.digests.get(name))
    uids = rows.uids(record.section)
    problems = [f"{', '.join(wrong)} differ from what was written"] if wrong else []
    if len(set(uids)) != len(uids):
        problems.append(f"{len(uids) - len(set(uids))} repeated spots")
    if len(uids) != record.n_spots:
        problems.append(f"{len(uids)} spots instead of {record.n_spots}")
    fresh = replace(record, n_spots=len(uids), n_genes=len(rows.genes), digests=digests)
    return fresh.digest, "; ".join(problems)


def _derived(layout: Layout, manifest: Manifest, store: SpotStore) -> Iterator[Fault]:
    """Check derived files, and that they say what the store says."""
    folder = layout.indexes(manifest.version)
    spots = read_spots(store)
    try:
        mapped = map_spots(folder / FILE, manifest.spots_sha256)
        if not spots.says_the_same(mapped):
            yield Fault("spots.arrow", "differs from the store", _REBUILD)
    except ChecksumError as error:
        yield Fault("spots.arrow", str(error), _REBUILD)
    for modality, column in index_columns(manifest.embedders).items():
        try:
            searcher = load_searcher(folder, modality, manifest.indexes[modality])
        except (ChecksumError, KeyError) as error:
            yield Fault(f"{modality} index", str(error), _REBUILD)
            continue
        vectors = checked_vectors(store, spots, column)
        if not np.array_equal(searcher.vectors, vectors):
            yield Fault(f"{modality} vectors", "differ from the store", _REBUILD)
            continue
        picked = np.linspace(0, len(vectors) - 1, min(_QUERIES, len(vectors))).astype(np.int64)
        recall = _recall(searcher.index, vectors, picked)
        floor = float(manifest.indexes[modality].settings["recall_floor"])
        if recall < floor:
            problem = f"recall {recall:.3f} is below {floor:g}"
            yield Fault(f"{modality} index", problem, f"{_REBUILD} --recipe flat")


def _recall(index: Any, vectors: Any, picked: Any) -> float:
    from stretrieve.indexes import ExactIndex

    k = min(_K, len(vectors))
    truth = ExactIndex(vectors, metric=index.metric).search(vectors[picked], k)
    return index_recall_at_k(index.search(vectors[picked], k), truth)


def _notes(layout: Layout, manifest: Manifest) -> tuple[str, ...]:
    newest = layout.manifest.is_file() and read_manifest(layout.manifest).version
    notes = []
    for path in sorted(layout.versions.glob("v*.json")):
        number = int(path.name[1:7])
        if newest and number > newest and not path.name.endswith(".files.json"):
            notes.append(f"{path.name}: left by an interrupted write; the next write clears it")
    del manifest
    return tuple(notes)
