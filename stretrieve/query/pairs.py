"""Sums of pairs in machine code: a neighbour's value, and its square, are added at once.

Numba is imported here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from stretrieve.indexes.kernel import read_lanes

LANES = 8
"""Entries that are multiplied at once."""
_INT = ir.IntType(32)
_PAIR = ir.VectorType(ir.DoubleType(), 2)


@intrinsic  # type: ignore[untyped-decorator]
def add_pair(context: Any, sums: Any, row: Any, first: Any, second: Any) -> Any:
    """Add to ``sums[row, 0]`` and ``sums[row, 1]`` at once."""
    takes = types.void(sums, row, first, second)
    del context

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, args[0]).data
        both = builder.insert_element(ir.Constant(_PAIR, ir.Undefined), args[2], _INT(0))
        both = builder.insert_element(both, args[3], _INT(1))
        _add_at(builder, builder.bitcast(data, _PAIR.as_pointer()), args[1], both)
        return target.get_dummy_value()

    return takes, generate


@intrinsic  # type: ignore[untyped-decorator]
def add_pairs(
    context: Any, sums: Any, columns: Any, values: Any, entry: Any, low: Any, weight: Any
) -> Any:
    """Add ``w x`` and ``w x x`` of the next eight entries at their columns, counted from ``low``."""
    takes = types.void(sums, columns, values, entry, low, weight)
    del context
    wide = ir.VectorType(ir.DoubleType(), LANES)

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, (entry, low, weight) = signature.args, args[3:]
        pairs, genes, row = (
            target.make_array(kinds[i])(target, builder, args[i]).data for i in range(3)
        )
        pairs = builder.bitcast(pairs, _PAIR.as_pointer())
        empty = ir.Constant(wide, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
        weights = builder.insert_element(empty, weight, _INT(0))
        weights = builder.shuffle_vector(weights, empty, zeros)
        x = read_lanes(builder, row, entry, wide)
        first = builder.fmul(weights, x)
        second = builder.fmul(first, x)
        for lane in range(LANES):
            gene = builder.load(builder.gep(genes, [builder.add(entry, entry.type(lane))]))
            gene = gene if gene.type == low.type else builder.sext(gene, low.type)
            lanes = ir.Constant(ir.VectorType(_INT, 2), [lane, lane + LANES])
            _add_at(builder, pairs, builder.sub(gene, low),
                    builder.shuffle_vector(first, second, lanes))  # fmt: skip
        return target.get_dummy_value()

    return takes, generate


def _add_at(builder: Any, pairs: Any, place: Any, both: Any) -> None:
    """Generate the addition of two numbers to a pair of them."""
    address = builder.gep(pairs, [place])
    old = builder.load(address)
    old.align = 8
    builder.store(builder.fadd(old, both), address).align = 8
