"""Grids laid out in microns, and neighbours on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stretrieve.errors import ConfigError, ShapeError, TissueError
from stretrieve.slides import PatchGrid, TissueMask, open_slide, patch_grid, read_patches
from stretrieve.slides.grid import nearest_neighbours
from stretrieve.specs import PatchSpec
from stretrieve.units import Mpp, MppSource, PixelSize
from tests.slides.pictures import halved, tissue_picture, write_pyramid

SPEC = PatchSpec.single(32, side_um=20.0)


def test_patches_lie_side_by_side_from_the_corner(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        grid = patch_grid(slide, SPEC, min_tissue=0)
        assert len(grid) == 16 * 12
        np.testing.assert_allclose(grid.xy_um[:2], [[10, 10], [30, 10]])
        np.testing.assert_allclose(grid.xy, slide.pixel_size.to_px(grid.xy_um))
        np.testing.assert_array_equal(grid.grid_index[[0, 1, 16]], [[0, 0], [1, 0], [0, 1]])
        (first, *_) = read_patches(slide, grid.xy, SPEC)
        assert not first.status.any()


def test_stride_is_in_microns(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        grid = patch_grid(slide, SPEC, stride_um=7.5, min_tissue=0)
    steps = np.diff(np.unique(grid.xy_um[:, 0]))
    np.testing.assert_allclose(steps, 7.5)
    np.testing.assert_allclose(grid.xy_um, grid.grid_index * 7.5 + 10)


def test_the_whole_slide_is_covered(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        for side, stride in ((20, None), (33, 33), (50, 21), (5000, None)):
            grid = patch_grid(
                slide, PatchSpec.single(8, side_um=side), stride_um=stride, min_tissue=0
            )
            assert (grid.xy_um.max(axis=0) + side / 2 >= np.array(slide.size_um) - 1e-9).all()


def test_only_tissue_is_kept(pyramid: Path) -> None:
    mask = np.zeros((120, 160), bool)
    mask[30:60, 40:80] = True
    with open_slide(pyramid) as slide:
        tissue = TissueMask(mask, slide.dimensions, slide.pixel_size)
        grid = patch_grid(slide, SPEC, mask=tissue, min_tissue=0.9)
        everything = patch_grid(slide, SPEC, mask=tissue, min_tissue=0)
    assert len(grid) == 4 * 3
    assert (grid.tissue_fraction >= 0.9).all()
    np.testing.assert_allclose(everything.tissue_fraction.sum() * 400, mask.sum() * 4, rtol=1e-3)
    assert (np.diff(grid.grid_index @ [1, 1000]) > 0).all()


def test_tissue_is_looked_for_when_no_mask_is_given(tmp_path: Path) -> None:
    spec = PatchSpec.single(32, side_um=100.0)
    with open_slide(write_pyramid(tmp_path / "a.tiff", tissue_picture(), mpp=4.0)) as slide:
        grid = patch_grid(slide, spec)
        everything = patch_grid(slide, spec, min_tissue=0)
    assert 0.3 * len(everything) < len(grid) < 0.6 * len(everything)
    assert (grid.tissue_fraction >= 0.1).all()


def test_the_same_tissue_has_the_same_grid_at_any_resolution(tmp_path: Path) -> None:
    picture = tissue_picture()
    grids = []
    for name, part, mpp in (("a", picture, 0.5), ("b", halved(picture), 1.0)):
        with open_slide(write_pyramid(tmp_path / f"{name}.tiff", part, mpp=mpp)) as slide:
            grids.append(patch_grid(slide, SPEC, stride_um=13.0, min_tissue=0))
    np.testing.assert_array_equal(grids[0].xy_um, grids[1].xy_um)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    Image.fromarray(tissue_picture()).save(tmp_path / "a.png")
    size = PixelSize(Mpp(0.5), Mpp(1.0), MppSource.GIVEN)
    with open_slide(tmp_path / "a.png", pixel_size=size) as slide:
        grid = patch_grid(slide, SPEC, min_tissue=0)
    np.testing.assert_allclose(grid.xy[0], [20, 10])
    assert grid.grid_index.max(axis=0).tolist() == [15, 23]


def test_blank_slides_are_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (400, 400), (244, 243, 244)).save(tmp_path / "a.png")
    size = PixelSize.square(1.0, MppSource.GIVEN)
    with (
        open_slide(tmp_path / "a.png", pixel_size=size) as slide,
        pytest.raises(TissueError, match="no patch with 10% tissue"),
    ):
        patch_grid(slide, SPEC)


@pytest.mark.parametrize(
    "options",
    [{"stride_um": 0}, {"stride_um": -1}, {"stride_um": float("nan")}, {"min_tissue": 1.1},
     {"min_tissue": -0.1}, {"stride_um": 0.001}],
)  # fmt: skip
def test_settings_are_checked(pyramid: Path, options) -> None:
    with open_slide(pyramid) as slide, pytest.raises(ConfigError):
        patch_grid(slide, SPEC, **options)


def test_a_grid_checks_its_shapes() -> None:
    with pytest.raises(ShapeError):
        PatchGrid(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(3), np.zeros((2, 2), int), 1.0)


def make_grid(cells: np.ndarray) -> PatchGrid:
    xy = cells * 10.0
    return PatchGrid(xy, xy, np.ones(len(xy)), cells.astype(np.int64), 10.0)


def test_neighbours_are_the_nearest_with_ties_by_position() -> None:
    cells = np.stack(np.meshgrid(np.arange(3), np.arange(3)), -1).reshape(-1, 2)
    grid = make_grid(cells)
    np.testing.assert_array_equal(grid.neighbours(4)[4], [1, 3, 5, 7])
    np.testing.assert_array_equal(grid.neighbours(8)[4], [1, 3, 5, 7, 0, 2, 6, 8])
    np.testing.assert_array_equal(grid.neighbours(3)[0], [1, 3, 4])


def test_missing_neighbours_are_minus_one() -> None:
    grid = make_grid(np.array([[0, 0], [1, 0], [9, 9]]))
    np.testing.assert_array_equal(grid.neighbours(3), [[1, 2, -1], [0, 2, -1], [1, 0, -1]])
    near = grid.neighbours(2, radius_um=15)
    np.testing.assert_array_equal(near, [[1, -1], [0, -1], [-1, -1]])
    np.testing.assert_array_equal(make_grid(np.array([[0, 0]])).neighbours(2), [[-1, -1]])
    assert make_grid(np.empty((0, 2))).neighbours(2).shape == (0, 2)
    with pytest.raises(ConfigError):
        grid.neighbours(0)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), k=st.integers(1, 9), seed=st.integers(0, 999))
def test_neighbours_agree_with_all_distances(n: int, k: int, seed: int) -> None:
    cells = np.unique(np.random.default_rng(seed).integers(0, 9, (n, 2)), axis=0)
    xy = cells * 7.0
    got = nearest_neighbours(xy, k)
    squared = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    np.fill_diagonal(squared, np.inf)
    for i, row in enumerate(got):
        expected = np.lexsort((np.arange(len(xy)), squared[i]))[: min(k, len(xy) - 1)]
        np.testing.assert_array_equal(row[: len(expected)], expected)
        assert (row[len(expected) :] == -1).all()
