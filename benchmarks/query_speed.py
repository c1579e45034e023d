"""Retrieval and imputation against the published arithmetic, and against the memory's bandwidth.

    python benchmarks/query_speed.py                    # 10⁵ reference spots, 5,000 queries, 3,000 genes

The published arithmetic is what BLEEP's notebook computes: normalise both sides, multiply all queries
with all spots, take the 50 largest of each row, and average their expression row by row. Ours is
exact re-scored search in a flat FAISS index and :func:`stretrieve.query.impute.impute`, in batches, with
the spread and support of every value besides the mean. Both see the same float32 arrays in turns.
Bandwidth is that of copying a large array, read and written bytes, in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy import sparse

from stretrieve.query.impute import WeightMatrix, impute

K = 50
GENES_AT_ONCE = 512


def timed(call: Callable[[], object], rounds: int) -> float:
    """Median seconds of some calls."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def normalised(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def published(queries: np.ndarray, spots: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """The full similarity matrix, its 50 largest a row, one average a row."""
    import torch

    similarity = torch.from_numpy(normalised(queries)) @ torch.from_numpy(normalised(spots)).T
    best = torch.topk(similarity, K).indices.numpy()
    predicted = np.empty((len(queries), expression.shape[1]), expression.dtype)
    for row, neighbours in enumerate(best):
        predicted[row] = np.average(expression[neighbours], axis=0)
    return predicted


class Ours:
    """A flat index, opened once, and averages in blocks of genes."""

    def __init__(self, spots: np.ndarray, expression: np.ndarray) -> None:
        import faiss

        self.expression = expression
        self.index = faiss.IndexFlatIP(spots.shape[1])
        self.index.add(normalised(spots))

    def find(self, queries: np.ndarray) -> np.ndarray:
        return self.index.search(normalised(queries), K)[1].astype(np.int64)

    def average(self, neighbours: np.ndarray) -> np.ndarray:
        weights = np.full(neighbours.shape, 1 / K)
        matrix = WeightMatrix.build(neighbours, weights)
        means = np.empty((len(neighbours), self.expression.shape[1]))
        for start in range(0, means.shape[1], GENES_AT_ONCE):
            block = slice(start, start + GENES_AT_ONCE)
            values = self.expression[matrix.used, block]
            means[:, block] = impute(matrix.matrix, values).mean
        return means

    def predict(self, queries: np.ndarray) -> np.ndarray:
        return self.average(self.find(queries))


def bandwidth(rounds: int) -> float:
    """GB/s of copying 480 MB, read and written bytes."""
    source, target = np.ones(60_000_000), np.ones(60_000_000)
    return 2 * source.nbytes / timed(lambda: np.copyto(target, source), rounds) / 1e9


def kernel(n_spots: int, n_queries: int, rounds: int) -> tuple[float, float]:
    """GB/s of the values that the weighted moments must read: dense and sparse expression."""
    rng = np.random.default_rng(1)
    values = np.log1p(rng.poisson(0.3, (n_spots, GENES_AT_ONCE))).astype(np.float64)
    neighbours = rng.integers(0, n_spots, (n_queries, K))
    neighbours.sort(axis=1)
    pointers = np.arange(0, n_queries * K + 1, K)
    flat = np.full(n_queries * K, 1 / K)
    matrix = sparse.csr_matrix((flat, neighbours.ravel(), pointers), shape=(n_queries, n_spots))
    read = neighbours.size * GENES_AT_ONCE * values.itemsize
    dense = read / timed(lambda: impute(matrix, values), rounds) / 1e9
    stored = sparse.csr_matrix(values)
    entries = int(np.diff(stored.indptr)[neighbours].sum())
    read = entries * (stored.data.itemsize + stored.indices.itemsize)
    moments = timed(lambda: (matrix @ stored, matrix @ stored.power(2)), rounds)
    return dense, read / moments / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spots", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    spots = rng.standard_normal((options.spots, options.dim), np.float32)
    queries = rng.standard_normal((options.queries, options.dim), np.float32)
    expression = rng.random((options.spots, options.genes), np.float32)
    ours = Ours(spots, expression)
    found = ours.find(queries)
    difference = np.abs(ours.average(found) - published(queries, spots, expression))
    print(f"largest difference {difference.max():.1e}; beyond 1e-5: {(difference > 1e-5).sum()}")
    seconds = {
        "published": timed(lambda: published(queries, spots, expression), options.rounds),
        "ours": timed(lambda: ours.predict(queries), options.rounds),
        "  of it search": timed(lambda: ours.find(queries), options.rounds),
        "  of it imputation": timed(lambda: ours.average(found), options.rounds),
    }
    for name, value in seconds.items():
        print(f"{name:20} {value:8.2f} s")
    print(f"published / ours     {seconds['published'] / seconds['ours']:8.2f}")
    copy = bandwidth(options.rounds)
    dense, stored = kernel(options.spots, min(options.queries, 2000), options.rounds)
    print(f"memory {copy:.1f} GB/s; kernel dense {dense:.1f} ({dense / copy:.0%}), "
          f"sparse {stored:.1f} ({stored / copy:.0%})")  # fmt: skip


if __name__ == "__main__":
    main()
