"""Colour statistics measure what their names say."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.models.colour import STATISTICS, colour_statistics


def _column(patches, name):
    return colour_statistics(patches)[:, STATISTICS.index(name)]


def _flat(colour, px=32):
    return np.tile(np.array(colour, dtype=np.uint8), (1, px, px, 1))


def test_flat_patches():
    white, purple = _flat((255, 255, 255)), _flat((120, 60, 150))
    both = np.concatenate([white, purple])
    np.testing.assert_allclose(_column(both, "red_mean"), [1.0, 120 / 255], rtol=1e-6)
    assert _column(both, "tissue_fraction").tolist() == [0.0, 1.0]
    assert _column(both, "red_sd").max() < 1e-6
    assert _column(both, "haematoxylin_mean")[1] > _column(both, "haematoxylin_mean")[0]
    assert np.isfinite(colour_statistics(both)).all()


def test_texture_is_seen_at_its_scale():
    board = np.indices((32, 32)).sum(axis=0) % 2
    fine = np.repeat((255 * board)[None, :, :, None], 3, axis=3).astype(np.uint8)
    blocks = np.indices((32, 32)) // 8
    coarse = np.repeat((255 * (blocks.sum(axis=0) % 2))[None, :, :, None], 3, axis=3)
    both = np.concatenate([fine, coarse.astype(np.uint8)])
    contrast = [_column(both, f"haematoxylin_contrast_{w}") for w in (3, 15)]
    assert contrast[0][0] > contrast[0][1]
    smooth = _column(both, "luminance_gradient_4_mean")
    assert smooth[1] > smooth[0]


def test_centre_differs_from_the_whole():
    patch = _flat((255, 255, 255))
    patch[:, 8:24, 8:24] = (120, 60, 150)
    assert _column(patch, "haematoxylin_centre")[0] > 0.05
    assert abs(_column(_flat((120, 60, 150)), "haematoxylin_centre")[0]) < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 40))
def test_rows_are_their_own(seed, px):
    patches = np.random.default_rng(seed).integers(0, 256, (3, px, px, 3), dtype=np.uint8)
    whole = colour_statistics(patches)
    assert whole.shape == (3, len(STATISTICS))
    for i in range(3):
        np.testing.assert_allclose(colour_statistics(patches[i : i + 1])[0], whole[i], atol=1e-6)


def test_nothing_in_nothing_out():
    assert colour_statistics(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, len(STATISTICS))
