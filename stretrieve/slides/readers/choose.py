"""Find the decoder of a file by its content."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stretrieve.slides.readers.base import Reader, ReaderError, WrongFormatError

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
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
        return _openslide(path)
    except WrongFormatError as error:
        if magic.startswith(_TIFF) and path.suffix.lower() not in VENDOR_SUFFIXES:
            return _tiff(path)
        raise ReaderError(
            f"{error}; expected SVS, NDPI, MRXS, SCN, BIF, DICOM, TIFF, OME-TIFF, PNG or JPEG"
        ) from error


def _openslide(path: Path) -> Reader:
    from stretrieve.slides.readers.openslide import OpenSlideReader

    return OpenSlideReader(path)


def _tiff(path: Path) -> Reader:
    from stretrieve.slides.readers.tiff import open_tiff

    return open_tiff(path)


def _raster(path: Path) -> Reader:
    from stretrieve.slides.readers.raster import RasterReader

    return RasterReader(path)
