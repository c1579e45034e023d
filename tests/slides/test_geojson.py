"""Regions from QuPath in, outlines out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely.geometry import Point, shape

from stretrieve.errors import InputError, InputNotFoundError
from stretrieve.slides import TissueMask, open_slide, tissue_mask
from stretrieve.slides.geojson import outlines, rasterise, read_geojson

SQUARE = [[100, 100], [300, 100], [300, 200], [100, 200], [100, 100]]
HOLE = [[150, 120], [250, 120], [250, 180], [150, 180], [150, 120]]


def write(path: Path, data) -> Path:
    path.write_text(json.dumps(data))
    return path


def polygon(*rings) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry, **properties) -> dict:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), sigma=st.floats(0, 4), quantile=st.floats(0.2, 0.95))
def test_outlines_give_the_mask_back(seed: int, sigma: float, quantile: float) -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random((40, 50)), sigma)
    mask = field > np.quantile(field, quantile)
    scale = np.array([3.7, 3.1])
    back = rasterise(outlines(mask, scale), (50, 40), scale, what="test")
    np.testing.assert_array_equal(back, mask)


def test_a_mask_goes_out_and_comes_back(pyramid: Path, tmp_path: Path) -> None:
    with open_slide(pyramid) as slide:
        found = tissue_mask(slide, um_per_px=2.0)
        found.to_geojson(tmp_path / "a.geojson", name="Tissue")
        back = TissueMask.from_geojson(tmp_path / "a.geojson", slide, um_per_px=2.0)
    np.testing.assert_array_equal(back.mask, found.mask)
    assert found.mask.any()


def test_outlines_are_what_qupath_expects(pyramid: Path, tmp_path: Path) -> None:
    with open_slide(pyramid) as slide:
        found = tissue_mask(slide, um_per_px=2.0)
        found.to_geojson(tmp_path / "a.geojson", name="Region")
    data = json.loads((tmp_path / "a.geojson").read_text())
    assert data["type"] == "FeatureCollection"
    total = 0.0
    for item in data["features"]:
        assert item["properties"]["objectType"] == "annotation"
        assert item["properties"]["classification"]["name"] == "Region"
        geometry = shape(item["geometry"])
        assert geometry.is_valid
        total += geometry.area
    np.testing.assert_allclose(total * 0.25 * 1e-6, found.area_mm2, rtol=0.03)
    first = (tmp_path / "a.geojson").read_bytes()
    found.to_geojson(tmp_path / "a.geojson", name="Region")
    assert (tmp_path / "a.geojson").read_bytes() == first


@pytest.mark.parametrize(
    "wrap",
    [
        lambda g: g,
        feature,
        lambda g: [feature(g)],
        lambda g: {"type": "FeatureCollection", "features": [feature(g), feature(None)]},
        lambda g: {"type": "GeometryCollection", "geometries": [g, {"type": "Point"}]},
        lambda g: feature({"type": "MultiPolygon", "coordinates": [g["coordinates"]]}),
    ],
)
def test_all_forms_of_geojson_are_read(pyramid: Path, tmp_path: Path, wrap) -> None:
    path = write(tmp_path / "a.geojson", wrap(polygon(SQUARE, HOLE)))
    with open_slide(pyramid) as slide:
        got = TissueMask.from_geojson(path, slide, um_per_px=2.0)
    truth = shape(polygon(SQUARE, HOLE))
    np.testing.assert_allclose(got.area_mm2, truth.area * 0.25e-6, rtol=0.05)
    xy = np.random.default_rng(0).uniform((90, 90), (310, 210), (200, 2))
    inside = np.array([truth.buffer(-6).contains(Point(p)) for p in xy])
    outside = np.array([not truth.buffer(6).contains(Point(p)) for p in xy])
    fraction = got.fraction(xy, 1.0)
    np.testing.assert_allclose(fraction[inside], 1, atol=1e-9)
    np.testing.assert_allclose(fraction[outside], 0, atol=1e-9)


def test_regions_of_several_polygons_are_united(pyramid: Path, tmp_path: Path) -> None:
    shifted = [[x + 100, y + 50] for x, y in SQUARE]
    items = [feature(polygon(SQUARE)), feature(polygon(shifted))]
    path = write(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": items})
    with open_slide(pyramid) as slide:
        got = TissueMask.from_geojson(path, slide, um_per_px=2.0)
    area = shape(polygon(SQUARE)).union(shape(polygon(shifted))).area
    np.testing.assert_allclose(got.area_mm2, area * 0.25e-6, rtol=0.05)


def nested(depth: int):
    data = polygon(SQUARE)
    for _ in range(depth):
        data = {"type": "GeometryCollection", "geometries": [data]}
    return data


@pytest.mark.parametrize(
    "data",
    [
        "text",
        [],
        {},
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon"},
        {"type": "FeatureCollection", "features": 3},
        {"type": "Feature", "geometry": "x"},
        polygon([[1, 2], [3, 4]]),
        polygon([[1, 2], [3, "x"], [5, 6]]),
        polygon([[1, 2], [3, None], [5, 6]]),
        polygon([1, 2, 3]),
        polygon([[0, 0], [1e300, 0], [0, 5]]),
        nested(60),
    ],
)
def test_malformed_regions_are_one_error(tmp_path: Path, data) -> None:
    path = write(tmp_path / "a.geojson", data)
    with pytest.raises(InputError) as caught:
        read_geojson(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_json_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        read_geojson(tmp_path / "nothing.geojson")
    for content in (b"", b"{", b"\xff\xfe\x00", b"[" * 100_000):
        (tmp_path / "a.geojson").write_bytes(content)
        with pytest.raises(InputError):
            read_geojson(tmp_path / "a.geojson")


def test_regions_beside_the_slide_are_an_error(pyramid: Path, tmp_path: Path) -> None:
    far = [[x + 10_000, y] for x, y in SQUARE]
    path = write(tmp_path / "a.geojson", polygon(far))
    with open_slide(pyramid) as slide, pytest.raises(InputError, match="level-0 px"):
        TissueMask.from_geojson(path, slide)
