"""What a decoder offers to the reader process, and the header it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from stretrieve.slides.limits import MAX_READ_PX, MAX_SIDE_PX, MAX_TILE_SIDE_PX

if TYPE_CHECKING:
    from PIL.Image import Image


class ReaderError(Exception):
    """A file cannot be used; the message says why and crosses over to the user's process."""


class WrongFormatError(ReaderError):
    """The file is of another kind; the next decoder may try."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself, in plain numbers and texts.

    Parameters
    ----------
    kind
        Format: an OpenSlide vendor, ``"ome-tiff"``, ``"tiff"``, ``"png"`` or ``"jpeg"``.
    levels
        (width, height) of each level, finest first.
    downsamples
        Level-0 pixels per pixel of each level.
    mpp
        (x, y) microns per level-0 pixel, where the file has it.
    mpp_keys
        Where the decoder looked for ``mpp``, with what it found.
    objective_power
        Magnification of the objective, where the file has it.
    whole_px
        Pixels to decode before the first region can be read; 0 where regions are read on their own.
    """

    kind: str
    levels: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None = None
    mpp_keys: tuple[str, ...] = field(default=())
    objective_power: float | None = None
    whole_px: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the header as plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Header:
        """Rebuild a header from :meth:`to_dict`."""
        return cls(
            kind=str(data["kind"]),
            levels=tuple((int(w), int(h)) for w, h in data["levels"]),
            downsamples=tuple(float(d) for d in data["downsamples"]),
            mpp=None if data["mpp"] is None else (float(data["mpp"][0]), float(data["mpp"][1])),
            mpp_keys=tuple(str(key) for key in data["mpp_keys"]),
            objective_power=data["objective_power"],
            whole_px=int(data["whole_px"]),
        )


class Reader(Protocol):
    """An open file."""

    header: Header

    def read(self, level: int, xy: tuple[int, int], size: tuple[int, int]) -> Image:
        """Return one region as an RGB image; outside of the slide it is white.

        Parameters
        ----------
        level
            Level to read.
        xy
            Top left corner in level-0 px.
        size
            (width, height) in pixels of ``level``.
        """

    def close(self) -> None:
        """Release the file."""


def check_sides(what: str, width: int, height: int, *, limit: int = MAX_SIDE_PX) -> None:
    """Refuse a size that no real image has.

    Raises
    ------
    ReaderError
        When either side is below 1 or above ``limit`` pixels.
    """
    if not (1 <= width <= limit and 1 <= height <= limit):
        raise ReaderError(f"{what} is {width} x {height} px; expected 1 to {limit} px a side")


def check_tile(what: str, width: int, height: int) -> None:
    """Refuse a storage tile that would take more memory than one read may.

    Raises
    ------
    ReaderError
        When a side or the area is out of range.
    """
    check_sides(what, width, height, limit=MAX_TILE_SIDE_PX)
    if width * height > MAX_READ_PX:
        raise ReaderError(
            f"{what} is {width} x {height} px; expected at most {MAX_READ_PX} px in all"
        )
