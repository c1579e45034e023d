"""Zarr folders that nobody vouches for: their metadata is read before the library sees them.

Version 2 of the format can name a pickle codec, which runs code on load. Here only codecs of numbers
and UTF-8 text pass; links out of the folder and arrays far larger than their chunks are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stretrieve.errors import InputNotFoundError, SectionError, StretrieveError, explain
from stretrieve.spots.hdf5 import HOSTILE_ERRORS, MAX_TOTAL_BYTES, damaged

_CODECS: Final = {
    "blosc",
    "bytes",
    "crc32c",
    "fixedscaleoffset",
    "gzip",
    "lz4",
    "sharding_indexed",
    "shuffle",
    "transpose",
    "vlen-utf8",
    "zlib",
    "zstd",
}
_MAX_FILES: Final = 2_000_000
_MAX_META: Final = 16 << 20
_MAX_RATIO: Final = 5000
_RATIO_FROM: Final = 256 << 20


@contextlib.contextmanager
def open_checked_zarr(path: Path) -> Iterator[Any]:
    """Open a zarr folder read-only after a look at all its metadata.

    Yields
    ------
    zarr.Group
        The root group. Whatever the block raises on damaged content becomes a ``SectionError``.

    Raises
    ------
    InputNotFoundError
        When there is no such folder.
    SectionError
        When it is no zarr group, is damaged, reaches outside itself or declares too much.
    """
    import zarr

    if not path.is_dir():
        raise InputNotFoundError(explain("zarr folder", got=f"no folder {path}"))
    try:
        check_zarr(path)
        yield zarr.open_group(path, mode="r", use_consolidated=False)
    except StretrieveError:
        raise
    except HOSTILE_ERRORS as error:
        raise damaged(path, error) from error


def check_zarr(path: Path) -> None:
    """Refuse a zarr folder with links, foreign codecs or size bombs.

    Raises
    ------
    SectionError
        With the first thing found.
    """
    total = n_files = 0
    for folder, folders, files in os.walk(path, followlinks=False):
        n_files += len(files) + len(folders)
        if n_files > _MAX_FILES:
            raise _refuse(path, folder, f"over {_MAX_FILES} files")
        for name in (*folders, *files):
            if (Path(folder) / name).is_symlink():
                raise _refuse(path, f"{folder}/{name}", "a link")
        for name in files:
            if name in {".zarray", "zarr.json"}:
                total += _check_metadata(path, Path(folder) / name)
    if total > MAX_TOTAL_BYTES:
        raise _refuse(path, str(path), f"{total / 2**30:.0f} GiB declared")


def _check_metadata(root: Path, file: Path) -> int:
    if file.stat().st_size > _MAX_META:
        raise _refuse(root, str(file), "metadata of over 16 MB")
    meta = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(meta, dict):
        raise _refuse(root, str(file), "metadata that are no object")
    codecs = set(_codec_names(meta))
    if codecs - _CODECS:
        raise _refuse(root, str(file), f"codec {sorted(codecs - _CODECS)[0][:40]!r}")
    if "shape" not in meta:
        return 0
    size = _item_bytes(meta)
    for length in meta["shape"]:
        size *= max(int(length), 0)
    if size > _RATIO_FROM:
        stored = sum(f.stat().st_size for f in file.parent.rglob("*") if f.is_file())
        if size > _MAX_RATIO * max(stored, 1):
            raise _refuse(
                root, str(file), f"{size / 2**30:.1f} GiB declared, {stored} bytes stored"
            )
    return size


def _codec_names(meta: dict[str, Any]) -> Iterator[str]:
    for codec in (meta.get("compressor"), *(meta.get("filters") or ())):
        if codec is not None:
            yield str(codec.get("id"))
    for codec in meta.get("codecs") or ():
        yield str(codec.get("name"))
        inner = (codec.get("configuration") or {}).get("codecs") or ()
        yield from (str(part.get("name")) for part in inner)


def _item_bytes(meta: dict[str, Any]) -> int:
    kind = meta.get("dtype", meta.get("data_type", ""))
    digits = "".join(c for c in str(kind) if c.isdigit())
    size = int(digits[:6] or 8)
    return max(size // 8 if "data_type" in meta else size, 1)


def _refuse(root: Path, where: str, what: str) -> SectionError:
    inside = where.removeprefix(str(root)).strip("/")[:80] or "."
    return SectionError(explain(f"{root.name}, {inside!r}", got=what, expected="plain arrays"))
