"""The compiled moments against matrix products, and what a machine may do to them."""

import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stretrieve.query.impute import StoredRows, WeightMatrix, impute


def by_products(weights, values, measured, offsets):
    """Moments by plain matrix products in float64; mask and offsets have one row a spot."""
    values = np.where(measured, values - offsets, 0.0)
    total, squares = weights @ measured.astype(float), weights.power(2) @ measured.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights @ values) / total
        spread = np.sqrt(np.maximum((weights @ values**2) / total - mean**2, 0))
        return mean, spread, np.where(total > 0, total**2 / squares, 0.0), total


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_spots, n_genes = draw(st.integers(1, 30)), draw(st.sampled_from([1, 3, 511, 513, 1100]))
    k, n_query = draw(st.integers(1, n_spots)), draw(st.integers(1, 5))
    indices = np.stack([rng.permutation(n_spots)[:k] for _ in range(n_query)])
    weights = rng.dirichlet(np.ones(k), size=n_query)
    indices[rng.random(indices.shape) < 0.2] = -1
    values = rng.gamma(1.0, size=(n_spots, n_genes)) * (rng.random((n_spots, n_genes)) < 0.3)
    values[rng.random(n_spots) < 0.2] = 0
    groups = rng.integers(0, 3, n_spots)
    measured = rng.random((3, n_genes)) < draw(st.sampled_from([0.5, 1.0]))
    offsets = rng.normal(size=(3, n_genes)) * measured if draw(st.booleans()) else None
    values[~measured[groups]] = 0
    return indices, weights, values, groups, measured, offsets


@given(cases(), st.sampled_from([np.float32, np.float64]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_moments_are_those_of_matrix_products(case, dtype, stored):
    indices, weights, values, groups, measured, offsets = case
    values = values.astype(dtype)
    matrix = WeightMatrix.build(indices, weights)
    group = groups[matrix.used]
    expression = sparse.csr_matrix(values[matrix.used]) if stored else values[matrix.used]
    found = impute(
        matrix.matrix, expression, measured=measured, offsets=offsets, groups=group
    )  # fmt: skip
    shift = np.zeros(measured.shape) if offsets is None else offsets
    expected = by_products(
        matrix.matrix, values[matrix.used].astype(float), measured[group], shift[group]
    )
    names = ("mean", "spread", "n_effective", "coverage")
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), array, rtol=1e-9, atol=2e-7, err_msg=name)
    alone = impute(
        matrix.matrix, expression, measured=measured, offsets=offsets, groups=group, spread=False
    )
    assert alone.spread.shape == (len(indices), 0)
    for name in ("mean", "n_effective", "coverage"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(found, name), err_msg=name)


def sparse_case(seed=0, n_spots=40, n_genes=5000, n_query=70, k=9):
    rng = np.random.default_rng(seed)
    values = sparse.random(n_spots, n_genes, 0.3, "csr", np.float32, random_state=seed)
    indices = np.stack([rng.permutation(n_spots)[:k] for _ in range(n_query)])
    return values, indices, rng.dirichlet(np.ones(k), size=n_query), rng


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("wide", [np.int32, np.int64])
def test_values_and_columns_of_any_kind(dtype, wide):
    """Rows of 0 to 270 entries: eight at a time, in parts of 128, and what is left."""
    rng = np.random.default_rng(0)
    values = np.zeros((141, 300))
    for n, row in enumerate(values):
        row[rng.permutation(300)[: 270 * n // 140]] = rng.integers(1, 9, 270 * n // 140)
    stored = sparse.csr_matrix(values.astype(dtype))
    stored.indices, stored.indptr = stored.indices.astype(wide), stored.indptr.astype(wide)
    weights = sparse.csr_matrix(rng.dirichlet(np.ones(141), size=4))
    found = impute(weights, stored)
    values = values.astype(dtype).astype(float)
    np.testing.assert_allclose(found.mean, weights @ values, rtol=1e-12)
    np.testing.assert_allclose(
        found.spread**2, weights @ values**2 - (weights @ values) ** 2, rtol=1e-9
    )


@pytest.fixture
def eager_threads(monkeypatch):
    module = sys.modules["stretrieve.query.impute"]  # a function of its name hides it
    monkeypatch.setattr(module, "_VALUES_PER_THREAD", 1)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_threads_batches_and_blocks_of_genes_change_no_bit(
    dense, masked, monkeypatch, eager_threads
):
    values, indices, weights, rng = sparse_case()
    values = values.toarray() if dense else values
    measured = rng.random((1, 5000)) < 0.5 if masked else None

    def averaged(rows=slice(None), genes=slice(0, 5000)):
        matrix = WeightMatrix.build(indices[rows], weights[rows])
        return impute(
            matrix.matrix,
            StoredRows.of(values, matrix.used, genes),
            measured=None if measured is None else measured[:, genes],
            groups=np.zeros(len(matrix.used), np.int64),
        )

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = averaged()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    for rows, genes in (
        (slice(None), slice(0, 5000)), (slice(3, 20), slice(0, 5000)),
        (slice(None), slice(17, 900)), (slice(69, 70), slice(4090, 5000)),
    ):  # fmt: skip
        part = averaged(rows, genes)
        for name in ("mean", "spread", "n_effective", "coverage"):
            np.testing.assert_array_equal(getattr(part, name), getattr(one, name)[rows, genes])


def test_unsorted_and_repeated_entries_are_put_in_order():
    values = sparse.csr_matrix(
        (np.float32([1, 2, 4]), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3)
    )
    matrix = WeightMatrix.build(np.array([[0]]), np.array([[1.0]]))
    assert impute(matrix.matrix, values).mean.tolist() == [[2, 0, 5]]
    assert values.data.tolist() == [1, 2, 4]


def in_child(send):
    values, indices, weights, _ = sparse_case()
    matrix = WeightMatrix.build(indices, weights)
    send.send(impute(matrix.matrix, values[matrix.used]).mean)


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_children_of_a_process_that_used_threads_can_average(start, monkeypatch, eager_threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    values, indices, weights, _ = sparse_case()
    matrix = WeightMatrix.build(indices, weights)
    expected = impute(matrix.matrix, values[matrix.used]).mean
    context = multiprocessing.get_context(start)
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=in_child, args=(send,))
    child.start()
    assert receive.poll(120)
    np.testing.assert_array_equal(receive.recv(), expected)
    child.join()


def test_nothing_has_to_be_kept_on_disk(tmp_path):
    """Neither the folder of the module nor that of the user can be written."""
    code = (
        "from numba.core.caching import _CacheLocator\n"
        "import numba.core.caching as caching\n"
        "def refuse(self): raise OSError('read-only')\n"
        "for name in ('_InTreeCacheLocator', '_UserWideCacheLocator', '_ZipCacheLocator'):\n"
        "    if hasattr(caching, name): getattr(caching, name).ensure_cache_path = refuse\n"
        "from stretrieve._compiled import compiled\n"
        "import stretrieve._compiled as module\n"
        "def twice(x): return 2 * x\n"
        "twice.__code__ = twice.__code__.replace(co_filename=module.__file__)\n"
        "print(compiled(twice)(21))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "42"


def test_a_panel_wider_than_a_block_is_averaged_in_parts():
    values, indices, weights, _ = sparse_case(n_genes=70_000, n_query=2)
    matrix = WeightMatrix.build(indices, weights)
    found = impute(matrix.matrix, values[matrix.used])
    np.testing.assert_allclose(found.mean, (matrix.matrix @ values[matrix.used]).toarray())
