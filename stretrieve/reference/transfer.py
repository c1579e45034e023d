"""A reference as one file, with checksums, for sharing.

The file is an uncompressed zip archive: ``manifest.json``, ``embedder/…``, ``genes.arrow``,
``sections/000000.arrow`` and so on, and ``checksums.json`` last. Only the version that is exported is in
it, so nothing that was removed from the reference travels along.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path, sha256_file, write_json
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import (
    ChecksumError,
    InputNotFoundError,
    ManifestError,
    OutputExistsError,
    explain,
)
from stretrieve.reference.artefacts import check_embedder
from stretrieve.reference.commit import Made, commit_version
from stretrieve.reference.derive import MODALITIES
from stretrieve.reference.layout import EMBEDDERS, Layout
from stretrieve.reference.manifest import Manifest, read_manifest
from stretrieve.reference.reference import Reference
from stretrieve.reference.resources import typed_os_errors
from stretrieve.reference.workfolder import WorkFolder, open_work
from stretrieve.store import SpotStore
from stretrieve.store.exchange import read_gene_table, read_section, write_gene_table, write_section
from stretrieve.store.schema import embedding_column

_CHECKSUMS = "checksums.json"
_GENES = "genes.arrow"
_FILE = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_MEMBER = re.compile(
    rf"manifest\.json|genes\.arrow|embedder/{_FILE}|embedders/[a-z][a-z0-9_]*/{_FILE}"
    r"|sections/\d{6}\.arrow"
)
_COPY_BYTES = 1 << 20


def export_reference(
    root: Path | str,
    out: Path | str,
    *,
    tag: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write one version of a reference to one file.

    Parameters
    ----------
    root
        The reference folder.
    out
        The new file.
    tag
        The version; the newest when ``None``.
    storage_options
        Credentials and endpoint when the store is in an object store.
    progress
        Told of every section.

    Raises
    ------
    OutputExistsError
        When ``out`` exists.
    ChecksumError
        When a row or file is not what was written.
    """
    out = Path(out)
    if out.exists():
        raise OutputExistsError(explain("output", got=f"{out}, which exists"))
    reference = Reference.open(root, tag=tag, storage_options=storage_options)
    for label in _labels(reference.manifest):
        check_embedder(reference.layout, reference.manifest, label=label)
    with (
        typed_os_errors(f"export to {out.name}"),
        atomic_path(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        tempfile.TemporaryDirectory(dir=out.parent) as folder,
    ):
        _write_members(_Members(archive, Path(folder)), reference, progress)
    return out


class _Members:
    """Members of an archive that is being written, with their checksums.

    Parameters
    ----------
    archive
        The archive.
    folder
        For files that are on their way into it.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: Path) -> None:
        self._archive = archive
        self._checksums: dict[str, str] = {}
        self.scratch = folder / "member"

    def add(self, name: str, path: Path) -> None:
        """Copy a file into the archive."""
        crash_point(f"export {name}")
        self._checksums[name] = sha256_file(path)
        self._archive.write(path, name)

    def finish(self) -> None:
        """Write the checksums."""
        self._archive.writestr(_CHECKSUMS, json.dumps(self._checksums, indent=2, sort_keys=True))


def _write_members(members: _Members, reference: Reference, progress: Progress) -> None:
    write_json(members.scratch, reference.manifest.to_dict())
    members.add(keys.MANIFEST, members.scratch)
    for label in _labels(reference.manifest):
        folder = reference.layout.embedder_of(label)
        for name in sorted(reference.manifest.seen_by(label).embedder["files"]):
            path = folder / name
            members.add(path.relative_to(reference.layout.root).as_posix(), path)
    write_gene_table(members.scratch, reference.genes)
    members.add(_GENES, members.scratch)
    records = reference.store.sections()
    with progress.task("exporting sections", len(records)) as task:
        for number, record in enumerate(records):
            write_section(members.scratch, record, reference.store.section_rows(record.section))
            members.add(f"sections/{number:06d}.arrow", members.scratch)
            task.advance(note=record.section)
    members.finish()


def import_reference(
    path: Path | str, out: Path | str, *, resume: bool = False, progress: Progress = SILENT
) -> Reference:
    """Make a reference from a file written by :func:`export_reference`, every checksum verified.

    Parameters
    ----------
    path
        The file.
    out
        Folder of the new reference.
    resume
        Go on with an interrupted import.
    progress
        Told of every section.

    Raises
    ------
    ChecksumError
        When the file is damaged.
    ManifestError
        When it was written by an unknown release.
    """
    path, out = Path(path), Path(out).absolute()
    if not path.is_file():
        raise InputNotFoundError(explain("exported reference", got=f"no file {path}"))
    with open_work(out, source=sha256_file(path), settings={}, resume=resume) as work:
        if not out.exists() and not work.reference.manifest.is_file():
            try:
                with zipfile.ZipFile(path) as archive:
                    _unpack(work, archive, progress)
            except (ChecksumError, ManifestError, zipfile.BadZipFile) as error:
                shutil.rmtree(work.path)
                if isinstance(error, zipfile.BadZipFile):
                    raise _damaged(path.name) from error
                raise
        work.finish()
    return Reference.open(out)


def _unpack(work: WorkFolder, archive: zipfile.ZipFile, progress: Progress) -> None:
    checksums = _checksums(archive)
    layout = work.reference
    layout.root.mkdir(exist_ok=True)
    scratch = work.path / "member"
    _extract(archive, keys.MANIFEST, scratch, checksums)
    before = read_manifest(scratch)
    for name in checksums:
        if name.startswith((f"{keys.EMBEDDER}/", f"{EMBEDDERS}/")):
            (layout.root / name).parent.mkdir(parents=True, exist_ok=True)
            _extract(archive, name, layout.root / name, checksums)
    _extract(archive, _GENES, scratch, checksums)
    store = _open_store(layout, before, scratch)
    sections = sorted(name for name in checksums if name.startswith("sections/"))
    done = {record.section for record in store.sections()}
    with progress.task("importing sections", len(sections)) as task:
        for name in sections:
            _extract(archive, name, scratch, checksums)
            record, rows = read_section(scratch)
            if record.section not in done:
                store.append_section(record, rows)
            task.advance(note=record.section)
    _complete(layout, store, before, progress)


def _complete(layout: Layout, store: SpotStore, before: Manifest, progress: Progress) -> None:
    recipe = str(before.settings["recipe"])
    made = Made(before.settings, before.embedder, recipe, before.embedders)
    for label in _labels(before):
        check_embedder(layout, before, label=label)
    manifest = commit_version(
        layout,
        store,
        made,
        change="imported",
        uri=keys.LANCE,
        reference_id=before.reference_id,
        calibration=before.calibration,
        progress=progress,
    )
    if manifest.content_digest != before.content_digest:
        raise ChecksumError(
            explain("imported rows", got="another content digest than the exported reference")
        )


def _open_store(layout: Layout, before: Manifest, genes: Path) -> SpotStore:
    uri = layout.store_uri(keys.LANCE)
    if SpotStore.exists(uri):
        store = SpotStore(uri)
        store.discard_uncommitted()
        return store
    dims, dtypes = {}, {}
    for label in _labels(before):
        entry = before.seen_by(label).embedder
        for column in MODALITIES.values():
            name = embedding_column(column, label)
            dims[name], dtypes[name] = int(entry["dim"]), str(entry.get("dtype", "float32"))
    return SpotStore.create(uri, dims=dims, genes=read_gene_table(genes), dtypes=dtypes)


def _labels(manifest: Manifest) -> tuple[str, ...]:
    """Return the labels of all embedders, the reference's own first."""
    return ("", *sorted(manifest.embedders))


def _checksums(archive: zipfile.ZipFile) -> dict[str, str]:
    try:
        data: Any = json.loads(archive.read(_CHECKSUMS))
        names = {str(name): str(digest) for name, digest in data.items()}
    except (KeyError, ValueError, AttributeError) as error:
        raise _damaged(_CHECKSUMS) from error
    stored = {info.filename for info in archive.infolist() if info.compress_type == 0}
    strange = sorted(name for name in names if not _MEMBER.fullmatch(name) or name not in stored)
    if strange or keys.MANIFEST not in names or _GENES not in names:
        raise _damaged(strange[0] if strange else keys.MANIFEST)
    return names


def _extract(
    archive: zipfile.ZipFile, name: str, target: Path, checksums: Mapping[str, str]
) -> None:
    digest = hashlib.sha256()
    with archive.open(name) as stream, target.open("wb") as sink:
        while chunk := stream.read(_COPY_BYTES):
            digest.update(chunk)
            sink.write(chunk)
    if digest.hexdigest() != checksums[name]:
        raise _damaged(name)


def _damaged(name: str) -> ChecksumError:
    return ChecksumError(
        explain(
            "exported reference",
            got=f"{name} that is missing or fails its checksum",
            remedy="export it again, or copy the file again",
        )
    )
