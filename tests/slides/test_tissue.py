"""Tissue is found; glow, pen, fiducials, dust, black and blank glass are not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from stretrieve.errors import ConfigError, ShapeError, TissueError
from stretrieve.slides import TissueMask, open_slide, tissue_mask, tissue_rule
from stretrieve.slides.tissue_rule import find_tissue
from stretrieve.units import Mpp, MppSource, PixelSize
from tests.slides.pictures import tissue_picture, write_pyramid

EIGHT = PixelSize.square(8.0, MppSource.GRID)
GLASS = (243, 241, 244)


def scene(width: int = 320, height: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """An overview at 8 µm/px and where its tissue is."""
    picture = tissue_picture(width, height).copy()
    y, x = np.mgrid[:height, :width]
    return picture, np.hypot((x / width - 0.45) / 0.33, (y / height - 0.5) / 0.36) < 1


def glass(width: int = 320, height: int = 240) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1.5, (height, width, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)


def drawn(picture: np.ndarray, draw) -> np.ndarray:
    image = Image.fromarray(picture)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


def test_plain_tissue_is_found() -> None:
    picture, truth = scene()
    assert overlap(find_tissue(picture, um_per_px=8.0), truth) > 0.9


@pytest.mark.parametrize("colour", [(20, 60, 200), (20, 140, 60), (215, 25, 30), (25, 25, 30)])
def test_pen_is_no_tissue(colour) -> None:
    picture, truth = scene()
    marked = drawn(picture, lambda d: d.line([(265, 10), (300, 230)], fill=colour, width=9))
    mask = find_tissue(marked, um_per_px=8.0)
    assert overlap(mask, truth) > 0.9
    assert not mask[:, 275:].any()
    only_pen = drawn(glass(), lambda d: d.ellipse([40, 40, 200, 180], outline=colour, width=9))
    assert not find_tissue(only_pen, um_per_px=8.0).any()


def test_black_borders_and_blacked_out_backgrounds_are_no_tissue() -> None:
    picture, truth = scene()
    framed = np.zeros((300, 380, 3), np.uint8)
    framed[30:270, 30:350] = picture
    mask = find_tissue(framed, um_per_px=8.0)
    assert overlap(mask[30:270, 30:350], truth) > 0.9
    assert mask.sum() == mask[30:270, 30:350].sum()
    masked_out = np.where(truth[..., None], picture, 0).astype(np.uint8)
    assert overlap(find_tissue(masked_out, um_per_px=8.0), truth) > 0.9


def test_an_inset_in_a_blacked_out_corner_is_no_tissue() -> None:
    picture, truth = scene(480, 360)
    masked_out = np.where(truth[..., None], picture, 0).astype(np.uint8)
    masked_out[:60, 400:] = scene(80, 60)[0]
    mask = find_tissue(masked_out, um_per_px=8.0)
    assert not mask[:60, 400:].any()
    assert overlap(mask, truth) > 0.9


def test_glow_and_shade_are_no_tissue() -> None:
    picture, truth = scene()
    y, x = np.mgrid[:240, :320]
    glow = np.exp(-(((x - 260) / 60) ** 2) - ((y - 120) / 60) ** 2)
    tinted = picture * (1 - glow[..., None] * np.array([0.02, 0.18, 0.1]))
    vignette = 1 - 0.25 * np.hypot(x / 320 - 0.5, y / 240 - 0.5)
    mask = find_tissue((tinted * vignette[..., None]).astype(np.uint8), um_per_px=8.0)
    assert overlap(mask, truth) > 0.88


def test_grey_fiducials_and_dust_are_no_tissue() -> None:
    def draw(canvas) -> None:
        for x in range(4, 320, 12):
            for y in (4, 16, 228):
                canvas.ellipse([x, y, x + 7, y + 7], outline=(150, 148, 150), width=2)
        for x, y in np.random.default_rng(0).integers(0, 230, (30, 2)).tolist():
            canvas.point((x + 80, y), fill=(60, 60, 60))

    assert not find_tissue(drawn(glass(), draw), um_per_px=8.0).any()


@pytest.mark.parametrize("value", [(255, 255, 255), (0, 0, 0), (128, 128, 128), (240, 200, 220)])
def test_plain_pictures_have_no_tissue(value) -> None:
    assert not find_tissue(np.full((50, 60, 3), value, np.uint8), um_per_px=8.0).any()


def test_noisy_glass_has_no_tissue() -> None:
    assert not find_tissue(glass(), um_per_px=8.0).any()
    rough = glass().astype(float) + np.random.default_rng(0).normal(0, 4, (240, 320, 1))
    assert not find_tissue(np.clip(rough, 0, 255).astype(np.uint8), um_per_px=8.0).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 5)])
def test_tiny_pictures_are_fine(shape) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert find_tissue(picture, um_per_px=8.0).shape == shape


def test_holes_and_lumens_stay_open_but_cracks_close() -> None:
    picture, _ = scene()
    picture[100:150, 120:170] = GLASS
    picture[60:180, 100:102] = GLASS
    mask = find_tissue(picture, um_per_px=8.0)
    assert not mask[112:138, 132:158].any()
    assert mask[70:100, 100:102].all()


def test_dark_nuclei_make_no_holes() -> None:
    picture, truth = scene()
    for x, y in np.random.default_rng(3).integers((90, 80), (190, 160), (40, 2)).tolist():
        picture[y : y + 2, x : x + 2] = (14, 6, 32)
    mask = find_tissue(picture, um_per_px=8.0)
    assert mask[80:160, 90:190].all()
    assert overlap(mask, truth) > 0.9


def test_bands_leave_no_seams(monkeypatch) -> None:
    picture, _ = scene(320, 400)
    whole = find_tissue(picture, um_per_px=8.0)
    monkeypatch.setattr(tissue_rule, "_BAND_ROWS", 37)
    assert (find_tissue(picture, um_per_px=8.0) != whole).mean() < 1e-3


def test_blank_slides_are_empty_or_an_error_as_the_caller_wants(tmp_path: Path) -> None:
    Image.fromarray(glass()).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", pixel_size=EIGHT) as slide:
        assert not tissue_mask(slide).mask.any()
        with pytest.raises(TissueError, match="no tissue"):
            tissue_mask(slide, require_tissue=True)


def test_the_mask_depends_neither_on_the_resolution_nor_on_the_levels(tmp_path: Path) -> None:
    big = np.asarray(
        Image.fromarray(tissue_picture()).resize((1280, 960), Image.Resampling.BICUBIC)
    )
    masks = []
    half = np.asarray(Image.fromarray(big).reduce(2))
    for name, picture, mpp, levels in (("a", big, 1, 1), ("b", big, 1, 4), ("c", half, 2, 2)):
        with open_slide(
            write_pyramid(tmp_path / f"{name}.tiff", picture, mpp=mpp, levels=levels)
        ) as slide:
            masks.append(tissue_mask(slide).mask)
            assert (tissue_mask(slide).mask == masks[-1]).all()
    assert masks[0].shape == masks[1].shape == masks[2].shape == (120, 160)
    assert overlap(masks[0], masks[1]) > 0.97
    assert overlap(masks[0], masks[2]) > 0.97


@pytest.mark.parametrize("um_per_px", [0.1, 0.0, -1, 200, float("nan")])
def test_the_resolution_of_a_mask_is_checked(pyramid: Path, um_per_px: float) -> None:
    with open_slide(pyramid) as slide, pytest.raises(ConfigError):
        tissue_mask(slide, um_per_px=um_per_px)


SECTIONS = {
    "her2st/A1/image.png": (PixelSize(Mpp(3.2), Mpp(3.18), MppSource.GRID), 0.98, (13.5, 15.5)),
    "her2st/A2/image.png": (PixelSize(Mpp(3.2), Mpp(3.183), MppSource.GRID), 0.75, (13, 15)),
    "her2st/B4/image.jpg": (PixelSize(Mpp(0.6903), Mpp(0.6853), MppSource.GRID), 0.95, (11, 12.8)),
    "her2st/C2/image.jpg": (PixelSize(Mpp(0.6901), Mpp(0.6861), MppSource.GRID), 0.98, (7.2, 8.2)),
    "mob_st1k/Rep1/image.jpg": (PixelSize(Mpp(3.4483), Mpp(3.424), MppSource.GRID), 0.98, (11.2, 12.6)),
    "mouse_colon_visium/d14_image_only/slide_pyramid.tiff": (
        PixelSize.square(0.97, MppSource.GRID), 0.98, (36, 41)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_measured_spots_lie_on_the_tissue_found(shared_data: Path, name: str) -> None:
    """Spots under tissue are on the mask, and the mask is hardly larger than what they cover."""
    pixel_size, least, (low, high) = SECTIONS[name]
    path = shared_data / "data" / name
    with (path.parent / "spots.csv").open() as stream:
        xy = [(float(row["pixel_x"]), float(row["pixel_y"])) for row in csv.DictReader(stream)]
    with open_slide(path, pixel_size=pixel_size) as slide:
        found = tissue_mask(slide)
    on_tissue = (found.fraction(xy, 100.0) > 0.5).mean()
    assert on_tissue >= least
    assert low < found.area_mm2 < high
    if name.startswith("her2st/A"):
        assert not found.mask[: found.mask.shape[0] // 4, -found.mask.shape[1] // 4 :].any()


def make_mask(mask: np.ndarray, px: int = 4) -> TissueMask:
    height, width = mask.shape
    return TissueMask(mask, (width * px, height * px), PixelSize.square(2.0, MppSource.GIVEN))


def test_fraction_is_the_exact_share() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:, 5:] = True
    tissue = make_mask(mask)
    xy = [(20, 20), (30, 20), (10, 20), (22, 20), (40, 20), (0, 0), (-500, 20)]
    got = tissue.fraction(xy, 16.0)
    np.testing.assert_allclose(got, [0.5, 1, 0, 0.75, 0.5, 0, 0], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(-20, 60), y=st.floats(-20, 60), side=st.floats(0.5, 200), seed=st.integers(0, 99)
)
def test_fraction_agrees_with_counting(x: float, y: float, side: float, seed: int) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).random((10, 10)), 1) > 0.5
    tissue = make_mask(mask)
    got = tissue.fraction([(x, y)], side)[0]
    half = side / 2 / 2.0
    u = np.linspace(-1, 1, 401)[1::2]
    sample_x, sample_y = (np.floor((v + u * half) / 4).astype(int) for v in (x, y))
    ok_x, ok_y = ((i >= 0) & (i < 10) for i in (sample_x, sample_y))
    hit = mask[np.ix_(np.clip(sample_y, 0, 9), np.clip(sample_x, 0, 9))] & np.outer(ok_y, ok_x)
    np.testing.assert_allclose(got, hit.mean(), atol=0.02)


def test_wrong_masks_and_fields_are_refused() -> None:
    with pytest.raises(ShapeError):
        TissueMask(np.zeros((3, 3)), (3, 3), EIGHT)
    with pytest.raises(ConfigError):
        make_mask(np.ones((3, 3), bool)).fraction([(1, 1)], 0)
