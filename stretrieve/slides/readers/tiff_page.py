"""One TIFF page as a lattice of storage tiles, each decoded on its own."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, Final

from PIL import Image

from stretrieve.slides.readers.base import ReaderError

_UNCOMPRESSED: Final = 1
_JPEG: Final = 7
_JFIF: Final = b"JFIF"
_JPEG_2000: Final = frozenset({33003, 33004, 33005, 34712})
_STRIP_ROWS: Final = 64
_SHORT: Final = 3
_LONG: Final = 4
_BYTES: Final = 7
_SLACK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class TiledPage:
    """One level of a TIFF.

    Parameters
    ----------
    width, height
        Size of the level in pixels.
    tile_width, tile_height
        Size of a storage tile; strips are tiles as wide as the image.
    offsets, byte_counts
        Where each tile lies in the file, row by row; plane after plane where planes are separate.
    planes
        3 or 4 where each colour has tiles of its own, else 1.
    samples
        Colours in each tile.
    padded
        Whether tiles at the edge are stored at full size.
    compression, photometric, predictor
        As the TIFF tags of these names.
    subsampling
        Chroma subsampling of JPEG tiles.
    jpeg_tables
        Tables that JPEG tiles share.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    planes: int
    samples: int
    padded: bool
    compression: int
    photometric: int
    predictor: int
    subsampling: tuple[int, int]
    jpeg_tables: bytes

    @property
    def columns(self) -> int:
        """Number of tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Number of tiles in a column."""
        return -(-self.height // self.tile_height)

    def tiles_in(self, x: int, y: int, size: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
        """Yield (index, left, top) of each tile that a region at (x, y) of ``size`` touches."""
        first = max(x, 0) // self.tile_width, max(y, 0) // self.tile_height
        right, bottom = min(x + size[0], self.width), min(y + size[1], self.height)
        last = -(-right // self.tile_width), -(-bottom // self.tile_height)
        for row in range(first[1], last[1]):
            for column in range(first[0], last[0]):
                yield (
                    row * self.columns + column,
                    column * self.tile_width,
                    row * self.tile_height,
                )

    def decode(self, stream: IO[bytes], index: int) -> Image.Image | None:
        """Return one tile as an RGB image cut to the level; ``None`` where the file has none.

        Raises
        ------
        OSError, ValueError
            When the bytes are not what the header promises.
        """
        count = self.columns * self.rows
        planes = [self._plane(stream, index + plane * count, index) for plane in range(self.planes)]
        if any(plane is None for plane in planes):
            return None
        colours = [plane for plane in planes if plane is not None]
        image = colours[0] if self.planes == 1 else Image.merge("RGB", colours[:3])
        return image.convert("RGB").crop((0, 0, *self._kept(index)))

    def _plane(self, stream: IO[bytes], place: int, index: int) -> Image.Image | None:
        offset, n_bytes = self.offsets[place], self.byte_counts[place]
        if not offset or not n_bytes:
            return None
        stream.seek(offset)
        data = stream.read(n_bytes)
        if len(data) != n_bytes:
            raise ReaderError("the file is truncated")
        size = (self.tile_width, self.tile_height if self.padded else self._kept(index)[1])
        if self.compression in _JPEG_2000:
            return _open(data, "JPEG2000", size)
        if self.compression == _JPEG and data[6:10] == _JFIF:
            return _open(
                data, "JPEG", size
            )  # complete in itself; libtiff trips over its subsampling
        return _open(self._wrap(data, size), "TIFF", size)

    def _kept(self, index: int) -> tuple[int, int]:
        """Size of the part of a tile that lies inside the level."""
        row, column = divmod(index, self.columns)
        return (
            min(self.tile_width, self.width - column * self.tile_width),
            min(self.tile_height, self.height - row * self.tile_height),
        )

    def _wrap(self, data: bytes, size: tuple[int, int]) -> bytes:
        """Return a TIFF whose only strip is this tile."""
        samples = 1 if self.planes > 1 else self.samples
        photometric = 1 if self.planes > 1 else self.photometric
        tags: list[tuple[int, int, tuple[int, ...] | bytes]] = [
            (256, _LONG, (size[0],)),
            (257, _LONG, (size[1],)),
            (258, _SHORT, (8,) * samples),
            (259, _SHORT, (self.compression,)),
            (262, _SHORT, (photometric,)),
            (273, _LONG, (8,)),
            (277, _SHORT, (samples,)),
            (278, _LONG, (size[1],)),
            (279, _LONG, (len(data),)),
            (284, _SHORT, (1,)),
            (317, _SHORT, (self.predictor,)),
        ]
        if samples == 4:
            tags.append((338, _SHORT, (2,)))
        if self.jpeg_tables:
            tags.append((347, _BYTES, self.jpeg_tables))
        if photometric == 6:
            tags.append((530, _SHORT, self.subsampling))
        return _tiff_bytes(data, tags)


def _tiff_bytes(data: bytes, tags: list[tuple[int, int, tuple[int, ...] | bytes]]) -> bytes:
    """Lay out header, strip, long values and directory of a little-endian TIFF."""
    body = bytearray(data)
    body += b"\0" * (len(body) % 2)
    entries = b""
    for code, kind, values in tags:
        packed = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        )
        if len(packed) > 4:
            place = struct.pack("<I", 8 + len(body))
            body += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", code, kind, len(values)) + place
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + bytes(body) + directory


def _open(data: bytes, kind: str, size: tuple[int, int]) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=(kind,))
    if image.size != size:
        raise ReaderError(f"a tile is {image.size} px; expected {size}")
    image.load()
    return image


def tiled_page(page: Any, file_bytes: int) -> TiledPage:
    """Describe a page of tifffile, with every place checked against the size of the file.

    Parameters
    ----------
    page
        A page of 8-bit pixels with tiles or strips.
    file_bytes
        Size of the file.

    Raises
    ------
    ReaderError
        When tiles are missing or lie outside of the file.
    """
    width, height = int(page.imagewidth), int(page.imagelength)
    separate = int(page.planarconfig or 1) == 2 and page.samplesperpixel > 1
    if page.is_tiled:
        tile_width, tile_height = int(page.tilewidth), int(page.tilelength)
    else:
        tile_width, tile_height = width, min(int(page.rowsperstrip), height)
    described = TiledPage(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        offsets=tuple(int(value) for value in page.dataoffsets),
        byte_counts=tuple(int(value) for value in page.databytecounts),
        planes=int(page.samplesperpixel) if separate else 1,
        samples=int(page.samplesperpixel),
        padded=bool(page.is_tiled),
        compression=int(page.compression),
        photometric=int(page.photometric),
        predictor=int(page.predictor or 1),
        subsampling=_subsampling(page),
        jpeg_tables=bytes(page.jpegtables or b""),
    )
    _check_places(described, file_bytes)
    return _with_short_strips(described)


def _subsampling(page: Any) -> tuple[int, int]:
    tag = page.tags.get(530)
    value = tag.value if tag is not None else (2, 2)
    return int(value[0]), int(value[1])


def _check_places(page: TiledPage, file_bytes: int) -> None:
    expected = page.columns * page.rows * page.planes
    if not len(page.offsets) == len(page.byte_counts) == expected:
        raise ReaderError(
            f"{len(page.offsets)} tiles of {len(page.byte_counts)} sizes; expected {expected}"
        )
    raw = page.tile_width * page.tile_height * page.samples
    limit = min(file_bytes, 2 * raw + _SLACK_BYTES)
    if any(not 0 <= n <= limit for n in page.byte_counts) or any(
        not 0 <= offset <= file_bytes for offset in page.offsets
    ):
        raise ReaderError("a tile lies outside of the file or is larger than its pixels")


def _with_short_strips(page: TiledPage) -> TiledPage:
    """Cut long uncompressed strips into short ones, so that a small region is a small read."""
    if page.padded or page.compression != _UNCOMPRESSED or page.tile_height <= _STRIP_ROWS:
        return page
    row_bytes = page.width * (1 if page.planes > 1 else page.samples)
    per_plane = len(page.offsets) // page.planes
    first = [page.offsets[plane * per_plane] for plane in range(page.planes)]
    if page.rows > 1 and any(
        page.offsets[i] != page.offsets[i - 1] + page.tile_height * row_bytes
        for i in range(1, per_plane)
    ):
        return page
    starts = range(0, page.height, _STRIP_ROWS)
    offsets = tuple(offset + start * row_bytes for offset in first for start in starts)
    counts = tuple(min(_STRIP_ROWS, page.height - start) * row_bytes for start in starts)
    return replace(page, tile_height=_STRIP_ROWS, offsets=offsets, byte_counts=counts * page.planes)
