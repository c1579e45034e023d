"""Regions of interest in and tissue outlines out, as the GeoJSON that QuPath reads and writes."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path
from stretrieve.errors import InputError, InputNotFoundError, explain

Ring = npt.NDArray[np.float64]
Polygon = tuple[Ring, ...]
"""Outer ring first, then its holes; each ``(n, 2)`` (x, y) in level-0 px."""

_MAX_BYTES: Final = 256 << 20
_MAX_DEPTH: Final = 4
_MEMBERS: Final = {
    "Feature": "geometry",
    "FeatureCollection": "features",
    "GeometryCollection": "geometries",
}
_NAMESPACE: Final = uuid.UUID("6f0b2ba5-53b5-4c5c-9d0e-6a3d7f6f0c11")
_COLOUR: Final = [46, 160, 67]


def read_geojson(path: Path) -> tuple[Polygon, ...]:
    """Return all polygons of a GeoJSON file; points and lines are passed over.

    Parameters
    ----------
    path
        A FeatureCollection, a Feature, a geometry, or a list of features.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    InputError
        When it is not GeoJSON, is too large, or has no polygon.
    """
    data = _load(Path(path))
    try:
        polygons = tuple(_polygons(data, depth=0))
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            explain(f"regions {str(path)!r}", got=f"a malformed polygon ({error})")
        ) from error
    if not polygons:
        raise InputError(
            explain(f"regions {str(path)!r}", got="no polygon", expected="one or more")
        )
    return polygons


def _load(path: Path) -> Any:
    what = f"regions {str(path)!r}"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(
                explain(what, got="a file too large", expected=f"at most {_MAX_BYTES} bytes")
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputNotFoundError(explain(what, got="no such file")) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(explain(what, got=str(error), expected="GeoJSON")) from error


def _polygons(data: Any, *, depth: int) -> Iterator[Polygon]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(data, list):
        for item in data:
            yield from _polygons(item, depth=depth + 1)
        return
    if not isinstance(data, dict):
        raise TypeError(f"expected an object, got {type(data).__name__}")
    kind = data.get("type")
    if kind == "Polygon":
        yield _polygon(data["coordinates"])
    elif kind == "MultiPolygon":
        yield from map(_polygon, data["coordinates"])
    elif kind in _MEMBERS:
        yield from _polygons(data[_MEMBERS[kind]] or [], depth=depth + 1)


def _polygon(rings: Sequence[Any]) -> Polygon:
    polygon = tuple(np.asarray(ring, dtype=np.float64)[:, :2] for ring in rings)
    if not polygon or any(len(ring) < 3 or ring.shape[1] != 2 for ring in polygon):
        raise ValueError("a ring of less than three points")
    if not all((np.abs(ring) < 1e9).all() for ring in polygon):
        raise ValueError("a coordinate that is not a pixel")
    return polygon


def rasterise(
    polygons: Sequence[Polygon], size: tuple[int, int], scale: npt.NDArray[np.float64], *, what: str
) -> npt.NDArray[np.bool_]:
    """Return the mask of polygons: a pixel is in when its centre is.

    Parameters
    ----------
    polygons
        In level-0 px.
    size
        (width, height) of the mask.
    scale
        ``(2,)`` level-0 px per pixel of the mask.
    what
        Where the polygons come from, for messages.

    Raises
    ------
    InputError
        When no pixel of the slide is inside a polygon.
    """
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    for outer, *holes in polygons:
        inside = _fill(outer, scale, mask.shape)
        for hole in holes:
            inside &= ~_fill(hole, scale, mask.shape)
        mask |= inside
    if not mask.any():
        raise InputError(
            explain(f"regions {what!r}", got="none that touches the slide",
                    expected="coordinates in level-0 px")
        )  # fmt: skip
    return mask


def _fill(
    ring: Ring, scale: npt.NDArray[np.float64], shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    draw: Any = importlib.import_module("skimage.draw")

    placed = ring / scale - 0.5
    mask = np.zeros(shape, dtype=bool)
    rows, columns = draw.polygon(placed[:, 1], placed[:, 0], shape)
    mask[rows, columns] = True
    return mask


def outlines(mask: npt.NDArray[np.bool_], scale: npt.NDArray[np.float64]) -> tuple[Polygon, ...]:
    """Return the outlines of a mask with their holes.

    They run half-way between pixels in and out, so that :func:`rasterise` gives the mask back.

    Parameters
    ----------
    mask
        ``(height, width)``.
    scale
        ``(2,)`` level-0 px per pixel of the mask.

    Returns
    -------
    tuple
        One polygon a connected piece, in level-0 px.
    """
    from scipy import ndimage

    measure: Any = importlib.import_module("skimage.measure")

    labels, _ = ndimage.label(mask)
    polygons: list[Polygon] = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        piece = np.pad(labels[rows, columns] == label, 1).astype(np.float64)
        origin = np.array([columns.start, rows.start]) - 0.5
        rings = [
            (contour[:, ::-1] + origin) * scale
            for contour in measure.find_contours(piece, 0.5, fully_connected="low")
        ]
        polygons.append(tuple(sorted(rings, key=_area, reverse=True)))
    return tuple(polygons)


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def write_geojson(path: Path, polygons: Sequence[Polygon], *, name: str) -> None:
    """Write polygons as QuPath annotations of one class.

    Parameters
    ----------
    path
        File to write.
    polygons
        In level-0 px.
    name
        Class of the annotations.
    """
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{name}/{i}")),
            "geometry": {
                "type": "Polygon",
                "coordinates": [np.round(ring, 3).tolist() for ring in polygon],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": _COLOUR},
            },
        }
        for i, polygon in enumerate(polygons)
    ]
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
