"""The policy for bad counts, names and joins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stretrieve.errors import SectionError
from stretrieve.spots import SheetRow, assemble
from stretrieve.spots.compressed import checked_csr
from stretrieve.spots.join import join_spots
from stretrieve.spots.lattice import ST_1K
from stretrieve.spots.raw import JoinPolicy, RawMatrix, RawSection, SpotTable
from stretrieve.spots.validate import check_names, clean_counts

from .layouts import st_grid


def raw(
    values: np.ndarray | None = None,
    *,
    names: list[str] | None = None,
    genes: list[str] | None = None,
) -> RawSection:
    array, xy, counts = st_grid()
    names = names or [f"s{i}" for i in range(len(array))]
    values = counts if values is None else values
    genes = genes or [f"g{i}" for i in range(values.shape[1])]
    matrix = RawMatrix(sparse.csr_matrix(values), names, genes, [""] * len(genes))
    spots = SpotTable(list(names), xy, array, np.ones(len(array), dtype=bool))
    return RawSection(matrix, spots, lattice=ST_1K)


ROW = SheetRow("s", counts=None, species="none")  # type: ignore[arg-type]


def test_a_good_section_passes_unchanged() -> None:
    section = assemble(raw(), ROW)
    np.testing.assert_array_equal(section.counts.toarray(), st_grid()[2])
    assert section.repairs == ()
    assert section.counts.dtype == np.int32


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "missing or infinite"),
        (np.inf, "infinite"),
        (-1.0, "negative"),
        (0.5, "not whole"),
        (3e9, "a count of"),
    ],
)
def test_values_that_are_no_counts_are_errors(value: float, words: str) -> None:
    values = st_grid()[2].astype(float)
    values[3, 1] = value
    with pytest.raises(SectionError, match=words):
        assemble(raw(values), ROW)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float32, np.float64, np.bool_])
def test_number_types(dtype: type) -> None:
    values = np.array([[0, 1], [1, 0]], dtype=dtype)
    np.testing.assert_array_equal(clean_counts("x", sparse.csr_matrix(values)).toarray(), values)


def test_stored_zeros_vanish() -> None:
    matrix = sparse.csr_matrix((np.array([0, 2]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert clean_counts("x", matrix).nnz == 1


def test_duplicate_barcodes_are_an_error() -> None:
    names = [f"s{i}" for i in range(len(st_grid()[0]))]
    names[5] = names[4]
    with pytest.raises(SectionError, match="'s4' twice"):
        assemble(raw(names=names), ROW)


def test_duplicate_genes_are_summed_and_counted() -> None:
    section = assemble(raw(genes=["a", "b", "a", "c"]), ROW)
    counts = st_grid()[2]
    assert section.gene_names == ["a", "b", "c"]
    np.testing.assert_array_equal(
        section.counts[:, 0].toarray().ravel(), counts[:, 0] + counts[:, 2]
    )
    assert section.repairs == ("1 duplicate genes summed",)


def test_empty_spots_are_dropped_and_counted_empty_genes_stay() -> None:
    values = st_grid()[2].copy()
    values[[2, 7]] = 0
    values[:, 3] = 0
    section = assemble(raw(values), ROW)
    assert section.n_spots == len(values) - 2
    assert section.n_genes == 4
    assert section.repairs == ("2 spots without any count dropped",)
    assert "s2" not in section.spot_ids


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_impossible_coordinates_are_errors(value: float) -> None:
    parts = raw()
    parts.spots.xy[0, 1] = value
    with pytest.raises(SectionError, match="positions of section"):
        assemble(parts, ROW)


def test_nothing_but_zeros_is_an_error() -> None:
    with pytest.raises(SectionError, match="zeros only"):
        assemble(raw(np.zeros_like(st_grid()[2])), ROW)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", "/abs", "a\x00b", "a\nb", "", "x" * 300, "a/../b"]
)
def test_names_that_look_like_paths_are_errors(name: str) -> None:
    names = [f"s{i}" for i in range(len(st_grid()[0]))]
    with pytest.raises(SectionError):
        assemble(raw(names=[name, *names[1:]]), ROW)
    with pytest.raises(SectionError):
        assemble(raw(genes=["a", "b", name, "c"]), ROW)


@pytest.mark.parametrize(
    "name", ["H2-K1", "Gt(ROSA)26Sor", "a/b", "FO538757.1", "10x13", "HLA-DRB1*15:01", "1..2"]
)
def test_odd_but_harmless_names_pass(name: str) -> None:
    check_names("gene", [name])


def table(names: list[str], under: list[bool]) -> SpotTable:
    zeros = np.zeros((len(names), 2))
    return SpotTable(names, zeros, zeros, np.array(under))


def matrix(names: list[str]) -> RawMatrix:
    return RawMatrix(sparse.csr_matrix(np.ones((len(names), 1))), names, ["g"], [""])


def test_join_follows_names_not_order() -> None:
    rows, spots, repairs = join_spots(
        "x", matrix(["b", "a"]), table(["a", "b"], [True, True]), JoinPolicy.STRICT
    )
    assert (rows.tolist(), spots.tolist(), repairs) == ([0, 1], [1, 0], ())


@pytest.mark.parametrize(
    ("policy", "lost", "unknown", "off", "good"),
    [
        (JoinPolicy.STRICT, 0, 0, 0, True),
        (JoinPolicy.STRICT, 1, 0, 0, False),
        (JoinPolicy.STRICT, 0, 1, 0, False),
        (JoinPolicy.STRICT, 0, 0, 1, False),
        (JoinPolicy.MATRIX_IS_RAW, 0, 5, 5, True),
        (JoinPolicy.MATRIX_IS_RAW, 1, 0, 0, False),
        (JoinPolicy.TOLERANT, 2, 2, 50, True),
        (JoinPolicy.TOLERANT, 3, 0, 0, False),
        (JoinPolicy.TOLERANT, 0, 3, 0, False),
        (JoinPolicy.TOLERANT_RAW, 2, 50, 50, True),
        (JoinPolicy.TOLERANT_RAW, 3, 0, 0, False),
    ],
)
def test_policies(policy: JoinPolicy, lost: int, unknown: int, off: int, good: bool) -> None:
    both = [f"b{i}" for i in range(20)]
    offs = [f"o{i}" for i in range(off)]
    spots = table(
        [*both, *(f"l{i}" for i in range(lost)), *offs], [True] * (20 + lost) + [False] * off
    )
    counts = matrix([*both, *(f"u{i}" for i in range(unknown)), *offs])
    if good:
        rows, _, repairs = join_spots("x", counts, spots, policy)
        assert len(rows) == 20
        assert len(repairs) == sum(n > 0 for n in (lost, unknown, off))
    else:
        with pytest.raises(SectionError, match="do not match"):
            join_spots("x", counts, spots, policy)


@pytest.mark.parametrize("policy", list(JoinPolicy))
def test_no_spot_in_common_is_an_error(policy: JoinPolicy) -> None:
    with pytest.raises(SectionError, match="0 in both"):
        join_spots("x", matrix(["a"]), table(["b"], [False]), policy)


@pytest.mark.parametrize(
    ("data", "indices", "indptr"),
    [
        ([1, 2], [0, 5], [0, 1, 2]),
        ([1, 2], [0, -1], [0, 1, 2]),
        ([1, 2], [0, 1], [0, 2, 1]),
        ([1, 2], [0, 1], [0, 1]),
        ([1, 2], [0, 1], [1, 1, 2]),
        ([1, 2], [0, 1], [0, 1, 3]),
        ([1], [0, 1], [0, 1, 2]),
        ([1, 2], [0.0, 1.0], [0, 1, 2]),
        ([1, 2], [1, 1], [0, 2, 2]),
    ],
)
def test_malformed_sparse_arrays_never_reach_scipy(
    data: list[int], indices: list[int], indptr: list[int]
) -> None:
    with pytest.raises(SectionError, match="sparse matrix"):
        checked_csr("x", data, indices, indptr, shape=(2, 2))
