"""Vectors and indexes derived from the store for one version, and their way back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path, sha256_file
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.errors import ChecksumError, ConfigError, explain
from stretrieve.indexes import (
    ExactIndex,
    Metric,
    Recipe,
    VectorIndex,
    choose_recipe,
    make_index,
    read_index,
)
from stretrieve.indexes.base import Vectors
from stretrieve.indexes.recall import measure_index
from stretrieve.indexes.recipes import Choice
from stretrieve.reference.layout import delete
from stretrieve.reference.manifest import IndexEntry
from stretrieve.reference.rows import FILE as SPOTS_FILE
from stretrieve.reference.rows import (
    SpotTable,
    checked_vectors,
    map_spots,
    read_spots,
    write_spots,
    write_vectors,
)
from stretrieve.store import SpotStore
from stretrieve.store.schema import embedding_column

MODALITIES: Mapping[str, str] = {
    "image": keys.IMAGE_EMBEDDING,
    "expression": keys.EXPRESSION_EMBEDDING,
}
_OWN = ("",)
METRIC = Metric.COSINE
RECALL_K = 50
_RECALL_QUERIES = 200


@dataclass(frozen=True)
class Searcher:
    """One modality, ready to be searched.

    Parameters
    ----------
    vectors
        ``(n_spots, dim)`` stored embeddings in canonical order.
    index
        Search structure over them.
    """

    vectors: Vectors
    index: VectorIndex


def modality_column(modality: str) -> str:
    """Return the embedding column of a modality.

    Raises
    ------
    ConfigError
        When there is no such modality.
    """
    if modality not in MODALITIES:
        raise ConfigError(
            explain("modality", got=repr(modality), expected=f"one of {', '.join(MODALITIES)}")
        )
    return MODALITIES[modality]


def index_name(modality: str, label: str = "") -> str:
    """Return the name of a modality's index in the manifest and of its files."""
    return f"{modality}.{label}" if label else modality


def index_columns(labels: Iterable[str] = ()) -> dict[str, str]:
    """Return the embedding column of every index of a reference, by its name.

    Parameters
    ----------
    labels
        Further embedders.
    """
    return {
        index_name(modality, label): embedding_column(column, label)
        for label in (*_OWN, *sorted(labels))
        for modality, column in MODALITIES.items()
    }


@dataclass(frozen=True)
class Derived:
    """What the manifest says about derived files.

    Parameters
    ----------
    spots_sha256
        SHA-256 of the file of spots in canonical order.
    indexes
        Files of each modality.
    """

    spots_sha256: str
    indexes: Mapping[str, IndexEntry]


def derive(
    store: SpotStore,
    folder: Path,
    *,
    recipe: str,
    labels: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Derived:
    """Write spots, vectors and indexes into a folder that appears in one step.

    Parameters
    ----------
    store
        Where the vectors come from.
    folder
        The new folder; one that is there already is replaced.
    recipe
        Name of the index recipe, or ``"auto"``.
    labels
        Further embedders.
    progress
        Told of every modality.

    Raises
    ------
    ConfigError
        When an index has less recall than its recipe promises.
    """
    if folder.is_dir():
        delete(folder)
    entries: dict[str, IndexEntry] = {}
    columns = index_columns(labels)
    with (
        atomic_path(folder) as temporary,
        progress.task("building indexes", len(columns)) as task,
    ):
        temporary.mkdir()
        crash_point("write spots")
        spots_sha256 = write_spots(read_spots(store), temporary / SPOTS_FILE)
        spots = map_spots(temporary / SPOTS_FILE, spots_sha256)
        for name, column in columns.items():
            crash_point(f"write vectors {name}")
            write_vectors(store, spots, column, temporary / f"{name}.npy")
        for name in columns:
            crash_point(f"build index {name}")
            entries[name] = _derive_one(temporary, name, recipe)
            task.advance()
        crash_point(f"publish {folder.name}")
    return Derived(spots_sha256, entries)


def _derive_one(folder: Path, name: str, recipe: str) -> IndexEntry:
    """Build and try one index; it is asked for neighbours of image vectors, as a query asks."""
    path = folder / f"{name}.npy"
    label = name.partition(".")[2]
    images = np.load(folder / f"{index_name('image', label)}.npy", mmap_mode="r")
    picked = np.linspace(0, len(images) - 1, min(_RECALL_QUERIES, len(images))).astype(np.int64)
    queries = np.array(images[picked])
    vectors: Vectors = np.load(path, mmap_mode="r")
    choice = choose_recipe(
        recipe, n_vectors=len(vectors), dim=vectors.shape[1], memory_bytes=memory_bytes()
    )
    file = folder / f"{name}.faiss"
    index, index_sha256 = make_index(file, vectors, choice.recipe, metric=METRIC)
    measured = measure_index(index, vectors, queries, k=min(RECALL_K, len(vectors)))
    _check_floor(choice, measured.recall, name)
    return IndexEntry(
        recipe=choice.name,
        settings=settings_to_dict(choice.recipe),
        reason=choice.reason,
        vectors_sha256=sha256_file(path),
        index_sha256=index_sha256,
        recall=measured.recall,
        queries_per_second=measured.queries_per_second,
        recall_k=measured.k,
    )


def _check_floor(choice: Choice, recall: float, modality: str) -> None:
    if recall < choice.recipe.recall_floor:
        raise ConfigError(
            explain(
                f"{modality} index {choice.name!r}",
                got=f"recall {recall:.3f} against the exact index",
                expected=f"{choice.recipe.recall_floor:g} or more",
                remedy="use the recipe 'flat', or one with a larger nprobe or refine",
            )
        )


def load_searcher(folder: Path, modality: str, entry: IndexEntry) -> Searcher:
    """Open one modality's derived files, each only after its checksum.

    Raises
    ------
    ChecksumError
        When a file is missing or is not what the manifest says.
    """
    vectors = load_vectors(folder, modality, entry)
    recipe = settings_from_dict(Recipe, entry.settings)
    if not entry.index_sha256:
        return Searcher(vectors, ExactIndex(vectors, metric=METRIC))
    path = folder / f"{modality}.faiss"
    if not path.is_file():
        raise _missing(path)
    return Searcher(
        vectors, read_index(path, vectors, recipe, metric=METRIC, sha256=entry.index_sha256)
    )


def load_vectors(folder: Path, modality: str, entry: IndexEntry) -> Vectors:
    """Memory-map the vectors ``(n_spots, dim)`` of one modality, after their checksum.

    Raises
    ------
    ChecksumError
        When the file is missing or is not what the manifest says.
    """
    path = folder / f"{modality}.npy"
    if not path.is_file():
        raise _missing(path)
    if sha256_file(path) != entry.vectors_sha256:
        raise ChecksumError(
            explain(
                f"derived file {path.name}",
                got="a file that fails its checksum",
                remedy="run `stretrieve ref rebuild-indexes`",
            )
        )
    vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors


def exact_searcher(store: SpotStore, spots: SpotTable, column: str) -> Searcher:
    """Read one embedding column from the store and search it without an index."""
    vectors = checked_vectors(store, spots, column)
    return Searcher(vectors, ExactIndex(vectors, metric=METRIC))


def memory_bytes() -> int:
    """Return the physical memory of the machine."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def _missing(path: Path) -> ChecksumError:
    return ChecksumError(
        explain(
            f"derived file {path.name}",
            got="no such file",
            remedy="run `stretrieve ref rebuild-indexes`",
        )
    )
