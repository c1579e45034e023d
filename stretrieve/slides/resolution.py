"""Settle how large a pixel is: from the file or as given, checked, never guessed."""

from __future__ import annotations

from typing import Final

from stretrieve._logging import get_logger
from stretrieve.errors import MppError, explain
from stretrieve.slides.readers.base import Header
from stretrieve.units import MAX_MPP, Mpp, MppSource, PixelSize

_log = get_logger(__name__)

MAX_COARSE_MPP: Final = 25.0
"""Coarsest plausible resolution of images that are known to be downscaled overviews."""
_COARSE_SOURCES: Final = frozenset({MppSource.GRID, MppSource.SHEET, MppSource.METADATA})
_MPP_AT_1X: Final = 10.0
_REMARKABLE: Final = 1.5
_IMPOSSIBLE: Final = 3.0
_REMEDY: Final = "give the true value with --mpp or the sheet's mpp column"


def settle_pixel_size(what: str, header: Header, given: PixelSize | None) -> PixelSize:
    """Return the pixel size to work with.

    What the user gives wins over the file. Sizes that come from a measured grid, a sheet or platform
    metadata may be as coarse as an overview image; others must look like a scanner's.

    Parameters
    ----------
    what
        The slide, for messages.
    header
        What the file says.
    given
        Pixel size from elsewhere; ``None`` to take the file's.

    Raises
    ------
    MppError
        When nothing gives a resolution, or the one there is cannot be true.
    """
    if given is not None:
        high = MAX_COARSE_MPP if given.source in _COARSE_SOURCES else MAX_MPP
        given.check_plausible(what, high=high)
        _compare(what, given, header)
        return given
    if header.mpp is None:
        raise MppError(
            explain(
                f"mpp of {what}",
                got=f"none in the file (tried {', '.join(header.mpp_keys)})",
                expected="microns per pixel",
                remedy=_REMEDY,
            )
        )
    size = PixelSize(Mpp(header.mpp[0]), Mpp(header.mpp[1]), MppSource.FILE)
    size.check_plausible(what)
    _check_objective(what, size, header.objective_power)
    return size


def _off(a: float, b: float) -> float:
    return max(a / b, b / a)


def _compare(what: str, given: PixelSize, header: Header) -> None:
    if header.mpp is not None:
        stated = (header.mpp[0] * header.mpp[1]) ** 0.5
        if _off(given.mean, stated) > _REMARKABLE:
            _log.warning(
                "mpp of %s: given %.4g (%s), the file says %.4g; the given value is used",
                what, given.mean, given.source, stated,
            )  # fmt: skip
    if (
        header.objective_power
        and _off(given.mean, _MPP_AT_1X / header.objective_power) > _REMARKABLE
    ):
        _warn_objective(what, given, header.objective_power)


def _check_objective(what: str, size: PixelSize, power: float | None) -> None:
    if not power:
        return
    off = _off(size.mean, _MPP_AT_1X / power)
    if off > _IMPOSSIBLE:
        raise MppError(
            explain(
                f"mpp of {what}",
                got=f"{size.mean:.4g} at {power:g}x objective power",
                expected=f"about {_MPP_AT_1X / power:.3g} µm/px",
                remedy=_REMEDY,
            )
        )
    if off > _REMARKABLE:
        _warn_objective(what, size, power)


def _warn_objective(what: str, size: PixelSize, power: float) -> None:
    _log.warning(
        "mpp of %s: %.4g (%s) does not fit an objective power of %gx, where about %.3g is usual",
        what, size.mean, size.source, power, _MPP_AT_1X / power,
    )  # fmt: skip
