"""Products of 8-bit numbers, 64 at once, by one instruction of processors with AVX-512 VNNI.

Vectors are read as words of four numbers; sums are those of whole numbers, and exact. Numba is imported
here: import this module inside the function that uses it.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

TOGETHER: Final = 4
"""Numbers of a vector that are multiplied and added up by one instruction."""
ROWS: Final = 4
PANEL: Final = 64
"""Queries and stored vectors that are multiplied with each other before the next."""
_LANES = 16
_WORD = ir.IntType(32)
_WORDS = ir.VectorType(_WORD, _LANES)


@intrinsic  # type: ignore[untyped-decorator]
def multiply(context: Any, stored: Any, panel: Any, queries: Any, first: Any,
             starts: Any, tile: Any) -> Any:  # fmt: skip
    """Fill ``tile (4, 64)`` with the products of four queries and a panel of stored vectors."""
    takes = types.void(stored, panel, queries, first, starts, tile)
    del context

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        panel, first = args[1], args[3]
        arrays = {
            i: target.make_array(signature.args[i])(target, builder, args[i]) for i in (0, 2, 4, 5)
        }
        steps = builder.extract_value(arrays[0].shape, 1)
        stored, tile = (builder.bitcast(arrays[i].data, _WORDS.as_pointer()) for i in (0, 5))
        queries = builder.bitcast(arrays[2].data, _WORD.as_pointer())
        vectors = range(PANEL // _LANES)
        sums = []
        for row in range(ROWS):
            start = builder.load(builder.gep(arrays[4].data, [builder.add(first, first.type(row))]))
            value = _repeated(builder, start)
            sums.append([cgutils.alloca_once_value(builder, value) for _ in vectors])
        zero = steps.type(0)
        with cgutils.for_range_slice(builder, zero, steps, steps.type(1)) as (step, _):
            place = builder.add(builder.mul(panel, steps), step)
            place = builder.mul(place, steps.type(len(vectors)))
            panel_words = [_load(builder, stored, place, i) for i in vectors]
            for row in range(ROWS):
                query = builder.mul(builder.add(first, first.type(row)), steps)
                word = builder.load(builder.gep(queries, [builder.add(query, step)]))
                words = _repeated(builder, word)
                for i in vectors:
                    _add_products(builder, sums[row][i], panel_words[i], words)
        for row in range(ROWS):
            for i in vectors:
                address = builder.gep(tile, [zero.type(row * len(vectors) + i)])
                builder.store(builder.load(sums[row][i]), address).align = 4
        return target.get_dummy_value()

    return takes, generate


def _repeated(builder: Any, word: Any) -> Any:
    """Generate a vector of one number."""
    empty = ir.Constant(_WORDS, ir.Undefined)
    zeros = ir.Constant(_WORDS, [0] * _LANES)
    return builder.shuffle_vector(builder.insert_element(empty, word, _WORD(0)), empty, zeros)


def _load(builder: Any, words: Any, place: Any, further: int) -> Any:
    value = builder.load(builder.gep(words, [builder.add(place, place.type(further))]))
    value.align = 4
    return value


def _add_products(builder: Any, total: Any, unsigned: Any, signed: Any) -> None:
    """Generate the addition of four products to each of 16 sums."""
    kind = ir.FunctionType(_WORDS, [_WORDS] * 3)
    name = "llvm.x86.avx512.vpdpbusd.512"
    call = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.store(builder.call(call, [builder.load(total), unsigned, signed]), total)


@intrinsic  # type: ignore[untyped-decorator]
def reaching(context: Any, tile: Any, row: Any, steps: Any, offsets: Any, errors: Any, panel: Any,
             step: Any, length: Any, least: Any) -> Any:  # fmt: skip
    """Return 64 bits: for which products of a query and a panel an upper bound is ``least`` or more.

    The bound is ``products * steps * step + offsets + errors * length``.
    """
    takes = types.uint64(tile, row, steps, offsets, errors, panel, step, length, least)
    del context
    floats, contract = ir.VectorType(ir.FloatType(), PANEL), ("contract",)

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        def line(i: int, number: Any, kind: Any) -> Any:
            data = target.make_array(signature.args[i])(target, builder, args[i]).data
            data = builder.gep(data, [builder.mul(number, number.type(PANEL))])
            value = builder.load(builder.bitcast(data, kind.as_pointer()))
            value.align = 4
            return value

        def repeated(number: Any) -> Any:
            empty = ir.Constant(floats, ir.Undefined)
            zeros = ir.Constant(ir.VectorType(_WORD, PANEL), [0] * PANEL)
            one = builder.insert_element(empty, number, _WORD(0))
            return builder.shuffle_vector(one, empty, zeros)

        numbers = builder.sitofp(line(0, args[1], ir.VectorType(_WORD, PANEL)), floats)
        wide, offset, error = (line(i, args[5], floats) for i in (2, 3, 4))
        products = builder.fmul(builder.fmul(numbers, wide), repeated(args[6]), flags=contract)
        error = builder.fmul(error, repeated(args[7]), flags=contract)
        rest = builder.fadd(offset, error, flags=contract)
        highest = builder.fadd(products, rest, flags=contract)
        return builder.bitcast(
            builder.fcmp_ordered(">=", highest, repeated(args[8])), ir.IntType(PANEL)
        )

    return takes, generate


@intrinsic  # type: ignore[untyped-decorator]
def first_bit(context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set."""
    del context

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        del target, signature
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(bits), generate
