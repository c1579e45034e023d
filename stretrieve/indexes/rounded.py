"""Vectors as 8-bit whole numbers, and how much each lost by rounding. Compiled.

Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve._compiled import compiled, compiled_in_any_order
from stretrieve.indexes.products import PANEL, ROWS, TOGETHER

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_LARGEST: Final = 127
_ZERO: Final = 128
"""What a stored 0 is: one factor of a product has to be without sign."""
_SIGNS: Final = np.uint32(0x80808080)
"""The bits of a word that turn numbers with a sign into such."""
_MAGNITUDE: Final = np.int32(0x7FFFFFFF)
"""The bits of a number in single precision without its sign."""
_NOTHING: Final = np.float32(1e-30)
"""Less than that is rounded to 0."""
_SAFE: Final = np.float32(1.001)
"""By more than the share that a norm in single precision is off."""


class Stored(NamedTuple):
    """Stored vectors, less a centre, as whole numbers in panels.

    Parameters
    ----------
    numbers
        ``(n_panels, dim / 4, 64)`` words: 4 numbers of each of 64 vectors, then the next 4.
    steps
        ``(n_panels, 64)`` what a number is to be multiplied by.
    errors
        ``(n_panels, 64)`` how far that is from the vector.
    offsets
        ``(n_panels, 64)`` the vector's product with the centre, which queries lack.
    radii
        ``(n_panels,)`` the largest norm in a panel.
    """

    numbers: Words
    steps: Floats
    errors: Floats
    offsets: Floats
    radii: Floats


class Queries(NamedTuple):
    """Queries, less the same centre, as whole numbers.

    Parameters
    ----------
    numbers
        ``(n_query, dim / 4)`` words of 4 numbers.
    starts
        ``(n_query,)`` what makes up for stored numbers without sign.
    steps
        ``(n_query,)`` what a number is to be multiplied by; 0 in rows that fill up the last four.
    lengths
        ``(n_query,)`` norms of that.
    errors
        ``(n_query,)`` how far it is from the query.
    """

    numbers: Words
    starts: npt.NDArray[np.int32]
    steps: Floats
    lengths: Floats
    errors: Floats


@compiled
def pack_queries(vectors: Floats, centre: Floats, dim: int) -> Queries:
    """Return queries as whole numbers.

    Parameters
    ----------
    vectors
        ``(n_query, dim)`` of length 1, or 0.
    centre
        ``(dim,)`` subtracted from each.
    dim
        Width that is filled up to, a multiple of 4.
    """
    n_query = len(vectors)
    rows = -(-n_query // ROWS) * ROWS
    numbers = np.zeros((rows, dim // TOGETHER), dtype=np.uint32)
    starts, steps = np.zeros(rows, dtype=np.int32), np.zeros(rows, dtype=np.float32)
    lengths, errors = np.zeros(rows, dtype=np.float32), np.zeros(rows, dtype=np.float32)
    one, whole = np.zeros(dim, dtype=np.float32), np.zeros(dim, dtype=np.int8)
    for row in range(n_query):
        one[: len(centre)] = vectors[row] - centre
        steps[row], error, length = _round(one, whole)
        numbers[row] = whole.view(np.uint32)
        total = np.int32(0)
        for number in whole:
            total += number
        starts[row] = -_ZERO * total
        lengths[row], errors[row] = _SAFE * (length + error), _SAFE * error
    return Queries(numbers, starts, steps, lengths, errors)


@compiled
def pack(
    vectors: Floats, scales: Doubles, centre: Floats, out: Stored, first: int, last: int
) -> None:
    """Fill in panels ``first`` to ``last - 1``.

    Parameters
    ----------
    vectors, scales
        ``(n_vectors, dim)``, and ``(n_vectors,)`` what each is to be multiplied by.
    centre
        ``(dim,)`` subtracted then.
    out
        What is filled in; what is over in the last panel reaches nothing.
    """
    dim = out.numbers.shape[1] * TOGETHER
    one, whole = np.zeros(dim, dtype=np.float32), np.zeros(dim, dtype=np.int8)
    words = whole.view(np.uint32)
    for panel in range(first, last):
        out.radii[panel] = 0.0
        for lane in range(PANEL):
            row = panel * PANEL + lane
            if row >= len(vectors):
                out.errors[panel, lane] = np.nan
                continue
            for place in range(len(centre)):
                one[place] = vectors[row, place] * scales[row] - centre[place]
            out.steps[panel, lane], error, length = _round(one, whole)
            out.errors[panel, lane] = _SAFE * error
            out.offsets[panel, lane] = _product(one, centre)
            out.radii[panel] = max(out.radii[panel], _SAFE * length)
            for place in range(len(words)):
                out.numbers[panel, place, lane] = words[place] ^ _SIGNS


@compiled_in_any_order
def _product(one: Floats, centre: Floats) -> float:
    total = 0.0
    for place in range(len(centre)):
        total += np.float64(one[place]) * np.float64(centre[place])
    return total


@compiled_in_any_order
def _round(one: Floats, whole: npt.NDArray[np.int8]) -> tuple[np.float32, np.float32, np.float32]:
    """Round a vector to whole numbers of steps; return the step, the error's norm, and the vector's."""
    largest = _largest(one)
    step = largest / np.float32(_LARGEST) if largest > _NOTHING else np.float32(1.0)
    steps = np.float32(1.0) / step
    error, length = 0.0, 0.0
    for place in range(len(one)):
        number = np.rint(one[place] * steps)
        value, off = np.float64(one[place]), np.float64(one[place] - number * step)
        error, length = error + off * off, length + value * value
        whole[place] = np.int8(number)
    return step, np.float32(np.sqrt(error)), np.float32(np.sqrt(length))


@compiled
def _largest(one: Floats) -> np.float32:
    """Return the largest absolute value, by comparing bits, which can be done many at a time."""
    most = np.int32(0)
    for bits in one.view(np.int32):
        most = max(most, bits & _MAGNITUDE)
    return np.int32(most).view(np.float32)
