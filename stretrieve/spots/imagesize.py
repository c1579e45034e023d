"""Width and height of an image from its header alone: no pixel is decoded, no library trusted."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

_TIFF: Final = {".tif", ".tiff", ".svs", ".ndpi", ".btf"}
_SOF: Final = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_WIDTH: Final = 256
_HEIGHT: Final = 257
_TYPES: Final = {3: "H", 4: "I", 16: "Q"}
_MAX_TAGS: Final = 4096


def image_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) of a PNG, JPEG or of the first page of a TIFF.

    Returns
    -------
    tuple of int or None
        ``None`` when the format is another one or the header makes no sense; whoever opens the image
        then has to say so.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
            stream.seek(0)
            size: tuple[int, int] | None = None
            if magic == b"\x89PNG\r\n\x1a\n":
                size = _png(stream)
            elif magic[:2] == b"\xff\xd8":
                size = _jpeg(stream)
            elif magic[:2] in (b"II", b"MM") and path.suffix.lower() in _TIFF:
                size = _tiff(stream)
    except (OSError, struct.error, OverflowError, ValueError):
        return None
    return size if size and min(size) > 0 else None


def _png(stream: BinaryIO) -> tuple[int, int]:
    stream.seek(16)
    width, height = struct.unpack(">II", stream.read(8))
    return width, height


def _jpeg(stream: BinaryIO) -> tuple[int, int] | None:
    stream.seek(2)
    while True:
        marker = stream.read(2)
        if len(marker) < 2 or marker[0] != 0xFF:
            return None
        if marker[1] == 0xFF:
            stream.seek(-1, 1)
            continue
        (length,) = struct.unpack(">H", stream.read(2))
        if marker[1] in _SOF:
            height, width = struct.unpack(">xHH", stream.read(5))
            return width, height
        if length < 2:
            return None
        stream.seek(length - 2, 1)


def _tiff(stream: BinaryIO) -> tuple[int, int] | None:
    order = "<" if stream.read(2) == b"II" else ">"
    (version,) = struct.unpack(order + "H", stream.read(2))
    big = version == 43
    stream.seek(8 if big else 4)
    (offset,) = struct.unpack(order + ("Q" if big else "I"), stream.read(8 if big else 4))
    stream.seek(offset)
    (n_tags,) = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))
    entry = "HHQ8s" if big else "HHI4s"
    found: dict[int, int] = {}
    for _ in range(min(n_tags, _MAX_TAGS)):
        tag, kind, _count, raw = struct.unpack(order + entry, stream.read(20 if big else 12))
        if tag in (_WIDTH, _HEIGHT) and kind in _TYPES:
            code = _TYPES[kind]
            found[tag] = struct.unpack(order + code, raw[: struct.calcsize(order + code)])[0]
    if len(found) < 2:
        return None
    return found[_WIDTH], found[_HEIGHT]
