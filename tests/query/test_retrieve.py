from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stretrieve.errors import InputError
from stretrieve.query.retrieve import allowed_spots, slide_shift


def reference(rng):
    """Two sections of unequal size, as far as these functions look."""
    spots = pd.DataFrame({
        "patient": ["A"] * 6 + ["B"] * 2, "organ": ["breast"] * 7 + ["liver"],
    })  # fmt: skip
    stored = rng.normal(size=(8, 3)).astype(np.float32)
    return SimpleNamespace(
        spots=spots, section_index=np.array([0] * 6 + [1] * 2), embeddings=lambda modality: stored
    )


def test_centring_forgets_a_constant_offset_of_the_slide():
    rng = np.random.default_rng(0)
    target, everything = reference(rng), np.ones(8, dtype=bool)
    slide = rng.normal(size=(20, 3)).astype(np.float32)
    moved = slide + 5 + slide_shift(target, (slide + 5).mean(axis=0), allowed=everything)
    unmoved = slide + slide_shift(target, slide.mean(axis=0), allowed=everything)
    np.testing.assert_allclose(moved, unmoved, atol=1e-5)


def test_every_allowed_section_weighs_the_same():
    rng = np.random.default_rng(1)
    target = reference(rng)
    slide = rng.normal(size=(20, 3)).astype(np.float32)
    stored = target.embeddings("image")
    allowed = np.array([True] * 7 + [False])
    moved = slide + slide_shift(target, slide.mean(axis=0), allowed=allowed)
    expected = (stored[:6].mean(axis=0) + stored[6]) / 2
    np.testing.assert_allclose(moved.mean(axis=0), expected, atol=1e-5)


def test_guards_combine_and_an_empty_pool_is_refused():
    target = reference(np.random.default_rng(2))
    allowed = allowed_spots(target, patient="A", filters={"organ": "breast"})
    assert allowed.tolist() == [False] * 6 + [True, False]
    with pytest.raises(InputError, match="organ 'heart' and patients other than 'A'"):
        allowed_spots(target, patient="A", filters={"organ": "heart"})
