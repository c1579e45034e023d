"""Writing index files without holding the vectors in memory: the same bytes as FAISS writes.

FAISS can search a flat index and inverted lists of full vectors straight from a memory-mapped file, but
builds them in memory. Both files are a header, which FAISS itself provides for an index without vectors,
and then the vectors: block after block for a flat index, list after list for an inverted one.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path, sha256_file
from stretrieve.indexes.base import Vectors
from stretrieve.indexes.recipes import IndexKind, Recipe
from stretrieve.indexes.rescore import ExactScorer
from stretrieve.indexes.train import faiss_metric, train_lists, unit_blocks

_NUMBER_OF_VECTORS = slice(8, 16)
_LISTS = b"ilar"
_GROUP_BYTES = 4 << 20


def can_stream(recipe: Recipe) -> bool:
    """Whether the recipe's index is written, and read, without holding its vectors in memory."""
    return recipe.kind is IndexKind.FLAT or recipe.memory_mapped


def write_index_file(path: Path, scorer: ExactScorer, recipe: Recipe) -> str:
    """Write the index of a recipe that :func:`can_stream` and return the file's SHA-256.

    Parameters
    ----------
    path
        The new file.
    scorer
        The stored vectors, memory-mapped perhaps, and their metric.
    recipe
        Settings.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if recipe.kind is IndexKind.FLAT:
            _write_flat(stream, scorer)
        else:
            _write_lists(stream, scorer, recipe)
    return sha256_file(path)


def _write_flat(stream: IO[bytes], scorer: ExactScorer) -> None:
    import faiss

    n, dim = scorer.vectors.shape
    header = _header(faiss.IndexFlat(dim, faiss_metric(scorer.metric)), n)
    stream.write(header[:-8] + struct.pack("<Q", n * dim))
    for block in unit_blocks(scorer):
        stream.write(np.ascontiguousarray(block).data)


def _write_lists(stream: IO[bytes], scorer: ExactScorer, recipe: Recipe) -> None:
    index = train_lists(scorer, recipe)
    assigned = np.concatenate([_assign(index, block) for block in unit_blocks(scorer)])
    header = _header(index, len(scorer.vectors))
    stream.write(header[: header.rindex(_LISTS)])
    sizes = np.bincount(assigned, minlength=index.nlist).astype("<u8")
    stream.write(_LISTS + struct.pack("<QQ", index.nlist, index.code_size) + _sizes(sizes))
    order = np.argsort(assigned, kind="stable").astype("<i8")
    ends = np.cumsum(sizes.astype(np.int64))
    for first, last in _groups(sizes, index.code_size):
        start = int(ends[first] - sizes[first])
        ids = order[start : int(ends[last - 1])]
        vectors = scorer.for_search(np.ascontiguousarray(scorer.vectors[ids]))
        for number in range(first, last):
            part = slice(int(ends[number] - sizes[number]) - start, int(ends[number]) - start)
            stream.write(np.ascontiguousarray(vectors[part]).data)
            stream.write(np.ascontiguousarray(ids[part]).data)


def _assign(index: Any, block: Vectors) -> npt.NDArray[np.int64]:
    return np.asarray(index.quantizer.assign(block, 1).ravel(), dtype=np.int64)


def _groups(sizes: npt.NDArray[np.uint64], code_size: int) -> list[tuple[int, int]]:
    """Return runs of lists that are read together."""
    filled = np.cumsum(sizes.astype(np.int64)) * code_size // _GROUP_BYTES
    starts = [0, *(np.flatnonzero(np.diff(filled)) + 1).tolist(), len(sizes)]
    return [(a, b) for a, b in itertools.pairwise(starts) if b > a]


def _sizes(sizes: npt.NDArray[np.uint64]) -> bytes:
    """Return how many vectors each list holds, as FAISS writes it: all, or those that hold any."""
    filled = np.flatnonzero(sizes)
    if len(filled) > len(sizes) // 2:
        return b"full" + struct.pack("<Q", len(sizes)) + sizes.tobytes()
    pairs = np.stack([filled.astype("<u8"), sizes[filled]], axis=1)
    return b"sprs" + struct.pack("<Q", pairs.size) + pairs.tobytes()


def _header(index: Any, n: int) -> bytes:
    """Return the file of an index without vectors, saying that it holds ``n``."""
    import faiss

    data = bytearray(faiss.serialize_index(index).tobytes())
    data[_NUMBER_OF_VECTORS] = struct.pack("<q", n)
    return bytes(data)
