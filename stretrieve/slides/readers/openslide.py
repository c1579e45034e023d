"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, DICOM, generic tiled TIFF and others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openslide
from openslide.lowlevel import OpenSlideUnsupportedFormatError
from PIL import Image

from stretrieve.slides.readers.base import (
    Header,
    ReaderError,
    WrongFormatError,
    check_sides,
    check_tile,
)

WHITE = (255, 255, 255)
_CACHE_BYTES = 32 << 20


class OpenSlideReader:
    """An open slide; its handle is made anew after every error.

    A handle of OpenSlide stays in its error state for good: one dead tile would fail all later reads.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    WrongFormatError
        When OpenSlide does not know the format, or knows it as an OME-TIFF read as a generic one.
    ReaderError
        When the header is broken or out of bounds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: Any = _open(path)
        try:
            self.header = _header(self._handle)
        except openslide.OpenSlideError as error:
            raise ReaderError(str(error)) from error

    def read(self, level: int, xy: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Return one region as an RGB image, transparent parts white.

        Raises
        ------
        ReaderError
            When the pixels cannot be decoded; the next read starts from a new handle.
        """
        try:
            if self._handle is None:
                self._handle = _open(self._path)
            return _on_white(self._handle.read_region(xy, level, size))
        except openslide.OpenSlideError as error:
            self.close()
            raise ReaderError(str(error)) from error

    def close(self) -> None:
        """Release the handle."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def _open(path: Path) -> Any:
    try:
        handle = openslide.OpenSlide(path)
    except OpenSlideUnsupportedFormatError as error:
        raise WrongFormatError("not a slide format that OpenSlide knows") from error
    except openslide.OpenSlideError as error:
        raise ReaderError(str(error)) from error
    if "<OME" in handle.properties.get("tiff.ImageDescription", ""):
        handle.close()
        raise WrongFormatError("an OME-TIFF")
    handle.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
    return handle


def _header(handle: Any) -> Header:
    properties = handle.properties
    levels = tuple((int(w), int(h)) for w, h in handle.level_dimensions)
    for i, (width, height) in enumerate(levels):
        check_sides(f"level {i}", width, height)
        tile = [properties.get(f"openslide.level[{i}].tile-{side}") for side in ("width", "height")]
        if tile[0] is not None and tile[1] is not None:
            check_tile(f"storage tile of level {i}", int(tile[0]), int(tile[1]))
    mpp, keys = _mpp(properties)
    return Header(
        kind=str(properties.get("openslide.vendor", "openslide")),
        levels=levels,
        downsamples=_downsamples(handle.level_downsamples),
        mpp=mpp,
        mpp_keys=keys,
        objective_power=_number(properties.get("openslide.objective-power")),
    )


def _downsamples(values: tuple[float, ...]) -> tuple[float, ...]:
    downsamples = tuple(float(value) for value in values)
    if not downsamples:
        raise ReaderError("the file has no image level")
    if not all(math.isfinite(value) and value >= 1 for value in downsamples):
        raise ReaderError(f"levels have downsamples {downsamples}; expected 1 or more")
    return downsamples


def _mpp(properties: Mapping[str, str]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    names = ("openslide.mpp-x", "openslide.mpp-y")
    values = [_number(properties.get(name)) for name in names]
    keys = tuple(f"{name} = {properties[name]}" if name in properties else name for name in names)
    if values[0] is None or values[1] is None:
        return None, keys
    return (values[0], values[1]), keys


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _on_white(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(image.convert("RGB"), mask=alpha)
    return canvas
