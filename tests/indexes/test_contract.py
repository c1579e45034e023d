"""Every recipe keeps the contract of vector indexes."""

from dataclasses import replace

import pytest

from stretrieve.indexes import build_index, load_recipe, recipe_names
from stretrieve.indexes.recipes import IndexKind
from stretrieve.testing.indexes import VectorIndexContract


class _RecipeContract(VectorIndexContract):
    name = ""

    def __init_subclass__(cls):
        cls.recall_floor = load_recipe(cls.name).recall_floor

    @classmethod
    def build(cls, vectors, metric):
        recipe = load_recipe(cls.name)
        if recipe.kind.is_inverted:
            recipe = replace(recipe, n_lists=16, nprobe=12)
        return build_index(vectors, recipe, metric=metric)


class TestExact(_RecipeContract):
    name = "exact"


class TestFlat(_RecipeContract):
    name = "flat"


class TestIvfFlat(_RecipeContract):
    name = "ivf_flat"


class TestIvfFlatMmap(_RecipeContract):
    name = "ivf_flat_mmap"


class TestIvfSq(_RecipeContract):
    name = "ivf_sq"


class TestIvfPq(_RecipeContract):
    name = "ivf_pq"


class TestHnsw(_RecipeContract):
    name = "hnsw"


def _all_subclasses(cls):
    return {cls, *(sub for child in cls.__subclasses__() for sub in _all_subclasses(child))}


def test_every_recipe_has_a_contract():
    covered = {getattr(cls, "name", "") for cls in _all_subclasses(VectorIndexContract)}
    assert set(recipe_names()) <= covered


def test_every_kind_has_a_recipe():
    assert {load_recipe(name).kind for name in recipe_names()} == set(IndexKind)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is_for(name):
    assert load_recipe(name).description
