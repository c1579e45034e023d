"""TIFF files that OpenSlide does not read: OME-TIFF with its pyramid, and tiled or striped plain TIFF.

The file's structure comes from tifffile; each storage tile is decoded by Pillow, wrapped into a TIFF
of its own, so that every compression that libtiff knows works without further libraries.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import tifffile
from PIL import Image

from stretrieve.slides.readers.base import Header, Reader, ReaderError, check_sides, check_tile
from stretrieve.slides.readers.raster import WHITE, RasterReader
from stretrieve.slides.readers.tiff_page import TiledPage, tiled_page
from stretrieve.slides.readers.tiff_resolution import ome_pixels, page_mpp

_FAULTS = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    struct.error,
)
_CACHE_BYTES = 64 << 20
_MAX_CHUNK_PX = 16_000_000
_MAX_ASPECT_DRIFT = 0.02
_MAX_LEVELS = 32


def open_tiff(path: Path) -> Reader:
    """Open a TIFF by tiles where it has small enough ones, else as one raster image.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ReaderError
        When the file is broken, out of bounds or not 8-bit RGB.
    """
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            header, pages = _structure(tiff, path.stat().st_size)
    except ReaderError:
        raise
    except _FAULTS as error:
        raise ReaderError(f"TIFF structure cannot be read ({error})") from error
    if pages is None:
        return RasterReader(path, formats=("TIFF",), header=header)
    return TiffReader(path, header, pages)


class TiffReader:
    """A TIFF that is read tile by tile.

    Parameters
    ----------
    path
        The file.
    header
        What the file says about itself.
    pages
        The page of each level.
    """

    def __init__(self, path: Path, header: Header, pages: tuple[TiledPage, ...]) -> None:
        self.header = header
        self._pages = pages
        self._stream = path.open("rb")
        self._cache: OrderedDict[tuple[int, int], Image.Image] = OrderedDict()
        self._cached_bytes = 0

    def read(self, level: int, xy: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Return one region as an RGB image; outside of the slide it is white.

        Raises
        ------
        ReaderError
            When a tile cannot be decoded.
        """
        page = self._pages[level]
        downsample = self.header.downsamples[level]
        x, y = round(xy[0] / downsample), round(xy[1] / downsample)
        canvas = Image.new("RGB", size, WHITE)
        for index, left, top in page.tiles_in(x, y, size):
            tile = self._tile(level, index)
            if tile is not None:
                canvas.paste(tile, (left - x, top - y))
        return canvas

    def _tile(self, level: int, index: int) -> Image.Image | None:
        key = (level, index)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        try:
            tile = self._pages[level].decode(self._stream, index)
        except (*_FAULTS, SyntaxError) as error:
            raise ReaderError(
                f"tile {index} of level {level} cannot be decoded ({error})"
            ) from error
        if tile is not None:
            self._remember(key, tile)
        return tile

    def _remember(self, key: tuple[int, int], tile: Image.Image) -> None:
        self._cache[key] = tile
        self._cached_bytes += 4 * tile.width * tile.height
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._cached_bytes -= 4 * old.width * old.height

    def close(self) -> None:
        """Release the file and the tiles."""
        self._stream.close()
        self._cache.clear()
        self._cached_bytes = 0


def _structure(
    tiff: tifffile.TiffFile, file_bytes: int
) -> tuple[Header, tuple[TiledPage, ...] | None]:
    first = tiff.pages[0]
    levels = _levels(first)
    for i, page in enumerate(levels):
        check_sides(f"level {i}", page.imagewidth, page.imagelength)
        check_tile(f"storage tile of level {i}", *_chunk(page))
    _check_colour(first)
    description = str(first.description or "")
    is_ome = "<OME" in description
    if is_ome:
        _check_planes(ome_pixels(description))
    mpp, keys = page_mpp(first, description)
    pages = None if _needs_whole(first) else tuple(tiled_page(p, file_bytes) for p in levels)
    if pages is None:
        levels = [first]
    return (
        Header(
            kind="ome-tiff" if is_ome else "tiff",
            levels=tuple((int(p.imagewidth), int(p.imagelength)) for p in levels),
            downsamples=tuple(_downsample(first, p) for p in levels),
            mpp=mpp,
            mpp_keys=keys,
            whole_px=int(first.imagewidth * first.imagelength) if pages is None else 0,
        ),
        pages,
    )


def _levels(first: Any) -> list[Any]:
    levels = [first]
    for page in list(first.pages or ())[:_MAX_LEVELS]:
        drift = (page.imagewidth / page.imagelength) / (first.imagewidth / first.imagelength)
        same = (page.samplesperpixel, page.bitspersample) == (
            first.samplesperpixel,
            first.bitspersample,
        )
        smaller = page.imagewidth < levels[-1].imagewidth
        if same and smaller and abs(drift - 1) <= _MAX_ASPECT_DRIFT:
            levels.append(page)
    return levels


def _downsample(first: Any, page: Any) -> float:
    return float((first.imagewidth / page.imagewidth + first.imagelength / page.imagelength) / 2)


def _chunk(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength)
    return 1, 1


def _check_colour(page: Any) -> None:
    if page.bitspersample != 8 or page.dtype != "uint8":
        raise ReaderError(
            f"pixels are {page.dtype} of {page.bitspersample} bits; expected 8-bit RGB"
        )
    if page.samplesperpixel not in (1, 3, 4):
        raise ReaderError(f"image has {page.samplesperpixel} channels; expected 8-bit RGB")


def _check_planes(pixels: dict[str, str]) -> None:
    planes = {name: pixels.get(name, "1") for name in ("SizeZ", "SizeT")}
    channels = pixels.get("SizeC", "1")
    if channels not in ("1", "3", "4") or any(value != "1" for value in planes.values()):
        raise ReaderError(
            f"OME-TIFF has {channels} channels, SizeZ {planes['SizeZ']}, SizeT {planes['SizeT']}; "
            "expected one plane of 8-bit RGB"
        )


def _needs_whole(page: Any) -> bool:
    """Whether a page has no chunks small enough to be read on their own."""
    if int(page.photometric) not in (1, 2, 6):
        return True
    if page.is_tiled or int(page.compression) == 1:
        return False
    return bool(page.imagewidth * min(page.rowsperstrip, page.imagelength) > _MAX_CHUNK_PX)
