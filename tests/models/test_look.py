"""Looks: known patches have known statistics, and each patch is looked at by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.models.colour import STAINS
from stretrieve.models.look import N_STATISTICS, looks

MEAN, DEVIATION, CORRELATION = slice(0, 3), slice(3, 6), slice(6, 9)
RANKS, SATURATION, STAINED = slice(9, 24), slice(24, 26), slice(26, 29)


def noisy(n=7, px=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def test_a_uniform_patch_has_its_colour_and_no_contrast():
    (row,) = looks(np.full((1, 16, 16, 3), (200, 100, 50), dtype=np.uint8))
    colour = np.array([200, 100, 50]) / 255
    np.testing.assert_allclose(row[MEAN], colour)
    np.testing.assert_array_equal(row[DEVIATION], 0)
    np.testing.assert_array_equal(row[CORRELATION], 0)
    np.testing.assert_allclose(row[RANKS], np.tile(colour, 5))
    np.testing.assert_allclose(row[SATURATION], [0.75, 0], atol=1e-15)


def test_a_patch_of_two_colours():
    """A quarter purple, the rest white: two values, so that everything follows from their shares."""
    purple = np.array([100, 50, 150])
    patch = np.full((16, 16, 3), 255, dtype=np.uint8)
    patch[:4] = purple
    (row,) = looks(patch[None])
    np.testing.assert_allclose(row[MEAN], (0.25 * purple + 0.75 * 255) / 255)
    np.testing.assert_allclose(row[DEVIATION], np.sqrt(3 / 16) * (255 - purple) / 255)
    np.testing.assert_allclose(row[CORRELATION], 1)
    np.testing.assert_allclose(row[RANKS] * 255, [*purple, *[255] * 12])
    np.testing.assert_allclose(row[SATURATION], [0.25 * 2 / 3, np.sqrt(3 / 16) * 2 / 3])
    np.testing.assert_allclose(row[STAINED], [0.25, 0.25, 0.25])


def test_white_has_no_stain_and_eosin_no_haematoxylin():
    eosin = np.rint(255 * 10.0 ** (-0.8 * STAINS[1]))
    pink, white = np.full((8, 8, 3), eosin, np.uint8), np.full((8, 8, 3), 244, np.uint8)
    np.testing.assert_array_equal(looks(white[None])[0, STAINED], 0)
    np.testing.assert_array_equal(looks(pink[None])[0, STAINED], [1, 0, 0])


def test_statistics_are_those_of_numpy():
    patches = noisy()
    flat = patches.reshape(len(patches), -1, 3) / 255
    found = looks(patches)
    np.testing.assert_allclose(found[:, MEAN], flat.mean(axis=1))
    np.testing.assert_allclose(found[:, DEVIATION], flat.std(axis=1))
    ranks = np.quantile(flat, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1, method="nearest")
    np.testing.assert_allclose(found[:, RANKS], np.moveaxis(ranks, 0, 1).reshape(len(patches), -1))
    for one, row in zip(flat, found, strict=True):
        np.testing.assert_allclose(row[CORRELATION], np.corrcoef(one.T)[np.triu_indices(3, 1)])


@given(st.integers(1, 6), st.sampled_from([5, 16, 32, 48]), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_patch_looks_the_same_in_every_batch_and_turned_around(n, px, seed):
    patches = noisy(n, px, seed)
    whole = looks(patches)
    assert whole.shape == (n, N_STATISTICS)
    np.testing.assert_array_equal(np.concatenate([looks(p[None]) for p in patches]), whole)
    np.testing.assert_allclose(looks(np.rot90(patches, axes=(1, 2))), whole, atol=1e-12)
    assert (np.abs(whole) <= 1 + 1e-12).all()


def test_no_patch_has_no_look():
    assert looks(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, N_STATISTICS)
