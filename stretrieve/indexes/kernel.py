"""Exact scores of pairs of vectors, compiled: each vector is read once.

A sum is that of one query and one vector in float64, in an order of additions that depends on their
length alone. Vectors are fetched ahead, since reading them is nearly all of the work. Numba is imported
here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from stretrieve._compiled import compiled

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_WAYS, _LANES = 4, 8
"""Sums that are added to side by side: so many vectors of so many numbers."""
_BLOCK = _WAYS * _LANES
_AHEAD = 8
"""Pairs between fetching a vector and reading it."""
LINE = 16
"""Entries of four bytes that are fetched from memory at once."""


class Stored(NamedTuple):
    """Vectors and how queries are compared with them.

    Parameters
    ----------
    vectors
        ``(n_vectors, dim)``.
    inverse_norms
        ``(n_vectors,)`` 1 / norm for cosines, 0 where that is infinite; empty for the others.
    distances
        Whether scores are negative distances; they are inner products, or cosines, otherwise.
    steps
        A score is a multiple of 1 / steps.
    """

    vectors: npt.NDArray[np.float32]
    inverse_norms: Floats
    distances: bool
    steps: float


@intrinsic  # type: ignore[untyped-decorator]
def fetch(context: Any, array: Any, index: Any) -> Any:
    """Have entry ``index`` of a contiguous array brought from memory, without waiting for it."""
    del context

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [address, number(0), number(3), number(1)])
        return target.get_dummy_value()

    return types.void(array, index), generate


def read_lanes(builder: Any, data: Any, place: Any, wide: Any) -> Any:
    """Generate the reading of some numbers from ``place`` on, in single or double precision."""
    entry = data.type.pointee
    address = builder.bitcast(
        builder.gep(data, [place]), ir.VectorType(entry, wide.count).as_pointer()
    )
    value = builder.load(address)
    value.align = 4
    return value if entry == wide.element else builder.fpext(value, wide)


@intrinsic  # type: ignore[untyped-decorator]
def _product_of_blocks(context: Any, one: Any, other: Any, length: Any) -> Any:
    """Add up the products of the first entries, every 32nd to the same sum, and then those sums.

    The compiler may not change the order of additions, so it would take one product at a time.
    """
    del context
    wide = ir.VectorType(ir.DoubleType(), _LANES)

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, number = signature.args, args[2].type
        data = [target.make_array(kinds[i])(target, builder, args[i]).data for i in range(2)]
        zeros = ir.Constant(wide, [0.0] * _LANES)
        sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(_WAYS)]
        blocks = (number(0), args[2], number(_BLOCK))
        with cgutils.for_range_slice(builder, *blocks, intp=number) as (start, _):
            for way, total in enumerate(sums):
                place = builder.add(start, number(way * _LANES))
                product = builder.fmul(*(read_lanes(builder, one, place, wide) for one in data))
                builder.store(builder.fadd(builder.load(total), product), total)
        a, b, c, d = (builder.load(total) for total in sums)
        lanes = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        out = ir.Constant(ir.DoubleType(), 0.0)
        for lane in range(_LANES):
            out = builder.fadd(out, builder.extract_element(lanes, ir.IntType(32)(lane)))
        return out

    return types.float64(one, other, length), generate


@compiled
def fill_scores(out: Floats, query: Floats, stored: Stored, indices: Indices) -> None:
    """Fill in the scores of queries and stored vectors.

    Parameters
    ----------
    out
        ``(n_query, k)`` scores, −inf where the index is negative; contiguous, as is every array.
    query
        ``(n_query, dim)``.
    stored
        What queries are compared with.
    indices
        ``(n_query, k)`` positions in ``stored``.
    """
    k = indices.shape[1]
    owners = np.repeat(np.arange(len(query)), k)
    fill_pairs(out.reshape(-1), query, stored, owners, indices.reshape(-1))


@compiled
def fill_pairs(
    out: Floats, query: Floats, stored: Stored, owners: Indices, indices: Indices
) -> None:
    """Fill in the scores of pairs of a query and a stored vector.

    Parameters
    ----------
    out
        ``(n_pairs,)`` scores, −inf where the index is negative.
    query, stored
        As in :func:`fill_scores`.
    owners
        ``(n_pairs,)`` rows of ``query``; those of one query follow each other.
    indices
        ``(n_pairs,)`` positions in ``stored``.
    """
    apart = np.empty(query.shape[1])
    one, norm = apart, 0.0
    for pair in range(len(indices)):
        _fetch_ahead(stored, indices, pair + _AHEAD)
        if pair == 0 or owners[pair] != owners[pair - 1]:
            one = query[owners[pair]]
            norm = np.sqrt(_product(one, one))
        row = indices[pair]
        if row < 0:
            out[pair] = -np.inf
            continue
        other = stored.vectors[row]
        if stored.distances:
            for place in range(len(apart)):
                apart[place] = one[place] - other[place]
            score = -np.sqrt(_product(apart, apart))
        else:
            score = _product(one, other)
        if len(stored.inverse_norms):
            score *= stored.inverse_norms[row] / norm if norm > 0 else 0.0
        out[pair] = np.rint(score * stored.steps) / stored.steps + 0.0  # never −0


@compiled
def fill_best(best: Indices, values: Floats, indices: Indices, scores: Floats) -> None:
    """Fill in the best candidates of each query by (score descending, position ascending).

    Parameters
    ----------
    best, values
        ``(n_query, k)`` indices and scores; what there is no candidate for is left as it is.
    indices, scores
        ``(n_query, n_candidates)``; −1 and −inf for "none".
    """
    for i in range(len(indices)):
        for j in range(indices.shape[1]):
            insert(best[i], values[i], j, indices[i, j], scores[i, j])


@compiled
def insert(best: Indices, values: Floats, n: int, index: int, score: float) -> None:
    """Put a candidate where it belongs among the best of a query, if it is one of them.

    It is moved up from the end, which is little work where candidates come nearly in order, or where
    few of many are kept.

    Parameters
    ----------
    best, values
        ``(k,)`` indices and scores, best first.
    n
        How many there are; more than ``k`` are ``k``.
    index, score
        The candidate.
    """
    k = len(best)
    place = min(n, k)
    while place > 0:
        above = values[place - 1]
        if above > score or (above == score and best[place - 1] < index):
            break
        if place < k:
            best[place], values[place] = best[place - 1], above
        place -= 1
    if place < k:
        best[place], values[place] = index, score


@compiled
def _fetch_ahead(stored: Stored, indices: Indices, pair: int) -> None:
    if pair < len(indices) and indices[pair] >= 0:
        row, dim = indices[pair], stored.vectors.shape[1]
        if len(stored.inverse_norms):
            fetch(stored.inverse_norms, row)
        for entry in range(row * dim, (row + 1) * dim, LINE):
            fetch(stored.vectors, entry)


@compiled
def _product(one: Floats, other: npt.NDArray[Any]) -> float:
    """Return the inner product of two contiguous vectors of one length."""
    whole = len(one) // _BLOCK * _BLOCK
    total: float = _product_of_blocks(one, other, whole)
    for place in range(whole, len(one)):
        total += one[place] * np.float64(other[place])
    return total
