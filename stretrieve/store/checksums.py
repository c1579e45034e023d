"""Checksums of rows and columns, so that whatever is read back is what was written."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(values: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """Spread integers over 64 bits (the finaliser of SplitMix64)."""
    z = (values.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def counts_checksum(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], counts: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint64]:
    """Return one checksum a row ``(n_spots,)`` of sparse counts, the same in any order of entries.

    Parameters
    ----------
    indptr
        ``(n_spots + 1,)`` row boundaries.
    indices, counts
        ``(nnz,)`` gene indices and counts.
    """
    mixed = _mix(indices)
    terms = (mixed | np.uint64(1)) * counts.astype(np.uint64) + (mixed >> np.uint64(7))
    total = np.zeros(len(terms) + 1, dtype=np.uint64)
    np.cumsum(terms, out=total[1:])
    return np.asarray(total[indptr[1:]] - total[indptr[:-1]], dtype=np.uint64)


def crc32(blobs: Iterable[bytes]) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each blob."""
    return np.fromiter((zlib.crc32(blob) for blob in blobs), dtype=np.uint32)


def digest_array(values: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of an array's values in row order, little-endian."""
    little = np.ascontiguousarray(values)
    if little.dtype.byteorder == ">":
        little = little.astype(little.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()


def digest_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts, each ended by a line feed."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()


def digest_blobs(blobs: Sequence[bytes]) -> str:
    """Return the SHA-256 of blobs, each preceded by its length."""
    digest = hashlib.sha256()
    for blob in blobs:
        digest.update(len(blob).to_bytes(8, "little"))
        digest.update(blob)
    return digest.hexdigest()


def digest_counts(counts: sparse.csr_matrix, genes: Sequence[str]) -> str:
    """Return the SHA-256 of raw counts, independent of how genes are numbered.

    Parameters
    ----------
    counts
        ``(n_spots, n_genes)`` raw counts.
    genes
        ``(n_genes,)`` gene keys of the columns: those that the section measures.
    """
    order = np.argsort(np.asarray(genes, dtype=np.str_), kind="stable")
    rank = np.empty(len(genes), dtype=np.int32)
    rank[order] = np.arange(len(genes), dtype=np.int32)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    ranks = rank[counts.indices]
    by_rank = np.lexsort((ranks, rows))
    parts = (
        digest_texts(genes[int(i)] for i in order),
        digest_array(np.diff(counts.indptr).astype("<i8")),
        digest_array(ranks[by_rank].astype("<i4")),
        digest_array(counts.data[by_rank].astype("<i4")),
    )
    return digest_texts(parts)
