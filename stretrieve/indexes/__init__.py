"""Nearest-neighbour search: exact, and through FAISS, with one interface and one order of results."""

from stretrieve.indexes.base import Metric, SearchResult, VectorIndex
from stretrieve.indexes.exact import ExactIndex
from stretrieve.indexes.faiss import FaissIndex, build_index, make_index, read_index
from stretrieve.indexes.recipes import Recipe, choose_recipe, load_recipe, recipe_names

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Metric",
    "Recipe",
    "SearchResult",
    "VectorIndex",
    "build_index",
    "choose_recipe",
    "load_recipe",
    "make_index",
    "read_index",
    "recipe_names",
]
