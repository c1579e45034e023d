"""What every slide must do, whatever its format: a suite to run on a reader or on a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stretrieve.errors import SlideError
from stretrieve.slides import PatchStatus, Slide, open_slide, read_patches
from stretrieve.specs import PatchSpec, PatchView
from stretrieve.units import PixelSize

_WHITE = 255
_MEAN_TOLERANCE = 3.0
_MEDIAN_TOLERANCE = 12.0


@dataclass(frozen=True)
class SlideCase:
    """A file to run the suite on.

    Parameters
    ----------
    path
        The file.
    pixel_size
        What to give for files that do not state their resolution.
    """

    path: Path
    pixel_size: PixelSize | None = None


class SlideContract:
    """The suite. Subclass it in a test module and give the fixture :meth:`slide_case`.

    Both fixtures are of class scope, so that a file is opened once for all tests.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def slide_case(cls) -> SlideCase:
        """Return the file to test; a subclass must replace this."""
        pytest.fail("a subclass of SlideContract must give the fixture slide_case")

    @pytest.fixture(scope="class")
    @classmethod
    def slide(cls, slide_case: SlideCase) -> Iterator[Slide]:
        """Yield the slide, open."""
        with open_slide(slide_case.path, pixel_size=slide_case.pixel_size) as slide:
            yield slide

    def test_header_is_consistent(self, slide: Slide) -> None:
        """Level 0 is the slide, downsamples follow the sizes and begin with 1."""
        _equal(slide.level_dimensions[0], slide.dimensions)
        _equal(slide.level_downsamples[0], 1.0)
        _equal(len(slide.level_downsamples), len(slide.level_dimensions))
        for size, downsample in zip(slide.level_dimensions, slide.level_downsamples, strict=True):
            for full, part in zip(slide.dimensions, size, strict=True):
                np.testing.assert_allclose(full / downsample, part, atol=1.5)

    def test_regions_fit_together(self, slide: Slide) -> None:
        """A region is the same whether it is read whole or in two halves, and each time."""
        width, height = min(slide.dimensions[0], 96) // 2 * 2, min(slide.dimensions[1], 64)
        x, y = (
            (full - side) // 2 for full, side in zip(slide.dimensions, (width, height), strict=True)
        )
        whole = slide.read_region((x, y), 0, (width, height))
        _equal((whole.shape, whole.dtype), ((height, width, 3), np.dtype(np.uint8)))
        halves = [slide.read_region((x + dx, y), 0, (width // 2, height)) for dx in (0, width // 2)]
        np.testing.assert_array_equal(np.hstack(halves), whole)

    def test_each_level_shows_the_same(self, slide: Slide) -> None:
        """The mean colour of the whole slide is that of each level, as far as one read goes."""
        picture = slide.overview(slide.level_dimensions[-1])
        for level, (width, height) in enumerate(slide.level_dimensions):
            if width * height <= 4_000_000:
                mean = slide.read_region((0, 0), level, (width, height)).mean(axis=(0, 1))
                np.testing.assert_allclose(mean, picture.mean(axis=(0, 1)), atol=_MEAN_TOLERANCE)

    def test_outside_is_white(self, slide: Slide) -> None:
        """Around the slide there is white, and the slide lies where it should."""
        width, height = slide.dimensions
        side = min(width, height, 24)
        outer = slide.read_region((-side, -side), 0, (2 * side, 2 * side))
        inner = slide.read_region((0, 0), 0, (side, side))
        np.testing.assert_array_equal(outer[side:, side:], inner)
        np.testing.assert_array_equal(outer[:side], _WHITE)
        np.testing.assert_array_equal(outer[:, :side], _WHITE)
        beyond = slide.read_region((width, height), 0, (side, side))
        np.testing.assert_array_equal(beyond, _WHITE)

    def test_impossible_regions_are_refused(self, slide: Slide) -> None:
        """A level that does not exist and a size beyond all bounds are one clear error each."""
        n_levels = len(slide.level_dimensions)
        for level, size in ((n_levels, (8, 8)), (-1, (8, 8)), (0, (0, 8)), (0, (1 << 20, 1 << 20))):
            with pytest.raises(SlideError, match="expected") as caught:
                slide.read_region((0, 0), level, size)
            _equal(len(str(caught.value).splitlines()), 1)

    def test_thumbnail_keeps_shape_and_colour(self, slide: Slide) -> None:
        """The longest side is as asked, the aspect that of the slide."""
        width, height = slide.dimensions
        picture = slide.thumbnail(64)
        longest = min(64, max(width, height))
        _equal(max(picture.shape[:2]), longest)
        np.testing.assert_allclose(
            picture.shape[1] / width, picture.shape[0] / height, atol=1 / min(width, height, 64)
        )
        np.testing.assert_array_equal(picture, slide.thumbnail(64))

    def test_a_patch_at_slide_resolution_is_the_region(self, slide: Slide) -> None:
        """Where the spec asks for the slide's own pixels, it gets them untouched."""
        if not np.isclose(slide.pixel_size.x, slide.pixel_size.y):
            pytest.skip("pixels are not square")
        side = min(32, *slide.dimensions) // 2 * 2
        x, y = ((full - side) // 2 for full in slide.dimensions)
        spec = PatchSpec((PatchView(side, slide.pixel_size.x),))
        (batch,) = read_patches(slide, [(x + side / 2, y + side / 2)], spec)
        np.testing.assert_array_equal(batch.views[0][0], slide.read_region((x, y), 0, (side, side)))
        _equal(list(batch.status), [PatchStatus.OK])

    def test_patches_keep_order_and_marks(self, slide: Slide) -> None:
        """Batches come in the order of the centres; only patches over the edge are padded."""
        xy = _centres(slide, n=9)
        side_um = float(min(slide.size_um)) / 2
        spec = PatchSpec.single(16, side_um=side_um)
        batches = list(read_patches(slide, xy, spec, batch_size=4))
        _equal([len(batch) for batch in batches], [4, 4, 1])
        np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), np.arange(9))
        np.testing.assert_array_equal(np.concatenate([b.xy for b in batches]), xy)
        half = np.array([side_um / slide.pixel_size.x, side_um / slide.pixel_size.y]) / 2
        over = ((xy - half < -0.5) | (xy + half > np.array(slide.dimensions) + 0.5)).any(axis=1)
        expected = np.where(over, PatchStatus.PADDED, PatchStatus.OK)
        np.testing.assert_array_equal(np.concatenate([b.status for b in batches]), expected)

    def test_workers_change_nothing(self, slide: Slide) -> None:
        """Two processes and other batches give the same pixels."""
        xy = _centres(slide, n=7)
        spec = PatchSpec.single(24, side_um=float(min(slide.size_um)) / 3)
        alone = [b.views[0] for b in read_patches(slide, xy, spec, batch_size=7)]
        together = [b.views[0] for b in read_patches(slide, xy, spec, batch_size=2, workers=2)]
        np.testing.assert_array_equal(np.concatenate(together), np.concatenate(alone))

    def test_views_share_their_centre(self, slide: Slide) -> None:
        """The middle of a wide view shows what the narrow view shows."""
        side_um = float(min(slide.size_um)) / 4
        spec = PatchSpec((PatchView(32, side_um / 32), PatchView(64, 2 * side_um / 64)))
        centre = np.array(slide.dimensions) / 2
        (batch,) = read_patches(slide, [tuple(centre)], spec)
        narrow, wide = (view[0].astype(float) for view in batch.views)
        _equal((narrow.shape, wide.shape), ((32, 32, 3), (64, 64, 3)))
        np.testing.assert_allclose(
            np.median(np.abs(wide[16:48, 16:48] - narrow)), 0, atol=_MEDIAN_TOLERANCE
        )

    def test_a_closed_slide_says_so(self, slide_case: SlideCase) -> None:
        """Closing twice is fine; reading afterwards is one clear error."""
        slide = open_slide(slide_case.path, pixel_size=slide_case.pixel_size)
        slide.close()
        slide.close()
        with pytest.raises(SlideError, match="closed"):
            slide.read_region((0, 0), 0, (4, 4))


def _centres(slide: Slide, *, n: int) -> npt.NDArray[np.float64]:
    """Return centres all over the slide, its corners included, ``(n, 2)``."""
    spread = np.random.default_rng(7).random((n, 2))
    spread[0], spread[-1] = 0.0, 1.0
    return np.asarray(spread * slide.dimensions, dtype=np.float64)


def _equal(got: object, expected: object) -> None:
    if got != expected:
        pytest.fail(f"got {got}; expected {expected}")
