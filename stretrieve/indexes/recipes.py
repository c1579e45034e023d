"""Index recipes: frozen settings, one TOML file each, and the choice among them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from stretrieve.config import settings_from_dict, take_choices
from stretrieve.errors import ConfigError, UnknownNameError, explain

AUTO = "auto"
FLAT_LIMIT = 5_000_000
_FLOAT_BYTES = 4


class IndexKind(StrEnum):
    """How an index is organised."""

    EXACT = "exact"
    FLAT = "flat"
    IVF_FLAT = "ivf_flat"
    IVF_SQ = "ivf_sq"
    IVF_PQ = "ivf_pq"
    HNSW = "hnsw"

    @property
    def is_inverted(self) -> bool:
        """Whether vectors are kept in inverted lists."""
        return self in (IndexKind.IVF_FLAT, IndexKind.IVF_SQ, IndexKind.IVF_PQ)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of an index.

    Parameters
    ----------
    kind
        How the index is organised.
    description
        What it is for.
    n_lists
        Inverted lists; 0 takes four times the square root of the number of vectors.
    nprobe
        Inverted lists that a search looks at.
    pq_bytes
        Bytes a product-quantised vector takes, at most; it has to divide the dimension.
    refine
        Candidates per neighbour wanted that a graph or compressed codes propose, to be re-scored on
        the stored vectors; at least 1.
    hnsw_neighbors, ef_construction, ef_search
        Edges per node and breadth of the graph search, while building and searching.
    memory_mapped
        Whether inverted lists stay on disk and are read as needed.
    recall_floor
        Least recall against the exact index with which the index is accepted.
    seed
        Seed of the training sample and of k-means.
    """

    kind: IndexKind
    description: str = ""
    n_lists: int = 0
    nprobe: int = 32
    pq_bytes: int = 32
    refine: float = 2.0
    hnsw_neighbors: int = 32
    ef_construction: int = 100
    ef_search: int = 128
    memory_mapped: bool = False
    recall_floor: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        take_choices(self)
        for name, low in (("n_lists", 0), ("nprobe", 1), ("pq_bytes", 1), ("refine", 1)):
            if getattr(self, name) < low:
                raise ConfigError(
                    explain(f"recipe {name}", got=getattr(self, name), expected=f"{low} or more")
                )
        if not 0 <= self.recall_floor <= 1:
            raise ConfigError(explain("recall_floor", got=self.recall_floor, expected="0 to 1"))


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe and why it was chosen."""

    name: str
    recipe: Recipe
    reason: str


def _folder() -> Path:
    packaged = Path(__file__).with_name("recipes")
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / "indexes" / "recipes"


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name.

    Raises
    ------
    UnknownNameError
        When there is no such recipe.
    ConfigError
        When the file holds an unknown or wrong setting.
    """
    if name not in recipe_names():
        choices = ", ".join((AUTO, *recipe_names()))
        raise UnknownNameError(explain("index recipe", got=repr(name), expected=choices))
    with (_folder() / f"{name}.toml").open("rb") as stream:
        return settings_from_dict(Recipe, tomllib.load(stream), where=name)


def choose_recipe(
    name: str, *, n_vectors: int, dim: int, memory_bytes: int, n_gpus: int = 0
) -> Choice:
    """Return the recipe of this name, or the fitting one for ``auto``, and the reason.

    Parameters
    ----------
    name
        A recipe's name or ``"auto"``.
    n_vectors, dim
        Size of the index.
    memory_bytes
        Memory that the index may take.
    n_gpus
        GPUs at hand.
    """
    if name != AUTO:
        return Choice(name, load_recipe(name), "asked for by name")
    chosen, reason = _fitting(n_vectors, dim, memory_bytes, n_gpus)
    return Choice(chosen, load_recipe(chosen), reason)


def _fitting(n: int, dim: int, memory_bytes: int, n_gpus: int) -> tuple[str, str]:
    full = n * dim * _FLOAT_BYTES
    size = f"{n:,} vectors of {dim} numbers take {full / 1e9:.2f} GB"
    room = f"{memory_bytes / 1e9:.2f} GB are at hand"
    where = f"{n_gpus} GPU" if n_gpus else "CPU"
    if full <= memory_bytes // 2 and n <= FLAT_LIMIT:
        return "flat", f"{size}, {room}: every vector can be looked at on the {where}"
    if full <= memory_bytes // 2:
        return "ivf_flat", f"{size}, {room}, but more than {FLAT_LIMIT:,}: inverted lists"
    if full // 4 <= memory_bytes // 2:
        return "ivf_sq", f"{size}, {room}: one byte a number fits"
    if full // 16 <= memory_bytes // 2:
        return "ivf_pq", f"{size}, {room}: product quantisation fits"
    return "ivf_flat_mmap", f"{size}, {room}: inverted lists stay on disk"
