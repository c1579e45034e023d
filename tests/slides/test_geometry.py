"""Level choice and windows: pure arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import ShapeError, SlideError
from stretrieve.slides.geometry import (
    boxes_of_view,
    check_centres,
    choose_level,
    outside,
    plan_boxes,
)
from stretrieve.slides.limits import MAX_READ_PX
from stretrieve.slides.overview import shrink_picture
from stretrieve.specs import PatchView
from stretrieve.units import Mpp, MppSource, PixelSize


@pytest.mark.parametrize(
    ("scale", "level"), [(0.5, 0), (1, 0), (1.9, 0), (2, 1), (3.97, 2), (3.9, 1), (100, 2)]
)
def test_level_is_the_coarsest_that_is_fine_enough(scale: float, level: int) -> None:
    assert choose_level((1.0, 2.0, 4.0004), scale) == level


def test_a_field_of_view_is_square_in_microns() -> None:
    boxes = boxes_of_view(
        np.array([[100.0, 200.0]]),
        PatchView(224, 0.5),
        PixelSize(Mpp(0.5), Mpp(0.25), MppSource.FILE),
    )
    np.testing.assert_allclose(boxes, [[100 - 112, 200 - 224, 100 + 112, 200 + 224]])


def test_pixels_of_the_slide_itself_are_taken_untouched() -> None:
    (job,) = plan_boxes(np.array([[10.0, 20.0, 42.0, 52.0]]), (32, 32), (1.0, 2.0))
    assert job == (0, 10, 20, 32, 32, 0, 0, 32, 32, 32, 32)


@settings(deadline=None)
@given(
    corner=st.tuples(st.floats(-500, 5000), st.floats(-500, 5000)),
    side=st.floats(8, 3000),
    out=st.integers(8, 256),
    downsamples=st.sampled_from([(1.0,), (1.0, 2.0, 4.0), (1.0, 4.000431592, 16.003), (1.0, 3.1)]),
)
def test_a_job_shows_exactly_its_box(corner, side, out, downsamples) -> None:
    x, y = corner
    (job,) = plan_boxes(np.array([[x, y, x + side, y + side]]), (out, out), downsamples)
    d = downsamples[job.level]
    shown = np.array([job.left, job.top, job.right, job.bottom]) * d + [job.x, job.y, job.x, job.y]
    np.testing.assert_allclose(shown, [x, y, x + side, y + side], atol=1e-2 * d)
    assert 0 <= job.left < job.right <= job.width
    assert 0 <= job.top < job.bottom <= job.height
    assert d <= max(1.0, side / out * 1.01)
    assert all(not d < other <= side / out for other in downsamples)


def test_reads_beyond_the_bound_are_refused_before_they_are_asked_for() -> None:
    side = float(np.sqrt(MAX_READ_PX)) + 200
    with pytest.raises(SlideError, match="pyramidal"):
        plan_boxes(np.array([[0, 0, side, side]]), (224, 224), (1.0,))
    assert plan_boxes(np.array([[0, 0, side, side]]), (224, 224), (1.0, 32.0))


def test_only_boxes_over_the_edge_are_outside() -> None:
    boxes = np.array([[0, 0, 10, 10], [-1, 0, 9, 10], [0, 0, 101, 10], [90, 90, 100.2, 100]])
    np.testing.assert_array_equal(outside(boxes, (100, 100)), [False, True, True, False])


@pytest.mark.parametrize("bad", [[[1, 2, 3]], [1, 2], [[np.nan, 1]], [[np.inf, 1]], [[1e300, 0]]])
def test_centres_must_be_finite_pairs(bad) -> None:
    with pytest.raises(ShapeError):
        check_centres(bad)


def test_no_centres_are_fine() -> None:
    assert check_centres([]).shape == (0, 2)
    assert plan_boxes(np.empty((0, 4)), (8, 8), (1.0,)) == []


def test_a_picture_is_shrunk_by_averaging() -> None:
    picture = np.zeros((40, 100, 3), dtype=np.uint8)
    picture[:, ::2] = 200
    small = shrink_picture(picture, 50)
    assert small.shape == (20, 50, 3)
    assert (small == 100).all()
    assert shrink_picture(picture, 100) is picture
    assert shrink_picture(picture[:1], 10).shape == (1, 10, 3)
