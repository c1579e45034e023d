"""Files that are either complete under their final name or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def temporary_sibling(final: Path) -> Path:
    """Return an unused name next to ``final`` on the same file system."""
    return final.with_name(f".{final.name}.tmp-{uuid.uuid4().hex[:12]}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``final`` when the block ends without an error.

    Parameters
    ----------
    final
        Where the file or folder shall be. Its parent is made when missing.

    Yields
    ------
    Path
        A sibling of ``final`` to write to; removed when the block raises.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(final)
    try:
        yield temporary
        if temporary.is_file():
            _sync(temporary)
        temporary.replace(final)
        _sync(final.parent)
    except BaseException:
        _discard(temporary)
        raise


def write_json(final: Path, data: Any) -> None:
    """Write ``data`` as sorted, indented JSON under ``final`` in one step."""
    with atomic_path(final) as path:
        path.write_text(indented_json(data), encoding="utf-8")


def indented_json(data: Any) -> str:
    """Return the one text that :func:`write_json` writes."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def canonical_json(data: Any) -> str:
    """Return the one JSON text of ``data`` that digests are taken of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
