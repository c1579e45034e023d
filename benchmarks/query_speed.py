"""Retrieval and imputation against the published arithmetic, and against the memory's bandwidth.

    python benchmarks/query_speed.py                    # 10⁵ reference spots, 5,000 queries, 3,000 genes

The published arithmetic is what BLEEP's notebook computes: normalise both sides, multiply all queries
with all spots, take the 50 largest of each row, and average embeddings and expression row by row. It is
run on arrays as its files hold them (genes × spots in float64, read through a transposed view), and on
ours (spots × genes in float32), which is kinder to it. Ours is exact re-scored search in a flat index
and :func:`stretrieve.query.impute.impute`, for the mean that the published arithmetic computes, and
with the spread besides. All take turns, in one order, so that each finds the machine, and the memory
that the one before gave back, in the same state every time; ratios are those of a turn. ``Predictor``
is the path of a query on sparse counts in memory, with everything that it adds.

Bandwidth is that of copying a large array, bytes read and bytes written, by as many threads and in the
same turn; the share is the median over turns. The kernel moves the values that it has to read (four
bytes each, and four for the gene of a sparse one) and the two results that it has to write.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from scipy import sparse

from stretrieve.indexes import Metric, build_index, load_recipe
from stretrieve.indexes.rescore import for_parts, thread_count
from stretrieve.query import ArrayPool, Predictor, RetrievalSettings
from stretrieve.query.impute import StoredRows, WeightMatrix, impute

K = 50
KERNEL_QUERIES = 3000
COPIED = 40_000_000


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Median seconds of some calls."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let our functions use some threads within the block."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def published(
    queries: np.ndarray, spots: np.ndarray, expression: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The full similarity matrix, its 50 largest a row, two averages a row."""
    best = published_matches(queries, spots)
    embeddings = np.zeros((len(queries), spots.shape[1]))
    predicted = np.zeros((len(queries), expression.shape[1]))
    for row, neighbours in enumerate(best):
        embeddings[row] = np.average(spots[neighbours], axis=0)
        predicted[row] = np.average(expression[neighbours], axis=0)
    return predicted, best


def published_matches(queries: np.ndarray, spots: np.ndarray) -> np.ndarray:
    import torch
    import torch.nn.functional as nn

    query, key = (nn.normalize(torch.tensor(side), dim=-1) for side in (queries, spots))
    return torch.topk(query @ key.T, K).indices.numpy()


class Ours:
    """A flat index, built once, and the average of what it finds."""

    def __init__(self, spots: np.ndarray, expression: np.ndarray) -> None:
        self.index = build_index(spots, load_recipe("flat"), metric=Metric.COSINE)
        self.expression = expression

    def find(self, queries: np.ndarray) -> np.ndarray:
        return self.index.search(queries, K).indices

    def average(self, neighbours: np.ndarray, *, spread: bool = False) -> np.ndarray:
        matrix = WeightMatrix.build(neighbours, np.full(neighbours.shape, 1 / K))
        rows = StoredRows.of(self.expression, matrix.used)
        return impute(matrix.matrix, rows, spread=spread).mean

    def predict(self, queries: np.ndarray, *, spread: bool = False) -> np.ndarray:
        return self.average(self.find(queries), spread=spread)


def compare(queries: np.ndarray, spots: np.ndarray, n_genes: int, rounds: int) -> None:
    """Print seconds and ratios end to end, and how far predictions are apart."""
    rng = np.random.default_rng(1)
    filed = rng.random((n_genes, len(spots)), np.float32).astype(np.float64)
    expression = np.ascontiguousarray(filed.T, dtype=np.float32)
    ours, filed_spots = Ours(spots, expression), np.asfortranarray(spots)
    theirs, best = published(queries, filed_spots, filed.T)
    found = ours.find(queries)
    difference = np.abs(ours.average(found) - theirs)
    same = (np.sort(best) == np.sort(found)).all(axis=1)
    print(f"largest difference {difference.max():.1e}; {difference[same].max():.1e} in the "
          f"{same.sum()} of {len(same)} queries with the same 50 neighbours")  # fmt: skip
    del theirs, difference
    calls: dict[str, Callable[[], object]] = {
        "published, arrays as its files hold them": lambda: published(
            queries, filed_spots, filed.T
        ),
        "ours": lambda: ours.predict(queries),
        "ours, with spread": lambda: ours.predict(queries, spread=True),
        "published, on our arrays": lambda: published(queries, spots, expression),
        "of it search": lambda: published_matches(queries, spots),
        "ours, search": lambda: ours.find(queries),
        "ours, mean of neighbours": lambda: ours.average(found),
        "ours, mean and spread": lambda: ours.average(found, spread=True),
    }
    taken = in_turns(calls, rounds)
    for name, each in taken.items():
        print(f"{name:41} {np.median(each):6.2f} s  ({', '.join(f'{s:.2f}' for s in each)})")
    for name in (name for name in calls if name.startswith("published")):
        for whole in "ours", "ours, with spread":
            ratios = taken[name] / taken[whole]
            print(f"{name} / {whole}: {np.median(ratios):.1f}  "
                  f"({', '.join(f'{r:.1f}' for r in ratios)})")  # fmt: skip


def counts(n_spots: int, n_genes: int) -> sparse.csr_matrix:
    """Log-normalised values of which a quarter is not 0, as in a section of Visium."""
    rng = np.random.default_rng(2)
    parts = [
        sparse.csr_matrix(np.log1p(rng.poisson(0.3, (len(rows), n_genes)).astype(np.float32)))
        for rows in np.array_split(np.arange(n_spots), max(1, n_spots // 5000))
    ]
    return sparse.vstack(parts, format="csr")


def predictor(
    queries: np.ndarray, spots: np.ndarray, values: sparse.csr_matrix, rounds: int
) -> None:
    """Print the seconds of a prediction from a pool of 20 sections in memory."""
    genes = [f"G{number}" for number in range(values.shape[1])]
    sections = [f"s{20 * spot // len(spots):02d}" for spot in range(len(spots))]
    vectors = {"image": spots, "expression": spots}
    pool = ArrayPool.build(vectors, values, genes, sections=sections)
    for name, settings in (("plain", {}), ("sections centred", {"centring": "section"})):
        ours = Predictor(pool, RetrievalSettings(top_k=K, **settings), score_ood=False)
        found = ours.find(queries)
        ours.impute(found)
        find = seconds(partial(ours.find, queries), rounds)
        averaged = seconds(partial(ours.impute, found), rounds)
        print(f"Predictor, {name:17} find {find:.2f} s, impute {averaged:.2f} s")


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds ``(rounds,)`` of each call; they take turns since the machine's speed changes."""
    taken = {name: np.empty(rounds) for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name][turn] = time.perf_counter() - start
    return taken


def kernel(values: sparse.csr_matrix, rounds: int) -> None:
    """Print GB/s of the moments of dense and sparse expression, by number of threads."""
    rng = np.random.default_rng(3)
    n_spots, n_genes = values.shape
    neighbours = np.stack([rng.permutation(n_spots)[:K] for _ in range(KERNEL_QUERIES)])
    matrix = WeightMatrix.build(neighbours, np.full(neighbours.shape, 1 / K))
    entries = int(np.diff(values.indptr)[neighbours].sum())
    written = 2 * 8 * KERNEL_QUERIES * n_genes
    source, target = np.ones(COPIED), np.ones(COPIED)
    dense = np.ones(values.shape, np.float32)
    moved = {
        "copy": 2 * source.nbytes,
        "sparse": 8 * entries + written,
        "dense": 4 * neighbours.size * n_genes + written,
    }
    stored = {
        "sparse": StoredRows.of(values, matrix.used),
        "dense": StoredRows.of(dense, matrix.used),
    }

    def copy() -> None:
        for_parts(lambda part: np.copyto(target[part], source[part]), COPIED, least=1 << 16)

    calls = {name: partial(impute, matrix.matrix, rows) for name, rows in stored.items()}
    in_turns(calls, 1)
    for n in sorted({1, thread_count()}):
        with threads(n):
            taken = in_turns({"copy": copy, **calls}, rounds)
        rates = {name: moved[name] / seconds / 1e9 for name, seconds in taken.items()}
        for name, rate in rates.items():
            share = np.median(rate / rates["copy"])
            print(f"{name:6} {n} threads: {np.median(taken[name]):.3f} s, "
                  f"{np.median(rate):.1f} GB/s ({share:.0%} of copying)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spots", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="compare,predictor,kernel")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    spots = rng.standard_normal((options.spots, options.dim), np.float32)
    queries = rng.standard_normal((options.queries, options.dim), np.float32)
    if "compare" in options.parts:
        compare(queries, spots, options.genes, options.rounds)
    values = counts(options.spots, options.genes)
    if "kernel" in options.parts:
        kernel(values, 5 * options.rounds)
    if "predictor" in options.parts:
        predictor(queries, spots, values, options.rounds)


if __name__ == "__main__":
    main()
