"""Which products in half precision can be those of nearest neighbours, compiled.

A product in bfloat16 is compared as its 16 bits, 64 at a time, with the least that can still matter to
a query; few pass. Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from stretrieve._compiled import compiled

Keys = npt.NDArray[np.int16]
Indices = npt.NDArray[np.int64]

CHUNK = 64
"""Products compared at once; candidates are kept in rows of at least twice as many."""
_ROUNDED = np.float32(2**-7)
"""By so large a share at most are two numbers apart after rounding to bfloat16 and were not before."""


class Kept(NamedTuple):
    """Candidates of each query.

    Parameters
    ----------
    positions, keys
        ``(n_query, capacity)`` stored vectors and keys of their products, in no order.
    counts
        ``(n_query,)`` how many there are; −1 where they were too many.
    least
        ``(n_query,)`` key below which nothing can matter.
    """

    positions: Indices
    keys: Keys
    counts: Indices
    least: Keys


@intrinsic  # type: ignore[untyped-decorator]
def _reaching(context: Any, products: Any, place: Any, least: Any) -> Any:
    """Return 64 bits: which of the 64 products from ``place`` on have a key of ``least`` or more."""
    takes = types.uint64(products, place, least)
    del context
    wide = ir.VectorType(ir.IntType(16), CHUNK)

    def constant(value: int) -> Any:
        return ir.Constant(wide, [value] * CHUNK)

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), wide.as_pointer())
        bits = builder.load(address)
        bits.align = 2
        flip = builder.and_(builder.ashr(bits, constant(15)), constant(0x7FFF))
        empty = ir.Constant(wide, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), CHUNK), [0] * CHUNK)
        one = builder.insert_element(empty, args[2], ir.IntType(32)(0))
        limit = builder.shuffle_vector(one, empty, lanes)
        reached = builder.icmp_signed(">=", builder.xor(bits, flip), limit)
        return builder.bitcast(reached, ir.IntType(CHUNK))

    return takes, generate


@intrinsic  # type: ignore[untyped-decorator]
def _first_bit(context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set."""
    del context

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        del target, signature
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(bits), generate


@compiled
def key_of(bits: np.int16) -> np.int16:
    """Return the key of a number's bits, and the bits of a key: keys are in the order of numbers."""
    return np.int16(bits ^ ((bits >> 15) & 0x7FFF))


@compiled
def _number(key: np.int16) -> np.float32:
    number: np.float32 = np.array([np.int32(key_of(key)) << 16], np.int32).view(np.float32)[0]
    return number


@compiled
def _key_below(number: np.float32) -> np.int16:
    """Return the key of a number that is a little less."""
    bits = np.array([number], dtype=np.float32).view(np.int32)[0]
    return np.int16(key_of(np.int16(bits >> 16)) - 1)


@compiled
def _kth_key(keys: Keys, n: int, k: int) -> np.int16:
    """Return the ``k``-th highest of the first ``n`` keys, by counting their high, then low bytes."""
    counts, left = np.zeros(256, dtype=np.int64), k
    for i in range(n):
        counts[(keys[i] >> 8) + 128] += 1
    high = 255
    while counts[high] < left:
        left -= counts[high]
        high -= 1
    counts[:] = 0
    for i in range(n):
        if (keys[i] >> 8) + 128 == high:
            counts[keys[i] & 255] += 1
    low = 255
    while counts[low] < left:
        left -= counts[low]
        low -= 1
    return np.int16(((high - 128) << 8) | low)


@compiled
def drop(kept: Kept, query: int, n: int, k: int, error: np.float32) -> int:
    """Drop the candidates of a query that cannot be among its ``k`` best; return how many are left.

    Parameters
    ----------
    kept
        Candidates; what the query's next product has to reach is raised.
    query
        Row of it.
    n
        Candidates that it has.
    k
        Neighbours wanted.
    error
        How far a product may be off before it is rounded.
    """
    if n < k:
        return n
    positions, keys = kept.positions[query], kept.keys[query]
    worst = _number(_kth_key(keys, n, k))
    kept.least[query] = _key_below(worst - abs(worst) * _ROUNDED - 2 * error)
    left = 0
    for i in range(n):
        if keys[i] >= kept.least[query]:
            positions[left], keys[left] = positions[i], keys[i]
            left += 1
    return left


@compiled
def keep(
    products: Keys, positions: Indices, k: int, error: np.float32, kept: Kept, first: int
) -> None:
    """Add what can matter of a block of products to the candidates of its queries.

    Parameters
    ----------
    products
        ``(n_query, n_vectors)`` bits of products in bfloat16, contiguous.
    positions
        ``(n_vectors,)`` the stored vectors.
    k, error
        See :func:`drop`.
    kept
        Candidates so far.
    first
        Row there of the first query.
    """
    n_vectors, full = products.shape[1], kept.positions.shape[1] - CHUNK
    for i in range(len(products)):
        query, row = first + i, products[i]
        n = int(kept.counts[query])
        for start in range(0, n_vectors if n >= 0 else 0, CHUNK):
            n = _keep_chunk(row, positions, start, kept, query, n)
            if n > full:
                n = drop(kept, query, n, k, error)
            if n > full:
                n = -1
                break
        kept.counts[query] = n


@compiled
def _keep_chunk(row: Keys, positions: Indices, start: int, kept: Kept, query: int, n: int) -> int:
    """Add to a query's candidates from up to 64 products; return how many there are."""
    least = kept.least[query]
    if start + CHUNK <= len(row):
        found = _reaching(row, start, least)
        while found:
            place = int(start + np.int64(_first_bit(found)))
            found &= found - np.uint64(1)
            kept.positions[query, n], kept.keys[query, n] = positions[place], key_of(row[place])
            n += 1
        return n
    for place in range(start, len(row)):
        if key_of(row[place]) >= least:
            kept.positions[query, n], kept.keys[query, n] = positions[place], key_of(row[place])
            n += 1
    return n
