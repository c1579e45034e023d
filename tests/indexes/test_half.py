"""Exact search from products in half precision, against the exact index, bit for bit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.indexes import ExactIndex, Metric, build_index, half, load_recipe, select
from stretrieve.indexes import faiss as module
from stretrieve.indexes.rescore import ExactScorer
from stretrieve.testing.indexes import clustered_vectors, queries_near


@pytest.fixture
def eager(monkeypatch):
    """Half precision for every search by cosine, in small blocks and groups; counts the searches."""
    calls = []
    search = module.search_from_half
    monkeypatch.setattr(module, "pays", lambda scorer, *_: scorer.metric is Metric.COSINE)
    monkeypatch.setattr(
        module, "search_from_half", lambda *a, **b: calls.append(1) or search(*a, **b)
    )
    for name, value in (("_ROWS", 200), ("_QUERIES", 7), ("_GROUP", 17), ("_LEAST_QUERIES", 8)):
        monkeypatch.setattr(half, name, value)
    return calls


def spread_vectors(seed, n=900, dim=100):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def close_vectors():
    """A hundred and fifty of them with cosines from 1 to 0.98, closer than half precision tells."""
    vectors, query = spread_vectors(6), spread_vectors(6)[:3]
    apart = 0.2 * np.sqrt(np.linspace(0, 1, 150, dtype=np.float32))[:, None]
    vectors[:150] = query[0] + apart * spread_vectors(7)[:150]
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
    "null": lambda: (np.vstack([spread_vectors(5), np.zeros((70, 100), np.float32)]),
                     np.zeros((4, 100), np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("share", [None, 0.02, 0.4])
@pytest.mark.parametrize("threads", [1, 3])
def test_neighbours_are_those_of_the_exact_index(eager, monkeypatch, case, share, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    vectors, query = CASES[case]()
    allowed = None if share is None else np.random.default_rng(7).random(len(vectors)) < share
    index = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    found = index.search(query, 10, allowed=allowed)
    expected = ExactIndex(vectors, metric=Metric.COSINE).search(query, 10, allowed=allowed)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert bool(eager) == (share is None or share >= module.NARROW)


def test_only_cosines_start_in_half(eager):
    vectors = spread_vectors(0)
    for metric in Metric:
        build_index(vectors, load_recipe("flat"), metric=metric).search(vectors[:20], 5)
    assert len(eager) == 1


@given(seed=st.integers(0, 10_000), k=st.integers(1, 60), spread=st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_candidates_hold_the_nearest_or_none(seed, k, spread):
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=80) + spread * rng.normal(size=(700, 80))).astype(np.float32)
    query = (rng.normal(size=80) + spread * rng.normal(size=(5, 80))).astype(np.float32)
    found = half.candidates(ExactScorer(vectors, Metric.COSINE), query, k, None)
    nearest = ExactIndex(vectors, metric=Metric.COSINE).search(query, k).indices
    for row, expected in zip(found, nearest, strict=True):
        assert row[0] == -1 or np.isin(expected, row).all()
        kept = row[row >= 0]
        assert len(np.unique(kept)) == len(kept)


def test_spread_vectors_leave_few_candidates():
    scorer = ExactScorer(spread_vectors(0, n=5000, dim=256), Metric.COSINE)
    found = half.candidates(scorer, spread_vectors(1, n=50, dim=256), 50, None)
    assert 50 <= (found >= 0).sum(axis=1).min() <= found.shape[1] < 130


def test_products_are_off_by_less_than_the_bound_and_not_by_much_less():
    """Equal numbers are rounded by equal shares, which add up."""
    worst = 0.0
    for dim in range(64, 400):
        vector = torch.full((1, dim), dim**-0.5)
        product = (vector.bfloat16() @ vector.bfloat16().T).float()
        error = abs(float(product) - 1)
        assert error <= half.largest_error(dim) + 2**-8
        worst = max(worst, abs(float((vector.bfloat16().double() ** 2).sum()) - 1))
    assert half.largest_error(64) / 2 < worst < half.largest_error(64)


def test_keys_are_in_the_order_of_numbers():
    numbers = np.r_[-np.inf, -np.logspace(20, -20, 50), 0.0, np.logspace(-20, 20, 50), np.inf]
    bits = torch.from_numpy(numbers.astype(np.float32)).bfloat16().view(torch.int16).numpy()
    keys = [select.key_of(one) for one in bits]
    assert keys == sorted(keys)
    assert [select.key_of(key) for key in keys] == list(bits)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_twice_the_error_could_bring_up_is_kept_and_little_more(sign):
    error, rounded = 0.01, 2**-7
    below = [0.0, 0.0, 0.0199, 2 * error + 0.6 * rounded, 2 * error + 4 * rounded, 0.3]
    numbers = torch.tensor([sign * 0.6 - one for one in below]).bfloat16()
    keys = [[select.key_of(one) for one in numbers.view(torch.int16).numpy()]]
    kept = select.Kept(
        np.arange(6)[None].copy(),
        np.array(keys, dtype=np.int16),
        np.array([6]),
        np.full(1, -32768, dtype=np.int16),
    )
    left = select.drop(kept, 0, 6, 2, np.float32(error))
    assert kept.positions[0, :left].tolist() == [0, 1, 2, 3]


@given(seed=st.integers(0, 1000), n=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_the_kth_key(seed, n):
    rng = np.random.default_rng(seed)
    keys = rng.integers(*rng.choice([(-5, 5), (-32768, 32768), (200, 300)]), n).astype(np.int16)
    k = int(rng.integers(1, n + 1))
    assert select._kth_key(keys, n, k) == np.sort(keys)[::-1][k - 1]


def test_threads_of_torch_are_left_as_they_were(eager, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    index = build_index(spread_vectors(0), load_recipe("flat"), metric=Metric.COSINE)
    index.search(spread_vectors(1, n=40), 5)
    with ThreadPoolExecutor(1) as new:
        after = torch.get_num_threads(), new.submit(torch.get_num_threads).result()
    torch.set_num_threads(before)
    assert eager
    assert after == (5, 5)


def test_small_searches_stay_in_single_precision(monkeypatch):
    monkeypatch.setattr(half, "is_fast", lambda: True)
    scorer = SimpleNamespace(vectors=np.empty((0, 256)), metric=Metric.COSINE)
    pays = partial(half.pays, scorer)
    assert pays(5000, 50, 100_000)
    assert not pays(64, 50, 10_000_000)
    assert not pays(1000, 50, 1000)
    assert not pays(5000, 5000, 100_000)  # candidates of every query would take gigabytes
    narrow = SimpleNamespace(vectors=np.empty((0, 16)), metric=Metric.COSINE)
    assert not half.pays(narrow, 9999, 50, 10**6)
    monkeypatch.setattr(half, "is_fast", lambda: False)
    assert not pays(5000, 50, 100_000)


def test_searches_at_once_leave_torch_its_threads():
    """The second would otherwise take the first one's single thread for what it has to restore."""
    inside, waiting, left = (threading.Event() for _ in range(3))

    def first():
        with half._threads_of_torch_kept():
            torch.set_num_threads(1)
            inside.set()
            waiting.wait(10)
            left.wait(0.2)
        left.set()

    def second():
        inside.wait(10)
        waiting.set()
        with half._threads_of_torch_kept():
            left.wait(10)

    before = torch.get_num_threads()
    torch.set_num_threads(5)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda work: work(), [first, second]))
    with ThreadPoolExecutor(1) as new:
        after = new.submit(torch.get_num_threads).result()
    torch.set_num_threads(before)
    assert after == 5


@pytest.mark.parametrize(("seconds", "fast"), [([0.3, 1.0], True), ([0.4, 1.0], False)])
def test_which_is_faster_is_measured(monkeypatch, seconds, fast):
    taken = iter(seconds)
    monkeypatch.setattr(half, "_shortest", lambda _: next(taken))
    assert half.is_fast.__wrapped__() is fast


def test_the_shortest_time_counts(monkeypatch):
    clock = iter(np.cumsum([0, 5, 1, 3, 1, 4] + 26 * [1, 9]))
    monkeypatch.setattr(half, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert half._shortest(lambda: None) == 3
