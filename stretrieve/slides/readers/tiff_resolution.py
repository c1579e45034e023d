"""Where TIFF files say how large a pixel is."""

from __future__ import annotations

import math
import re
from typing import Any, Final

_MICRONS_PER: Final = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "Å": 1e-4,
    "in": 25_400.0,
}
_MICRONS_PER_UNIT: Final = {2: 25_400.0, 3: 10_000.0}
_SCANNER_MPP: Final = (0.1, 5.0)
_PIXELS: Final = re.compile(r"<(?:\w+:)?Pixels\s([^>]{0,4000})>")
_ATTRIBUTE: Final = re.compile(r'(\w+)\s*=\s*"([^"]{0,200})"')

Mpp = tuple[float, float]


def ome_pixels(description: str) -> dict[str, str]:
    """Return the attributes of the first ``Pixels`` element of an OME-XML text."""
    found = _PIXELS.search(description)
    return dict(_ATTRIBUTE.findall(found.group(1))) if found else {}


def page_mpp(page: Any, description: str) -> tuple[Mpp | None, tuple[str, ...]]:
    """Return the microns per pixel that a TIFF page states, and where they were looked for.

    The resolution tags count only where they say something that a scanner would: the 72 or 300 dots
    per inch that most software writes are no measure of the tissue.

    Parameters
    ----------
    page
        A page of tifffile.
    description
        Its ``ImageDescription``.
    """
    if "<OME" in description:
        values, keys = _from_ome(ome_pixels(description))
        if values is not None:
            return values, keys
    else:
        keys = ()
    tagged, tag_keys = _from_tags(page)
    return tagged, keys + tag_keys


def _from_ome(pixels: dict[str, str]) -> tuple[Mpp | None, tuple[str, ...]]:
    values, keys = [], []
    for axis in "XY":
        text = pixels.get(f"PhysicalSize{axis}")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        values.append(_positive(text) * _MICRONS_PER.get(unit, math.nan))
        keys.append(f"PhysicalSize{axis}" + (f" = {text} {unit}" if text else ""))
    if not all(math.isfinite(value) for value in values):
        return None, tuple(keys)
    return (values[0], values[1]), tuple(keys)


def _from_tags(page: Any) -> tuple[Mpp | None, tuple[str, ...]]:
    unit = _MICRONS_PER_UNIT.get(_tag(page, 296, 2))
    values, keys = [], []
    for code, name in ((282, "tiff.XResolution"), (283, "tiff.YResolution")):
        ratio = _tag(page, code, None)
        per_unit = _ratio(ratio)
        values.append(unit / per_unit if unit and per_unit else math.nan)
        keys.append(name + (f" = {per_unit:g}" if per_unit else ""))
    low, high = _SCANNER_MPP
    if not all(low <= value <= high for value in values):
        return None, tuple(keys)
    return (values[0], values[1]), tuple(keys)


def _tag(page: Any, code: int, default: Any) -> Any:
    tag = page.tags.get(code)
    return default if tag is None else tag.value


def _ratio(value: Any) -> float | None:
    if not isinstance(value, tuple) or len(value) != 2 or not value[1] or not value[0]:
        return None
    return float(value[0]) / float(value[1])


def _positive(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and value > 0 else math.nan
