"""Size of a pixel from the spot grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import MppError
from stretrieve.spots.lattice import (
    ST_1K,
    ST_2K,
    VISIUM,
    pixel_size_from_lattice,
    square_lattice,
    st_lattice,
)
from stretrieve.units import MppSource

GRID = np.array([(x, y) for x in range(2, 14) for y in range(3, 12)], dtype=float)
HEX = np.array([(2 * c + r % 2, r) for r in range(10) for c in range(9)], dtype=float)


def place(
    array: np.ndarray,
    unit: tuple[float, float],
    mpp: tuple[float, float],
    angle: float,
    *,
    mirror: bool = False,
) -> np.ndarray:
    um = array * unit
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirror:
        um = um * (-1, 1)
    return um @ turn.T / mpp + (4000.0, 5000.0)


@settings(max_examples=60, deadline=None)
@given(
    mpp=st.floats(0.2, 5),
    angle=st.floats(-np.pi, np.pi),
    mirror=st.booleans(),
    which=st.sampled_from(["st", "visium", "hd"]),
)
def test_any_rotation_and_mirror_gives_the_size(
    mpp: float, angle: float, mirror: bool, which: str
) -> None:
    array, lattice = {
        "st": (GRID, ST_1K),
        "visium": (HEX, VISIUM),
        "hd": (GRID, square_lattice(8.0)),
    }[which]
    size = pixel_size_from_lattice(
        place(array, lattice.unit_um, (mpp, mpp), angle, mirror=mirror), array, lattice
    )
    assert size.x == pytest.approx(mpp, rel=1e-6)
    assert size.y == size.x
    assert size.source is MppSource.GRID


@pytest.mark.parametrize("angle", [0.0, np.pi / 2, 0.4])
def test_pixels_that_are_not_square_are_found_on_the_interleaved_array(angle: float) -> None:
    array = np.array(
        [(x, y) for x in range(30) for y in range(30) if (x + y) % 2 == 0], dtype=float
    )
    assert st_lattice(array) is ST_2K
    xy = place(array, (100, 100), (4.63, 4.16), angle)
    size = pixel_size_from_lattice(xy, array, st_lattice(array))
    assert (size.x, size.y) == pytest.approx((4.63, 4.16), rel=1e-6)


def test_the_1k_array_is_not_taken_for_the_2k_array() -> None:
    assert st_lattice(GRID) is ST_1K


def test_jitter_and_outliers_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    xy = place(GRID, (200, 200), (0.7, 0.7), 0.02) + rng.normal(0, 5, size=GRID.shape)
    xy[::15] += rng.uniform(-2000, 2000, size=xy[::15].shape)
    size = pixel_size_from_lattice(xy, GRID, ST_1K)
    assert size.x == pytest.approx(0.7, rel=0.003)


@pytest.mark.parametrize(
    ("xy", "array"),
    [
        (GRID[:4] * 100, GRID[:4]),
        (
            np.column_stack([np.arange(20), np.zeros(20)]) * 100.0,
            np.column_stack([np.arange(20), np.zeros(20)]).astype(float),
        ),
        (np.ones_like(GRID), GRID),
        (np.random.default_rng(1).permutation(GRID * 100), GRID),
        (GRID * (100, 60), GRID),
        (GRID @ np.array([[100.0, 40.0], [0.0, 100.0]]), GRID),
    ],
    ids=["few", "line", "one place", "shuffled", "stretched", "sheared"],
)
def test_spots_that_form_no_grid_are_refused(xy: np.ndarray, array: np.ndarray) -> None:
    with pytest.raises(MppError, match="mpp"):
        pixel_size_from_lattice(xy.astype(float), array, ST_1K)
