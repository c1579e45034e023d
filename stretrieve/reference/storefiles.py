"""Checksums of the files of a local store: they are immutable, so each is read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from stretrieve._failpoints import crash_point
from stretrieve._files import sha256_file, write_json
from stretrieve.errors import ManifestError, explain

MUTABLE = frozenset({"latest_version_hint.json"})

Files = dict[str, tuple[int, str]]


def store_files(folder: Path, known: Mapping[str, tuple[int, str]] | None = None) -> Files:
    """Return size and SHA-256 of every file of a store, by path inside it.

    Parameters
    ----------
    folder
        Folder of the LanceDB database.
    known
        What an earlier version knew; those files are not read again.
    """
    known = known or {}
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in MUTABLE:
            continue
        name = path.relative_to(folder).as_posix()
        size = path.stat().st_size
        old = known.get(name)
        found[name] = old if old and old[0] == size else (size, sha256_file(path))
    return found


def write_store_files(path: Path, files: Mapping[str, tuple[int, str]]) -> str:
    """Write the list beside a version's manifest and return its SHA-256."""
    crash_point(f"write {path.name}")
    write_json(path, {name: list(entry) for name, entry in files.items()})
    return sha256_file(path)


def read_store_files(path: Path, sha256: str) -> Files:
    """Read a version's list.

    Raises
    ------
    ManifestError
        When it is missing or is not what the manifest says.
    """
    if not path.is_file() or sha256_file(path) != sha256:
        raise ManifestError(
            explain(
                f"list of store files {path.name}",
                got="no such file" if not path.is_file() else "a file that fails its checksum",
                remedy="restore it from a copy",
            )
        )
    data = json.loads(path.read_text(encoding="utf-8"))
    return {name: (int(size), str(digest)) for name, (size, digest) in data.items()}


def faults_in_files(folder: Path, files: Mapping[str, tuple[int, str]]) -> list[str]:
    """Return a line for every file that is missing or is not what it was."""
    faults = []
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name}: no such file")
        elif path.stat().st_size != size or sha256_file(path) != digest:
            faults.append(f"{name}: fails its checksum")
    return faults
