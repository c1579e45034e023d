"""Checksums of rows and columns, so that whatever is read back is what was written."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_TABLE_SIZE = 1 << 17
_CHUNK_ENTRIES = 1 << 17
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Spread integers over 64 bits (the finaliser of SplitMix64)."""
    z = (values.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def counts_checksum(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], counts: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint64]:
    """Return one checksum a row ``(n_spots,)`` of sparse counts, the same in any order of entries.

    It is the sum over a row's entries, modulo 2**64, of the count times an odd 64-bit number that
    belongs to the gene index; a change of one entry always changes it.

    Parameters
    ----------
    indptr
        ``(n_spots + 1,)`` row boundaries.
    indices, counts
        ``(nnz,)`` gene indices and counts.
    """
    sums = np.zeros(len(indptr) - 1, dtype=np.uint64)
    first = 0
    while first < len(sums):
        last = int(np.searchsorted(indptr, indptr[first] + _CHUNK_ENTRIES, side="right")) - 1
        last = max(last, first + 1)
        part = slice(indptr[first], indptr[last])
        terms = counts[part].astype(np.uint64)
        terms *= _weights(indices[part])
        starts = indptr[first:last]
        filled = starts < indptr[first + 1 : last + 1]
        if filled.any():
            added = np.add.reduceat(terms, starts[filled] - indptr[first])
            sums[first:last][filled] = added
        first = last
    return sums


@functools.cache
def _weight_table() -> npt.NDArray[np.uint64]:
    return np.asarray(_mix(np.arange(_TABLE_SIZE)) | np.uint64(1))


def _weights(indices: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """Return the odd number of each entry's gene, from a table unless the indices are absurd."""
    if len(indices) and (indices.min() < 0 or indices.max() >= _TABLE_SIZE):
        return _mix(indices.astype(np.int64)) | np.uint64(1)
    return _weight_table()[indices]


def crc32(blobs: Iterable[bytes]) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of each blob."""
    return np.fromiter((zlib.crc32(blob) for blob in blobs), dtype=np.uint32)


def digest_array(values: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of an array's values in row order, little-endian."""
    little = np.ascontiguousarray(values)
    if little.dtype.byteorder == ">":
        little = little.astype(little.dtype.newbyteorder("<"))
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()


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
    ranked = sparse.csr_matrix(
        (counts.data, rank[counts.indices], counts.indptr), shape=counts.shape
    )
    if not ranked.has_sorted_indices:  # sorting in place would reach the caller's counts
        ranked = ranked.sorted_indices()
    parts = (
        digest_texts(genes[int(i)] for i in order),
        digest_array(np.diff(ranked.indptr).astype("<i8")),
        digest_array(ranked.indices.astype("<i4", copy=False)),
        digest_array(ranked.data.astype("<i4", copy=False)),
    )
    return digest_texts(parts)
