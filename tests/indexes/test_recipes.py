import numpy as np
import pytest

from stretrieve.errors import ConfigError, UnknownNameError
from stretrieve.indexes import Metric, Recipe, build_index, choose_recipe, load_recipe
from stretrieve.indexes import recipes as module
from stretrieve.indexes.recipes import IndexKind
from stretrieve.indexes.train import list_count

GB = 10**9


@pytest.mark.parametrize(
    ("n", "dim", "memory", "expected"),
    [
        (10_000, 256, 8 * GB, "flat"),
        (1_000_000, 256, 8 * GB, "flat"),
        (6_000_000, 256, 64 * GB, "ivf_flat"),
        (10_000_000, 256, 8 * GB, "ivf_sq"),
        (10_000_000, 512, 6 * GB, "ivf_pq"),
        (100_000_000, 512, 8 * GB, "ivf_flat_mmap"),
    ],
)
def test_auto_follows_size_and_memory(n, dim, memory, expected):
    choice = choose_recipe("auto", n_vectors=n, dim=dim, memory_bytes=memory)
    assert choice.name == expected
    assert f"{n:,} vectors of {dim}" in choice.reason


def test_auto_names_the_gpu():
    choice = choose_recipe("auto", n_vectors=10, dim=4, memory_bytes=GB, n_gpus=2)
    assert "2 GPU" in choice.reason


def test_a_named_recipe_is_taken_as_it_is():
    choice = choose_recipe("hnsw", n_vectors=10, dim=4, memory_bytes=GB)
    assert (choice.name, choice.recipe) == ("hnsw", load_recipe("hnsw"))


def test_unknown_recipe_lists_the_choices():
    with pytest.raises(UnknownNameError, match="auto, exact, flat"):
        load_recipe("flatt")
    with pytest.raises(UnknownNameError):
        load_recipe("../recipes/flat")


def test_a_misspelt_setting_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text('kind = "flat"\nnprob = 3\n')
    monkeypatch.setattr(module, "_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"mine\.nprob.*did you mean 'nprobe'"):
        load_recipe("mine")


@pytest.mark.parametrize("bad", [{"nprobe": 0}, {"refine": 0.5}, {"recall_floor": 1.5}])
def test_settings_out_of_range(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Recipe(IndexKind.IVF_FLAT, **bad)


def test_too_few_vectors_for_the_recipe():
    vectors = np.zeros((30, 8), dtype=np.float32)
    with pytest.raises(ConfigError, match="use the recipe 'flat'"):
        build_index(vectors, load_recipe("ivf_pq"), metric=Metric.COSINE)


def test_number_of_lists_grows_with_the_root():
    recipe = load_recipe("ivf_flat")
    assert list_count(1_000_000, recipe) == 4000
    assert list_count(100, recipe) == 2
    assert list_count(3, recipe) == 1
