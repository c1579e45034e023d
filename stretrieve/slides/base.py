"""One interface to every slide, whatever its format."""

from __future__ import annotations

import stat
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from stretrieve._logging import get_logger
from stretrieve.errors import InputNotFoundError, SlideError, explain
from stretrieve.slides.limits import MAX_READ_PX, ReaderLimits
from stretrieve.slides.overview import read_overview
from stretrieve.slides.pool import ReaderPool
from stretrieve.slides.protocol import Job
from stretrieve.slides.resolution import settle_pixel_size
from stretrieve.units import PixelSize

_log = get_logger(__name__)
_BIG_RASTER_PX = 16_000_000
_RASTER_PX_PER_S = 4e7
_BYTES_PER_RASTER_PX = 4


class Slide:
    """An open slide, read through processes of its own; made by :func:`open_slide`.

    Safe to use from several threads. Coordinates are (x, y) in level-0 px, measured from the top left
    corner of the image; pixel *i* covers *i* to *i* + 1.

    Parameters
    ----------
    pool
        The reader processes.
    pixel_size
        Size of a level-0 pixel.
    limits
        Timeouts, retries, and how many patches may fail.
    """

    def __init__(self, pool: ReaderPool, pixel_size: PixelSize, limits: ReaderLimits) -> None:
        self.pool = pool
        self.pixel_size = pixel_size
        self.limits = limits

    @property
    def path(self) -> Path:
        """The file."""
        return self.pool.path

    @property
    def kind(self) -> str:
        """Format: an OpenSlide vendor, ``"ome-tiff"``, ``"tiff"``, ``"png"`` or ``"jpeg"``."""
        return self.pool.header.kind

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0 in pixels."""
        return self.pool.header.levels[0]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level in its pixels, finest first."""
        return self.pool.header.levels

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level."""
        return self.pool.header.downsamples

    @property
    def objective_power(self) -> float | None:
        """Magnification of the objective, where the file states it."""
        return self.pool.header.objective_power

    @property
    def size_um(self) -> tuple[float, float]:
        """(width, height) of the image in microns."""
        width, height = self.dimensions
        return width * self.pixel_size.x, height * self.pixel_size.y

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Return one region as ``(height, width, 3)`` RGB; outside of the slide it is white.

        Parameters
        ----------
        xy
            Top left corner in level-0 px.
        level
            Level to read, 0 = finest.
        size
            (width, height) in pixels of ``level``.

        Raises
        ------
        SlideError
            When the region is too large, the level does not exist or the pixels cannot be read.
        """
        width, height = int(size[0]), int(size[1])
        if not 0 <= level < len(self.level_dimensions):
            raise SlideError(
                explain(f"level of {self.path.name!r}", got=level,
                        expected=f"0 to {len(self.level_dimensions) - 1}")
            )  # fmt: skip
        if width < 1 or height < 1 or width * height > MAX_READ_PX:
            raise SlideError(
                explain("region", got=f"{width} x {height} px", expected=f"1 to {MAX_READ_PX} px")
            )
        job = Job(level, int(xy[0]), int(xy[1]), width, height, 0, 0, width, height, width, height)
        out = np.empty((height, width, 3), dtype=np.uint8)
        failed = self.pool.run([job], [out])
        if failed:
            raise SlideError(
                explain(
                    f"slide {str(self.path)!r}",
                    got=f"a region at {xy} that cannot be read ({failed[0]})",
                )
            )
        return out

    def thumbnail(self, max_px: int = 1024) -> npt.NDArray[np.uint8]:
        """Return the whole slide as ``(height, width, 3)`` RGB, no side longer than ``max_px``.

        Raises
        ------
        SlideError
            When the slide cannot be read.
        """
        width, height = self.dimensions
        shrink = max(width, height) / max(1, max_px)
        if shrink <= 1:
            return self.overview((width, height))
        return self.overview((max(1, round(width / shrink)), max(1, round(height / shrink))))

    def overview(self, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Return the whole slide at ``size`` (width, height) pixels as ``(height, width, 3)`` RGB.

        Read in blocks, so that memory does not grow with the slide. Blocks that cannot be read are
        white, with a warning.

        Raises
        ------
        SlideError
            When much of the slide cannot be read.
        """
        return read_overview(self.pool, size)

    def close(self) -> None:
        """End the reader processes."""
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.dimensions
        return (
            f"<Slide {self.path.name!r}, {self.kind}, {width} x {height} px, "
            f"{self.pixel_size.mean:.4g} µm/px ({self.pixel_size.source})>"
        )


def open_slide(
    path: Path | str, *, pixel_size: PixelSize | None = None, limits: ReaderLimits | None = None
) -> Slide:
    """Open a slide in a reader process of its own.

    Parameters
    ----------
    path
        SVS, NDPI, MRXS, SCN, BIF, DICOM, tiled TIFF, OME-TIFF, plain TIFF, PNG or JPEG.
    pixel_size
        Size of a level-0 pixel; ``None`` to take what the file states. It is never guessed.
    limits
        Timeouts and retries.

    Returns
    -------
    Slide
        A context manager.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    SlideError
        When it is not a slide, is broken, or crashes or hangs its reader.
    MppError
        When nothing gives its resolution, or the one given cannot be true.
    """
    path = Path(path)
    limits = limits or ReaderLimits()
    _check_file(path)
    pool = ReaderPool(path, limits)
    try:
        size = settle_pixel_size(f"slide {str(path)!r}", pool.header, pixel_size)
    except BaseException:
        pool.close()
        raise
    _warn_of_raster(path, pool.header.whole_px)
    return Slide(pool, size, limits)


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputNotFoundError(explain(f"slide {str(path)!r}", got="no such file")) from error
    except (OSError, ValueError) as error:
        raise SlideError(explain(f"slide {str(path)!r}", got=str(error))) from error
    if not stat.S_ISREG(mode):
        raise SlideError(explain(f"slide {str(path)!r}", got="not a file", expected="a file"))


def _warn_of_raster(path: Path, whole_px: int) -> None:
    if whole_px > _BIG_RASTER_PX:
        _log.warning(
            "slide %r has no tiles: decoding %.0f Mpx as a whole takes about %.0f s and %.1f GB; "
            "a pyramidal TIFF opens at once",
            str(path), whole_px / 1e6, max(1.0, whole_px / _RASTER_PX_PER_S),
            whole_px * _BYTES_PER_RASTER_PX / 1e9,
        )  # fmt: skip
