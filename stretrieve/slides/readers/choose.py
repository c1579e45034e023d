"""Find the decoder of a file by its content."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stretrieve.slides.limits import BIG_IMAGE_PX, MAX_PX_PER_BYTE
from stretrieve.slides.readers.base import Reader, ReaderError, WrongFormatError

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_MANY_FILES: Final = frozenset({".mrxs", ".vms", ".vmu", ".dcm"})
VENDOR_SUFFIXES: Final = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm", ".vms", ".vmu", ".svslide", ".czi"}
)
"""Suffixes that only OpenSlide may open: a damaged vendor file is not read as something else."""


def open_reader(path: Path) -> Reader:
    """Open a file with the decoder that its content calls for.

    Parameters
    ----------
    path
        A regular file.

    Raises
    ------
    ReaderError
        When no decoder can use the file; the message says why.
    """
    with path.open("rb") as stream:
        magic = stream.read(16)
    if not magic:
        raise ReaderError("the file is empty")
    if path.suffix.lower() not in VENDOR_SUFFIXES and magic.startswith((_PNG, _JPEG)):
        return _raster(path)
    try:
        return _checked(_openslide(path), path)
    except WrongFormatError as error:
        if magic.startswith(_TIFF) and path.suffix.lower() not in VENDOR_SUFFIXES:
            return _checked(_tiff(path), path)
        raise ReaderError(
            f"{error}; expected SVS, NDPI, MRXS, SCN, BIF, DICOM, TIFF, OME-TIFF, PNG or JPEG"
        ) from error


def _checked(reader: Reader, path: Path) -> Reader:
    """Refuse a file that declares far more pixels than its bytes can hold."""
    width, height = reader.header.levels[0]
    n_bytes = path.stat().st_size
    big = width * height > max(BIG_IMAGE_PX, MAX_PX_PER_BYTE * n_bytes)
    if big and path.suffix.lower() not in _MANY_FILES:
        reader.close()
        raise ReaderError(
            f"{width} x {height} px in {n_bytes} bytes; "
            f"expected at most {MAX_PX_PER_BYTE} px a byte"
        )
    return reader


def _openslide(path: Path) -> Reader:
    from stretrieve.slides.readers.openslide import OpenSlideReader

    return OpenSlideReader(path)


def _tiff(path: Path) -> Reader:
    from stretrieve.slides.readers.tiff import open_tiff

    return open_tiff(path)


def _raster(path: Path) -> Reader:
    from stretrieve.slides.readers.raster import RasterReader

    return RasterReader(path)
