"""A look at slides: what is reported, drawn and written, and what a bad slide costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stretrieve.slides import TissueMask, open_slide, tissue_mask
from stretrieve.slides.look import SlideLook, look_at_slides
from stretrieve.units import MppSource, PixelSize
from tests.slides.pictures import tissue_picture, write_pyramid

TWO_UM = PixelSize.square(2.0, MppSource.GIVEN)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_pyramid(tmp_path / "a.tiff", tissue_picture(), mpp=2.0)


def test_what_is_found_is_what_the_library_finds(slide: Path, tmp_path: Path) -> None:
    (look,) = look_at_slides([slide], tmp_path / "out")
    with open_slide(slide) as opened:
        mask = tissue_mask(opened)
        assert look.regions is not None
        again = TissueMask.from_geojson(look.regions, opened)
    np.testing.assert_array_equal(again.mask, mask.mask)
    assert (look.kind, look.dimensions, look.n_levels) == ("generic-tiff", (640, 480), 3)
    assert (look.mpp, look.mpp_source) == (pytest.approx(2.0), "file")
    assert look.tissue_mm2 == pytest.approx(mask.area_mm2)
    assert 0.1 < look.tissue_fraction < 0.9
    assert json.loads(json.dumps(look.to_dict()))["regions"] == str(look.regions)


def test_the_outline_runs_where_the_tissue_ends(slide: Path, tmp_path: Path) -> None:
    (look,) = look_at_slides([slide], tmp_path)
    assert look.picture is not None
    picture = np.asarray(Image.open(look.picture))
    with open_slide(slide) as opened:
        plain, mask = opened.thumbnail(1600), tissue_mask(opened)
    drawn = (picture != plain).any(axis=2)
    y, x = np.nonzero(drawn)
    near = mask.fraction(np.stack([x, y], axis=1), 40.0)
    assert drawn.any()
    assert ((near > 0) & (near < 1)).mean() > 0.9


def test_bad_slides_are_reported_and_the_others_looked_at(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.svs").write_bytes(b"not a slide")
    Image.new("RGB", (300, 300), (243, 241, 244)).save(tmp_path / "blank.png")
    paths = [tmp_path / "bad.svs", slide, tmp_path / "none.svs", tmp_path / "blank.png"]
    bad, good, missing, blank = look_at_slides(paths, tmp_path / "out", pixel_size=TWO_UM)
    assert "bad.svs" in bad.error
    assert "no such file" in missing.error
    assert good.tissue_mm2 > 0
    assert blank.tissue_mm2 == 0
    assert [look.row()[-1] for look in (bad, good, missing, blank)] == [
        "failed", "ok", "failed", "no tissue",
    ]  # fmt: skip
    assert all(len(look.row()) == len(SlideLook.columns) for look in (bad, good, missing, blank))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "slide_002.geojson", "slide_002.png", "slide_004.geojson", "slide_004.png",
    ]  # fmt: skip
