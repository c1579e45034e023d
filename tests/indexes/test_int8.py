"""Exact search from products of 8-bit numbers, against the exact index, bit for bit."""

import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.indexes import ExactIndex, Metric, build_index, int8, load_recipe
from stretrieve.indexes import faiss as module
from stretrieve.indexes.rescore import ExactScorer
from stretrieve.testing.indexes import clustered_vectors, queries_near

made_for_it = pytest.mark.skipif(
    not int8.is_supported(), reason="the processor has no AVX-512 VNNI"
)


@pytest.fixture
def eager(monkeypatch):
    """8-bit numbers for every search by cosine, in small blocks and groups; counts the searches."""
    calls = []
    search = module.search_from_int8
    monkeypatch.setattr(module, "pays", lambda scorer, *_: scorer.metric is Metric.COSINE)
    monkeypatch.setattr(
        module, "search_from_int8", lambda *a, **b: calls.append(1) or search(*a, **b)
    )
    sizes = (("_AT_ONCE", 20_000), ("_HELD", 17 * 228), ("_HELD_LONG", 19 * 228),
             ("_QUERIES_PER_THREAD", 8), ("_PANELS_PER_THREAD", 1))  # fmt: skip
    for name, value in sizes:
        monkeypatch.setattr(int8, name, value)
    return calls


def spread_vectors(seed, n=900, dim=100):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def close_vectors():
    """A hundred and fifty of them with cosines from 1 to 0.98, closer than 8 bits tell."""
    vectors, query = spread_vectors(6), spread_vectors(6)[:3]
    apart = 0.2 * np.sqrt(np.linspace(0, 1, 150, dtype=np.float32))[:, None]
    vectors[:150] = query[0] + apart * spread_vectors(7)[:150]
    return vectors, query


def one_large(vectors, query):
    """Numbers that leave few steps to all others, in some."""
    vectors[::7, 3] = query[::5, 8] = 30
    return vectors, query


def opposite(vectors):
    return -np.abs(vectors), np.abs(vectors[:40])


CASES = {
    "spread": lambda: (spread_vectors(0), spread_vectors(1, n=40)),
    "clustered": lambda: (clustered_vectors(), queries_near(clustered_vectors())),
    "close": close_vectors,
    "opposite": lambda: opposite(spread_vectors(2)),
    "equal": lambda: (np.ones((900, 64), np.float32), np.ones((3, 64), np.float32)),
    "tiny and huge": lambda: (
        spread_vectors(3) * np.logspace(-15, 15, 900, dtype=np.float32)[:, None],
        spread_vectors(4, n=20) * np.float32(1e-12),
    ),
    "odd widths": lambda: (spread_vectors(8, n=901, dim=67), spread_vectors(9, n=41, dim=67)),
    "one large number": lambda: one_large(spread_vectors(8), spread_vectors(9, n=40)),
    "far from 0": lambda: (spread_vectors(8) + 9, spread_vectors(9, n=40) + 9),
    "null": lambda: (np.vstack([spread_vectors(5), np.zeros((70, 100), np.float32)]),
                     np.zeros((4, 100), np.float32)),
}  # fmt: skip


@made_for_it
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("share", [None, 0.02, 0.4])
@pytest.mark.parametrize(("threads", "blocks"), [(1, "many"), (3, "many"), (3, "one")])
def test_neighbours_are_those_of_the_exact_index(eager, monkeypatch, case, share, threads, blocks):
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    if blocks == "one":
        monkeypatch.setattr(int8, "_AT_ONCE", 1 << 20)
    vectors, query = CASES[case]()
    allowed = None if share is None else np.random.default_rng(7).random(len(vectors)) < share
    index = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    found = index.search(query, 10, allowed=allowed)
    expected = ExactIndex(vectors, metric=Metric.COSINE).search(query, 10, allowed=allowed)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert bool(eager) == (share is None or share >= module.NARROW)


@made_for_it
@pytest.mark.parametrize(("blocks", "rounded"), [("one", 4), ("many", None)])
def test_vectors_are_rounded_anew_only_when_others_are_allowed(eager, monkeypatch, blocks, rounded):
    calls, pack = [], int8._packed
    monkeypatch.setattr(int8, "_packed", lambda *a: calls.append(1) or pack(*a))
    if blocks == "one":
        monkeypatch.setattr(int8, "_AT_ONCE", 1 << 20)
    vectors, query = CASES["spread"]()
    index = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    exact = ExactIndex(vectors, metric=Metric.COSINE)
    allowed = np.arange(len(vectors)) % 3 > 0
    for step, mask in enumerate([None, None, allowed, allowed.copy(), allowed, None]):
        if step == 4:
            allowed[:300] = True  # the array that was given before
        found, expected = (i.search(query, 10, allowed=mask) for i in (index, exact))
        np.testing.assert_array_equal(found.indices, expected.indices)
    assert len(eager) == 6
    assert rounded is None or len(calls) == rounded


@made_for_it
def test_queries_with_too_many_candidates_do_not_take_the_others_with_them(monkeypatch):
    vectors = np.vstack([spread_vectors(0), np.ones((600, 100), np.float32)])
    kept, _ = kept_of(vectors, np.vstack([vectors[-3:], vectors[:2] - 1]), 10)
    assert kept.counts[:3].tolist() == [-1] * 3
    assert (kept.counts[3:5] >= 10).all()
    monkeypatch.setattr(int8, "_AT_ONCE", 20_000)  # several blocks: the others are not worth it
    kept, _ = kept_of(vectors, np.vstack([vectors[-3:], vectors[:2] - 1]), 10)
    assert (kept.counts == -1).all()


@made_for_it
def test_after_a_group_with_too_many_candidates_no_other_is_tried(eager, monkeypatch):
    tried, search = [], int8._search
    monkeypatch.setattr(int8, "_search", lambda *args: tried.append(1) or search(*args))
    vectors, query = np.ones((900, 64), np.float32), spread_vectors(0, n=100, dim=64)
    found = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE).search(query, 10)
    assert eager
    assert len(tried) == 1
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(10), (100, 1)))


@made_for_it
@pytest.mark.parametrize("threads", [1, 100])
def test_groups_of_queries_are_even_and_large_enough_for_every_thread(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    groups = list(int8._groups(1700, 50, is_one_block=True))
    assert [group.stop for group in groups[:-1]] == [group.start for group in groups[1:]]
    assert groups[0].start == 0
    assert groups[-1].stop == 1700
    assert [group.stop - group.start for group in groups] == [[850, 850], [1700]][threads > 1]


@made_for_it
def test_only_cosines_start_in_int8(eager):
    vectors = spread_vectors(0)
    for metric in Metric:
        build_index(vectors, load_recipe("flat"), metric=metric).search(vectors[:20], 5)
    assert len(eager) == 1


def kept_of(vectors, query, k, mask=None):
    from stretrieve.indexes import rounded

    scorer = ExactScorer(vectors, Metric.COSINE)
    stored, wide = int8.RoundedBlocks(scorer, mask), -(-query.shape[1] // 4) * 4
    queries = rounded.pack_queries(scorer.for_search(query), stored.centre, wide)
    return int8.keep_candidates(stored, queries, k), stored.centre


@made_for_it
@given(seed=st.integers(0, 10_000), k=st.integers(1, 60), spread=st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_candidates_hold_the_nearest_or_are_given_up(seed, k, spread):
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=80) + spread * rng.normal(size=(700, 80))).astype(np.float32)
    query = (rng.normal(size=80) + spread * rng.normal(size=(5, 80))).astype(np.float32)
    kept, _ = kept_of(vectors, query, k)
    nearest = ExactIndex(vectors, metric=Metric.COSINE).search(query, k).indices
    for row, expected in enumerate(nearest):
        found = kept.positions[row, : max(kept.counts[row], 0)]
        assert kept.counts[row] == -1 or np.isin(expected, found).all()
        assert len(np.unique(found)) == len(found)
    assert not kept.counts[5:].any()  # rows that fill up the last four


@made_for_it
def test_spread_vectors_leave_few_candidates():
    kept, _ = kept_of(spread_vectors(0, n=20_000, dim=256), spread_vectors(1, n=48, dim=256), 50)
    assert 50 <= kept.counts.min() <= kept.counts.max() < 420


@made_for_it
def test_what_is_shared_by_all_costs_few_candidates(monkeypatch):
    vectors, query = spread_vectors(0, n=5000, dim=256) + 1, spread_vectors(1, n=48, dim=256) + 1
    centred, _ = kept_of(vectors, query, 50)
    monkeypatch.setattr(int8, "_centre", lambda scorer: np.zeros(256, np.float32))
    plain, _ = kept_of(vectors, query, 50)
    assert centred.counts.min() >= 50
    assert centred.counts.mean() < 0.8 * np.where(plain.counts < 0, 628, plain.counts).mean()


@made_for_it
@pytest.mark.parametrize("dim", [64, 67, 256])
@pytest.mark.parametrize("scale", ["plain", "one large"])
def test_products_lie_within_their_bounds(dim, scale):
    vectors, query = spread_vectors(2, n=100, dim=dim), spread_vectors(3, n=8, dim=dim)
    if scale == "one large":
        vectors, query = one_large(vectors, query)
    kept, centre = kept_of(vectors, query, 100)
    assert (kept.counts == 100).all()
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (query.astype(float), vectors)]
    true = unit[0] @ (unit[1] - centre).T
    true = np.take_along_axis(true, kept.positions[:, :100], axis=1)
    assert (kept.lowest[:, :100] <= true).all()
    assert (true <= kept.highest[:, :100]).all()


@made_for_it
def test_bounds_are_no_wider_than_needed():
    """A query in the direction of what a vector lost by rounding is off by all of it."""
    vectors = spread_vectors(4, n=64, dim=128)
    scorer = ExactScorer(vectors, Metric.COSINE)
    centre = int8._centre(scorer)
    moved = vectors * scorer.inverse_norms[:, None] - centre
    steps = np.abs(moved).max(axis=1, keepdims=True) / 127
    lost = moved - np.rint(moved / steps) * steps
    kept, _ = kept_of(vectors, lost.astype(np.float32), 64)
    shares = []
    for row in range(64):
        place = np.flatnonzero(kept.positions[row, :64] == row)[0]
        true = lost[row] / np.linalg.norm(lost[row]) @ moved[row]
        high, low = kept.highest[row, place], kept.lowest[row, place]
        shares.append(2 * abs(true - (high + low) / 2) / (high - low))
    assert 0.4 < np.median(shares) < np.max(shares) <= 1


@made_for_it
@given(seed=st.integers(0, 1000), words=st.integers(1, 40), extreme=st.booleans())
@settings(max_examples=30, deadline=None)
def test_products_are_those_of_whole_numbers(seed, words, extreme):
    from numba import njit

    from stretrieve.indexes.products import multiply

    rng = np.random.default_rng(seed)
    stored = rng.choice([0, 255], (2, words, 64, 4)) if extreme else rng.integers(
        0, 256, (2, words, 64, 4))  # fmt: skip
    query = rng.choice([-127, 127], (8, words, 4)) if extreme else rng.integers(
        -127, 128, (8, words, 4))  # fmt: skip
    starts, tile = rng.integers(-99, 99, 8).astype(np.int32), np.empty((4, 64), np.int32)
    call = njit(lambda a, panel, b, first, c, d: multiply(a, panel, b, first, c, d))
    packed = stored.astype(np.uint8).view(np.uint32)[..., 0]
    call(packed, 1, query.astype(np.int8).view(np.uint32)[..., 0], 4, starts, tile)
    expected = np.einsum("qwt,wlt->ql", query[4:], stored[1]) + starts[4:, None]
    np.testing.assert_array_equal(tile, expected)


@given(seed=st.integers(0, 1000), n=st.integers(1, 300), far=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_kth_bound_is_reached_by_k(seed, n, far):
    from stretrieve.indexes.candidates import kth_bound

    rng = np.random.default_rng(seed)
    numbers = np.clip(rng.normal(0, rng.choice([1e-3, 0.1, 1]), n), -2, 2).astype(np.float32)
    k = int(rng.integers(1, n + 1))
    low = np.float32(-8 if far else np.sort(numbers)[::-1][k - 1] - 1e-4)
    bound, true = kth_bound(numbers, k, low), np.sort(numbers)[::-1][k - 1]
    assert (numbers >= bound).sum() >= k
    assert true - 4e-6 < bound <= true


def test_small_searches_stay_in_single_precision(monkeypatch):
    monkeypatch.setattr(int8, "is_supported", lambda: True)
    scorer = SimpleNamespace(vectors=np.empty((0, 256)), metric=Metric.COSINE)
    pays = partial(int8.pays, scorer)
    assert pays(5000, 50, 100_000)
    assert not pays(64, 50, 10_000_000)
    assert not pays(1000, 50, 1000)
    assert not pays(5000, 5000, 100_000)  # candidates of every query would take gigabytes
    narrow = SimpleNamespace(vectors=np.empty((0, 16)), metric=Metric.COSINE)
    assert not int8.pays(narrow, 9999, 50, 10**6)
    monkeypatch.setattr(int8, "is_supported", lambda: False)
    assert not pays(5000, 50, 100_000)


@pytest.mark.parametrize(
    ("features", "name", "supported"),
    [
        ("+avx2,+avx512vnni", None, True),
        ("+avx2,+avx512vnni", "generic", False),
        ("+avx2,-avx512vnni", None, False),  # also where Numba is told to leave AVX alone
    ],
)
def test_code_is_made_for_the_processor_that_numba_makes_it_for(
    monkeypatch, features, name, supported
):
    from numba import config
    from numba.core import codegen

    monkeypatch.setattr(codegen, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(config, "CPU_NAME", name)
    assert int8.is_supported.__wrapped__() is supported


def test_processors_whose_avx_numba_leaves_alone_search_otherwise():
    code = "from stretrieve.indexes import int8; print(int8.is_supported())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"NUMBA_ENABLE_AVX": "0"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


@made_for_it
def test_a_vector_of_hardly_any_length_takes_no_other_with_it(eager):
    vectors = spread_vectors(0, n=8200, dim=64)
    vectors[1], vectors[65] = 1e-40, 1e-44
    index = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    found = index.search(vectors[:128], 5)
    np.testing.assert_array_equal(np.delete(found.indices[:, 0] - np.arange(128), [1, 65]), 0)
    assert eager
