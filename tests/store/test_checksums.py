import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stretrieve.store import checksums
from stretrieve.store.checksums import counts_checksum, digest_counts

_ROWS = st.lists(
    st.dictionaries(st.integers(0, 40_000), st.integers(1, 2**31 - 1), max_size=6),
    min_size=1,
    max_size=5,
)


def _arrays(rows):
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    indices = np.array([i for row in rows for i in row], dtype=np.int32)
    counts = np.array([c for row in rows for c in row.values()], dtype=np.int32)
    return indptr, indices, counts


@settings(max_examples=80, deadline=None)
@given(_ROWS, st.data())
def test_any_flipped_bit_changes_the_row_and_only_it(rows, data):
    indptr, indices, counts = _arrays(rows)
    before = counts_checksum(indptr, indices, counts)
    if not len(indices):
        assert (before == 0).all()
        return
    place = data.draw(st.integers(0, len(indices) - 1))
    flip = np.int32(1 << data.draw(st.integers(0, 30)))
    target = data.draw(st.sampled_from([indices, counts]))
    target[place] ^= flip
    after = counts_checksum(indptr, indices, counts)
    row = int(np.searchsorted(indptr, place, side="right")) - 1
    assert list(np.flatnonzero(before != after)) == [row]


def test_the_order_of_entries_does_not_matter():
    indptr = np.array([0, 3])
    a = counts_checksum(indptr, np.array([5, 1, 9], np.int32), np.array([1, 2, 3], np.int32))
    b = counts_checksum(indptr, np.array([9, 5, 1], np.int32), np.array([3, 1, 2], np.int32))
    c = counts_checksum(indptr, np.array([9, 5, 1], np.int32), np.array([1, 3, 2], np.int32))
    assert a == b
    assert a != c


@settings(max_examples=40, deadline=None)
@given(_ROWS, st.integers(1, 8))
def test_the_size_of_the_pieces_does_not_matter(rows, entries):
    arrays = _arrays(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "_CHUNK_ENTRIES", entries)
        in_pieces = counts_checksum(*arrays)
    np.testing.assert_array_equal(in_pieces, counts_checksum(*arrays))


def test_counts_are_digested_by_gene_name():
    counts = sparse.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], dtype=np.int32))
    swapped = sparse.csr_matrix(np.array([[2, 1, 0], [0, 0, 3]], dtype=np.int32))
    assert digest_counts(counts, ["a", "b", "c"]) == digest_counts(swapped, ["c", "a", "b"])
    assert digest_counts(counts, ["a", "b", "c"]) != digest_counts(counts, ["a", "b", "d"])
