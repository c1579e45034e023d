"""Patches at a physical size: the same tissue at any resolution, in order, ahead, in little memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.slides import PatchStatus, open_slide, patches, read_patches
from stretrieve.specs import PatchSpec, PatchView
from stretrieve.units import Mpp, MppSource, PixelSize
from tests.slides.pictures import halved, tissue_picture, write_pyramid

SPEC = PatchSpec((PatchView(32, 0.5),))


def views(slide, xy, spec=SPEC, **options) -> np.ndarray:
    return np.concatenate([batch.views[0] for batch in read_patches(slide, xy, spec, **options)])


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 0.7])
def test_a_patch_shows_the_same_tissue_at_any_level(pyramid: Path, mpp: float) -> None:
    """Against an area average of the finest pixels, whatever level was read."""
    centre = np.array([[300.0, 240.0]])
    side_px = round(64 * mpp / 0.5)
    with open_slide(pyramid) as slide:
        got = views(slide, centre, PatchSpec((PatchView(64, mpp),)))[0]
        corner = tuple(int(value - side_px / 2) for value in centre[0])
        full = Image.fromarray(slide.read_region(corner, 0, (side_px, side_px)))
        expected = np.asarray(full.resize((64, 64), Image.Resampling.BICUBIC))
    error = np.abs(got.astype(float) - expected)[4:-4, 4:-4]
    assert error.mean() < 6
    shifted = np.abs(got.astype(float)[:, 2:] - expected[:, :-2])[4:-4, 4:-6]
    assert error.mean() < 0.6 * shifted.mean()


def test_two_scans_of_one_tissue_give_the_same_patches(tmp_path: Path) -> None:
    """At 0.25 and 0.5 µm/px, whatever levels each file has."""
    fine = np.asarray(
        Image.fromarray(tissue_picture()).resize((1280, 960), Image.Resampling.BICUBIC)
    )
    scans = {
        0.25: write_pyramid(tmp_path / "a.tiff", fine, mpp=0.25, levels=1),
        0.5: write_pyramid(tmp_path / "b.tiff", halved(fine), mpp=0.5),
    }
    xy_um = np.stack(np.meshgrid(np.arange(30, 300, 37.3), np.arange(30, 200, 31.7)), -1).reshape(
        -1, 2
    )
    spec = PatchSpec((PatchView(48, 0.6),))
    patches_of = []
    for path in scans.values():
        with open_slide(path) as slide:
            patches_of.append(views(slide, slide.pixel_size.to_px(xy_um), spec).astype(float))
    assert np.abs(patches_of[0] - patches_of[1]).mean() < 1.5
    moved = np.abs(patches_of[0][:, :, 1:] - patches_of[1][:, :, :-1]).mean()
    assert moved > 3 * np.abs(patches_of[0] - patches_of[1]).mean()


def test_pixels_that_are_not_square_are_shown_square(tmp_path: Path) -> None:
    """A circle on the tissue is a circle in the patch, though the image is squeezed."""
    y, x = np.mgrid[:400, :800]
    squeezed = np.where(np.hypot((x - 400) / 2, y - 200) < 60, 40, 240).astype(np.uint8)
    Image.fromarray(np.stack([squeezed] * 3, -1)).save(tmp_path / "a.png")
    size = PixelSize(Mpp(0.5), Mpp(1.0), MppSource.GIVEN)
    with open_slide(tmp_path / "a.png", pixel_size=size) as slide:
        patch = views(slide, [(400, 200)], PatchSpec((PatchView(100, 2.0),)))[0, ..., 0]
    dark = patch < 128
    np.testing.assert_allclose(dark.sum(), np.pi * 30**2, rtol=0.03)
    assert abs(dark.any(axis=0).sum() - dark.any(axis=1).sum()) <= 1


def test_edges_are_white_and_marked(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        width, height = slide.dimensions
        xy = [(16, 16), (15, 16), (width, height), (-100, 50), (width - 16, height - 16)]
        (batch,) = read_patches(slide, xy, SPEC)
    expected = [PatchStatus.OK, *[PatchStatus.PADDED] * 3, PatchStatus.OK]
    np.testing.assert_array_equal(batch.status, expected)
    assert (batch.views[0][1][:, 0] == 255).all()
    assert (batch.views[0][2][16:] == 255).all()
    assert (batch.views[0][3] == 255).all()
    np.testing.assert_allclose(batch.xy_um, np.array(xy) * 0.5, rtol=1e-3)


def test_one_view_over_the_edge_marks_the_patch(pyramid: Path) -> None:
    spec = PatchSpec((PatchView(16, 0.5), PatchView(16, 8.0)))
    with open_slide(pyramid) as slide:
        (batch,) = read_patches(slide, [(40, 40), (320, 240)], spec)
    np.testing.assert_array_equal(batch.status, [PatchStatus.PADDED, PatchStatus.OK])
    assert len(batch.views) == 2


def test_no_centres_give_no_batches(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        assert list(read_patches(slide, np.empty((0, 2)), SPEC)) == []


def test_settings_are_checked_at_the_call(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        for options in ({"batch_size": 0}, {"first_batch": 0}, {"workers": 0}):
            with pytest.raises(ConfigError):
                read_patches(slide, [(1, 1)], SPEC, **options)
        with pytest.raises(ShapeError):
            read_patches(slide, [(1, np.nan)], SPEC)


@pytest.mark.parametrize("workers", [1, 2])
def test_decoding_runs_ahead_by_a_bounded_number_of_batches(
    pyramid: Path, monkeypatch, workers
) -> None:
    """The queue fills while nobody consumes, and no further: memory is bounded, and used."""
    started: list[int] = []
    real, enough = patches._read_batch, threading.Event()

    def spy(slide, xy, rows, spec, n):
        started.append(int(rows[0]))
        if len(started) >= workers + 2:
            enough.set()
        return real(slide, xy, rows, spec, n)

    monkeypatch.setattr(patches, "_read_batch", spy)
    xy = np.full((100, 2), 100.0)
    with open_slide(pyramid) as slide:
        stream = read_patches(slide, xy, SPEC, batch_size=4, workers=workers)
        next(stream)
        assert enough.wait(10)
        assert len(started) <= workers + 2
        assert sum(len(batch) for batch in stream) == 96
    assert sorted(started) == list(range(0, 100, 4))


def test_batches_grow_from_the_first_to_the_full_size(pyramid: Path) -> None:
    xy = np.stack([np.arange(40, 600, 20), np.full(28, 200)], -1)
    with open_slide(pyramid) as slide:
        for first, lengths in ((2, [2, 2, 4, 8, 8, 4]), (3, [3, 3, 6, 8, 8]), (9, [8, 8, 8, 4])):
            batches = list(read_patches(slide, xy, SPEC, batch_size=8, first_batch=first))
            assert [len(batch) for batch in batches] == lengths
            rows = np.concatenate([batch.indices for batch in batches])
            np.testing.assert_array_equal(rows, np.arange(28))
            got = np.concatenate([batch.views[0] for batch in batches])
            np.testing.assert_array_equal(got, views(slide, xy))


def test_two_streams_of_one_slide_do_not_mix(pyramid: Path) -> None:
    xy = np.stack([np.arange(40, 600, 20), np.full(28, 200)], -1)
    with open_slide(pyramid) as slide:
        expected = views(slide, xy)
        pairs = zip(
            read_patches(slide, xy, SPEC, batch_size=3, workers=2),
            read_patches(slide, xy[::-1], SPEC, batch_size=3),
            strict=True,
        )
        forward, backward = zip(*((a.views[0], b.views[0]) for a, b in pairs), strict=True)
    np.testing.assert_array_equal(np.concatenate(forward), expected)
    np.testing.assert_array_equal(np.concatenate(backward), expected[::-1])
